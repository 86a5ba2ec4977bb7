// Command generate writes the golden vectors: it runs every timeline of this package
// through the core and records what the core decides. The outcome depends on nothing
// but the code, so that writing again changes a byte only if a decision has changed.
//
// Run it from the root of the repository, or through go generate:
//
//	go run ./vectors/generate
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"github.com/throttlekit/throttlekit-go/vectors"
)

func main() {
	out := flag.String("o", "vectors/golden.json", "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	text, err := generate()
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644) //nolint:gosec // a file of the repository, which everybody may read
}

// generate is the text of golden.json.
func generate() ([]byte, error) {
	doc := vectors.NewDocument()
	for _, group := range [][]timeline{gcra(), tokenBucket(), fixedWindow(), slidingWindow(), slidingWindowLog(), quota()} {
		for _, t := range group {
			suite, err := t.decide()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			doc.Suites = append(doc.Suites, suite)
		}
	}
	var b bytes.Buffer
	err := vectors.Write(&b, doc)
	return b.Bytes(), err
}

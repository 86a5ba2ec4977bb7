// Command bench compares ThrottleKit with floors and peers, prints a table and writes it as JSON.
//
//	go run ./bench [-only core,grpc] [-runs 31] [-slice 30ms] [-json bench/latest.json]
//
// Every figure is a quotient of things that ran by turns in this very process. A missed target is reported and is no
// failure: the exit code is 0 then too. README.md says how to read the table and how to add to it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
)

const (
	// fewestRuns is what a median needs to mean something.
	fewestRuns = 5
	// patience bounds how much longer a run takes on a busy machine.
	patience = 4
)

func main() {
	only := flag.String("only", "", "comma-separated `areas` to measure; all by default")
	runs := flag.Int("runs", 31, "how many `slices` each side of a comparison gets, 5 or more")
	slice := flag.Duration("slice", 30*time.Millisecond, "how long one slice is")
	path := flag.String("json", "bench/latest.json", "`file` to write the rows to; none if empty")
	flag.Parse()

	chosen, err := selected(*only)
	switch {
	case err != nil:
	case flag.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case *runs < fewestRuns:
		err = fmt.Errorf("-runs %d: must be %d or more", *runs, fewestRuns)
	case *slice <= 0:
		err = fmt.Errorf("-slice %v: must be positive", *slice)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if err := run(os.Stdout, chosen, measure.Schedule{Rounds: *runs, Slice: *slice, Patience: patience}, *path); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, prints as it goes, and writes the file. Its errors are about output only.
func run(w io.Writer, chosen []area, s measure.Schedule, path string) error {
	doc := report.Document{At: time.Now(), Machine: report.ThisMachine()}
	head := fmt.Sprintf("%v\nby turns, %d slices of %v for each side; a value is the median\n", doc.Machine, s.Rounds, s.Slice)
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	for _, a := range chosen {
		began := time.Now()
		rows := a.rows(s)
		for i := range rows {
			rows[i].Area = a.name
		}
		doc.Rows = append(doc.Rows, rows...)
		if err := report.WriteTable(w, title(a, time.Since(began)), rows); err != nil {
			return err
		}
	}
	took := time.Since(doc.At).Round(time.Millisecond)
	doc.Took = took.String()
	met, missed, failed := doc.Tally()
	foot := fmt.Sprintf("\n%d targets met, %d missed, %d rows failed, in %v\n", met, missed, failed, took.Round(time.Second))
	if _, err := io.WriteString(w, foot); err != nil {
		return err
	}
	if path == "" {
		return nil
	}
	return doc.WriteFile(path)
}

func title(a area, took time.Duration) string {
	return fmt.Sprintf("%s: %s (%v)", a.name, a.about, took.Round(time.Second))
}

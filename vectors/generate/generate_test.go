package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go/vectors"
)

func TestGoldenIsUpToDate(t *testing.T) {
	t.Parallel()
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Errorf("golden.json line %d is\n%s\nthe core now decides\n%s", i+1, gotLines[i], wantLines[i])
			break
		}
	}
	t.Error("golden.json is not what the core decides; if the change of behaviour is meant and understood, run go generate ./vectors")
}

func TestGenerateIsDeterministic(t *testing.T) {
	t.Parallel()
	a, errA := generate()
	b, errB := generate()
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("two runs differ: %v, %v", errA, errB)
	}
}

func TestRunWritesTheFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/out.json"
	if err := run(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := vectors.Read(f); err != nil {
		t.Error(err)
	}
	if err := run(path + "/nowhere"); err == nil {
		t.Error("writing to no directory succeeded")
	}
}

// The suites whose names promise fractional costs are the ones that doors with integer
// costs skip, so no other may have one.
func TestFractionalCostsAreNamed(t *testing.T) {
	t.Parallel()
	doc, err := vectors.Golden()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range doc.Suites {
		fractional := false
		for _, op := range s.Ops {
			fractional = fractional || op.Cost != float64(int64(op.Cost))
		}
		if fractional != strings.Contains(s.Name, "fractional-cost") {
			t.Errorf("%s: fractional costs: %t", s.Name, fractional)
		}
	}
}

package report

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
)

var figure = measure.Figure{Median: 1.25, Low: 1.125, High: 1.5, Samples: 7}

func TestTargets(t *testing.T) {
	t.Parallel()
	row := Measured("a", "ratio", figure, nil)
	failed := Measured("a", "ratio", figure, errors.New("no"))
	for _, tc := range []struct {
		name    string
		row     Row
		target  string
		verdict string
	}{
		{"none", row, "", "-"},
		{"at most, met to the hair", row.AtMost(1.25), "<= 1.25", "yes"},
		{"at most, missed", row.AtMost(1.2), "<= 1.2", "NO"},
		{"below, met", row.Below(1.3), "< 1.3", "yes"},
		{"below, missed by a hair", row.Below(1.25), "< 1.25", "NO"},
		{"at least, met to the hair", row.AtLeast(1.25), ">= 1.25", "yes"},
		{"at least, missed", row.AtLeast(1.5), ">= 1.5", "NO"},
		{"nothing measured", failed.AtMost(1), "<= 1", "failed"},
	} {
		if tc.row.Target != tc.target || tc.row.verdict() != tc.verdict {
			t.Errorf("%s: target %q, verdict %q; want %q, %q", tc.name, tc.row.Target, tc.row.verdict(), tc.target, tc.verdict)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	rows := []Row{
		Measured("quick", "ratio", figure, nil).AtMost(1).Saying("Twice %d.", 2),
		Measured("disturbed", "ratio", measure.Figure{Median: 2, Low: 1, High: 3, Samples: 5, Stalled: 0.5}, nil),
		Measured("broken", "bytes", measure.Figure{}, errors.New("it broke\nat line 5")).Saying("Something."),
	}
	var b strings.Builder
	if err := WriteTable(&b, "core: all", rows); err != nil {
		t.Fatal(err)
	}
	want := `
core: all

  #  name       value  unit   target  met     half of the slices within
  1  quick      1.25   ratio  <= 1    NO      1.12 to 1.50 (7)
  2  disturbed  2.00   ratio  -       -       1.00 to 3.00 (5), 50% stalled
  3  broken     -      bytes  -       failed  -

  1  Twice 2.
  2
  3  FAILED: it broke. Something.
`
	if b.String() != want {
		t.Errorf("got:%s\nwant:%s", b.String(), want)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for x, want := range map[float64]string{
		0: "0", 0.00123: "0.0012", 0.5: "0.50", 1.256: "1.26", 66.94: "66.9", 93757.2: "93757", -0.75: "-0.75",
	} {
		if got := number(&x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	doc := Document{Machine: ThisMachine(), Rows: []Row{
		Measured("met", "ratio", figure, nil).AtMost(2),
		Measured("missed", "ratio", figure, nil).AtLeast(2),
		Measured("informs", "ratio", figure, nil),
		Measured("failed", "ratio", figure, errors.New("no")).AtMost(2),
	}}
	if met, missed, failed := doc.Tally(); met != 1 || missed != 1 || failed != 1 {
		t.Errorf("tally %d, %d, %d; want 1, 1, 1", met, missed, failed)
	}
	path := filepath.Join(t.TempDir(), "latest.json")
	if err := doc.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Machine struct{ CPUs int }
		Rows    []map[string]any
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back.Machine.CPUs < 1 || len(back.Rows) != 4 {
		t.Fatalf("read back: %s", text)
	}
	for i, want := range []struct{ value, target, met any }{
		{1.25, "<= 2", true}, {1.25, ">= 2", false}, {1.25, nil, nil}, {nil, "<= 2", nil},
	} {
		row := back.Rows[i]
		if row["value"] != want.value || row["target"] != want.target || row["met"] != want.met {
			t.Errorf("row %d: %v, want %v", i, row, want)
		}
	}
}

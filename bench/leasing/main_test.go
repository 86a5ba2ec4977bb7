package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCoupledFleetsKeepTheirBounds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		var out strings.Builder
		kept, err := run(&out, []int{1, 7, 60}, 4*time.Second, seed, "")
		if err != nil || !kept {
			t.Errorf("seed %d: %v\n%s", seed, err, &out)
		}
	}
}

// The judge sees what breaks a bound: a bucket whose burst does not pay for the delay.
func TestUnpaidBurstIsSeen(t *testing.T) {
	t.Parallel()
	all, err := modes()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		w, err := newWorld(m, 2, harsh(1, 8*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		o := w.run()
		if broken := m.name == "not: burst unpaid" || m.name == "carryover"; broken != (o.over > 0) {
			t.Errorf("%s: %v units over", m.name, o.over)
		}
		if o.admitted == 0 || o.used > 1.3 {
			t.Errorf("%s: %d admitted, %.2f of what could be", m.name, o.admitted, o.used)
		}
	}
}

func TestRunsRepeat(t *testing.T) {
	t.Parallel()
	var first, second strings.Builder
	for _, out := range []*strings.Builder{&first, &second} {
		if _, err := run(out, []int{5}, 2*time.Second, 3, ""); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("two runs with one seed differ")
	}
}

func TestPlotIsWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "plot.svg")
	if _, err := run(io.Discard, []int{2, 4}, time.Second, 1, path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil || !strings.Contains(string(text), "window-coupled, learned") {
		t.Errorf("%v: %.100s", err, text)
	}
	if _, err := run(io.Discard, []int{2}, time.Second, 1, filepath.Join(t.TempDir(), "no", "plot.svg")); err == nil {
		t.Error("a plot in a folder that does not exist was written")
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	if got, err := parseSizes("1,512"); err != nil || len(got) != 2 || got[1] != 512 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "0", "a", "1,,2", "5000", "-1"} {
		if _, err := parseSizes(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

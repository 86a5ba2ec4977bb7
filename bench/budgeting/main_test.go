package main

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func quick(seed uint64, sizes ...int) plan {
	return plan{sizes: sizes, windows: 3, learning: 1, runs: 1, seed: seed}
}

func TestOursKeepsTheBound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		p := quick(seed)
		for _, load := range workloads() {
			for _, c := range contenders() {
				if !c.ours {
					continue
				}
				o, err := p.measure(t.Context(), load, c, 300)
				if err != nil || o.beyond > 0 || o.used < 0.9 {
					t.Errorf("seed %d, %s, %s: %+v, %v", seed, c.name, load.name, o, err)
				}
			}
		}
	}
}

// The judge sees what the others pay for what they are good at.
func TestPoliciesDiffer(t *testing.T) {
	t.Parallel()
	p := quick(1)
	long := workloads()[2]
	for _, c := range contenders() {
		o, err := p.measure(t.Context(), long, c, 300)
		if err != nil {
			t.Fatal(err)
		}
		exceeds := c.name == "charge at the end" || c.name == "reserve a quarter"
		if exceeds != (o.beyond > 0) {
			t.Errorf("%s: %d tokens beyond the bound", c.name, o.beyond)
		}
		if wastes := c.name == "reserve the most"; wastes != (o.used < 0.75) {
			t.Errorf("%s: %.2f of the budget used", c.name, o.used)
		}
		if cuts := c.name == "meter and cut"; cuts != (o.cut > 0.5) {
			t.Errorf("%s: %.2f of the streams cut", c.name, o.cut)
		}
	}
}

func TestJudgeCounts(t *testing.T) {
	t.Parallel()
	o := judge([]tally{
		{produced: limit + 3, completed: limit / 2, last: 4, cuts: 1, peak: 4},
		{produced: limit / 2, completed: limit / 2, last: 1, peak: 2},
	})
	want := outcome{over: 3, used: 0.75, completed: 0.5, cuts: 0.5, cut: 0.125, worst: 0.25}
	if o != want {
		t.Errorf("%+v, want %+v", o, want)
	}
	if o := judge([]tally{{produced: limit + 3, last: 3}}); o.beyond != 1 {
		t.Errorf("%d beyond the bound, want 1", o.beyond)
	}
	if missed := (&outcome{beyond: 1, used: 0.98, completed: 0.7, cut: 0.05}).missed("here"); len(missed) != 4 {
		t.Errorf("missed %q, want all four", missed)
	}
	if missed := (&outcome{used: 0.99, completed: 0.75, cut: 0.04}).missed("here"); len(missed) != 0 {
		t.Errorf("missed %q, want none", missed)
	}
}

// The lengths of answers are those of the specification: heavy-tailed, with a given median.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	for _, load := range workloads() {
		for _, share := range []float64{0, 0.5, 1} {
			sizes := make([]int, 9999)
			for i := range sizes {
				sizes[i] = load.size(random, share)
			}
			slices.Sort(sizes)
			median, tenth := float64(sizes[len(sizes)/2]), float64(sizes[len(sizes)*9/10])
			want := load.median(share)
			if median < 0.95*want || median > 1.05*want {
				t.Errorf("%s at %v: median %v, want about %v", load.name, share, median, want)
			}
			if tail := min(float64(load.most), 3.4*want); tenth < 0.9*tail || tenth > 1.1*tail {
				t.Errorf("%s at %v: a tenth is above %v, want about %v", load.name, share, tenth, tail)
			}
			if sizes[0] < 1 || sizes[len(sizes)-1] > load.most {
				t.Errorf("%s: from %d to %d tokens", load.name, sizes[0], sizes[len(sizes)-1])
			}
		}
	}
	if before, after := drift(0), drift(1); before != 80 || after != 300 {
		t.Errorf("drifts from %v to %v", before, after)
	}
}

func TestRunsRepeat(t *testing.T) {
	t.Parallel()
	var first, second strings.Builder
	for _, out := range []*strings.Builder{&first, &second} {
		if _, err := run(t.Context(), out, quick(3, 20), ""); err != nil {
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
	if _, err := run(t.Context(), io.Discard, quick(1, 2, 4), path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil || !strings.Contains(string(text), "meter and cut") {
		t.Errorf("%v: %.100s", err, text)
	}
	if _, err := run(t.Context(), io.Discard, quick(1, 2), filepath.Join(t.TempDir(), "no", "plot.svg")); err == nil {
		t.Error("a plot in a folder that does not exist was written")
	}
}

func TestPlans(t *testing.T) {
	t.Parallel()
	good := quick(1)
	if err := good.parse("1,512"); err != nil || !slices.Equal(good.sizes, []int{1, 512}) {
		t.Errorf("%v, %v", good.sizes, err)
	}
	for _, bad := range []string{"", "0", "a", "1,,2", "100001", "-1"} {
		p := quick(1)
		if err := p.parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, bad := range []plan{{windows: 3, learning: 3, runs: 1}, {windows: 2, learning: -1, runs: 1}, {windows: 2}, {windows: 1001, runs: 1}} {
		if err := bad.parse("1"); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

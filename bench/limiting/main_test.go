package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
)

// surveyed is how every phase went, for each contender, by case, algorithm and phase.
var surveyed = sync.OnceValues(func() (map[string][2]outcome, error) {
	const seed = 2
	found := map[string][2]outcome{}
	for _, c := range cases() {
		for _, algorithm := range algorithms {
			for k, guards := range contenders {
				all, _, err := c.run(seed, algorithm, guards)
				if err != nil {
					return nil, err
				}
				for i, o := range all {
					name := phaseName(c.name, algorithm, c.phases[i].name)
					both := found[name]
					both[k] = o
					found[name] = both
				}
			}
		}
	}
	return found, nil
})

func phaseName(scenario string, algorithm concurrency.Algorithm, phase string) string {
	return fmt.Sprintf("%s, %s, %s", scenario, algorithm, phase)
}

// phaseOf is how a phase went for both.
func phaseOf(t *testing.T, scenario string, algorithm concurrency.Algorithm, phase string) (ours, other outcome) {
	t.Helper()
	found, err := surveyed()
	if err != nil {
		t.Fatal(err)
	}
	both, ok := found[phaseName(scenario, algorithm, phase)]
	if !ok {
		t.Fatalf("there is no phase %q of %q", phase, scenario)
	}
	return both[0], both[1]
}

// What the plot is to show: where the laws of others end up, and that ours does not.
func TestClaims(t *testing.T) {
	t.Parallel()
	for _, algorithm := range algorithms {
		for _, test := range []struct {
			scenario, phase string
			claim           func(ours, other outcome) bool
		}{
			{"standing overload", "a fifth too much", func(ours, other outcome) bool {
				return other.least > 3*ours.most && other.latency > 4*ours.latency
			}},
			{"long incident", "a tenth is left", func(ours, other outcome) bool {
				return other.least > 10*ours.most && other.latency > 10*ours.latency
			}},
			{"failures only", "everything fails", func(ours, other outcome) bool { return ours.most == 4 && other.most == 4 }},
			{"low utilisation, then a rush", "after", func(ours, other outcome) bool { return other.latency > 4*ours.latency }},
			{"rate denials mixed in", "half is denied", func(ours, other outcome) bool {
				return other.least <= 10 && ours.least >= 40 && ours.share > other.share
			}},
			{"half of the capacity, and back", "half is left", func(ours, other outcome) bool {
				return ours.most < 100 && other.least > 300
			}},
		} {
			ours, other := phaseOf(t, test.scenario, algorithm, test.phase)
			if !test.claim(ours, other) {
				t.Errorf("%s, %s, %s: ours %+v, the other %+v", test.scenario, algorithm, test.phase, ours, other)
			}
		}
	}
}

// A recalibration is what lets gradient2 see a backend that has become slower for good.
func TestRecalibrationIsNeeded(t *testing.T) {
	t.Parallel()
	const phase = "three times as slow"
	without, _ := phaseOf(t, "slower for good", concurrency.Gradient2, phase)
	with, _ := phaseOf(t, "slower for good, recalibrated", concurrency.Gradient2, phase)
	if without.share > 0.2 || with.share < 0.9 || with.least < 5*without.most {
		t.Errorf("without %+v, with %+v", without, with)
	}
}

// A limit that leaves its bounds is seen.
func TestBoundsCanBeLeft(t *testing.T) {
	t.Parallel()
	p := healthy("", time.Second, 1)
	fine := outcome{least: 40, most: 170, share: 0.9}
	if !p.keeps(concurrency.AIMD, fine) {
		t.Error("what is within the bounds is refused")
	}
	for _, o := range []outcome{{least: 39, most: 170, share: 0.9}, {least: 40, most: 171, share: 0.9}, {least: 40, most: 170, share: 0.89}} {
		if p.keeps(concurrency.Gradient2, o) {
			t.Errorf("%+v keeps the bounds", o)
		}
	}
}

// The reference follows the numbers of its specification: E = 100 with a drop becomes 92 and 90, and a
// limit of 4 grows to 4.4, 4.81952…, 5.25859….
func TestReference(t *testing.T) {
	t.Parallel()
	const near = 1e-5
	for algorithm, want := range map[concurrency.Algorithm]float64{concurrency.Gradient2: 92, concurrency.AIMD: 90} {
		r := &reference{config: concurrency.Config{Algorithm: algorithm, InitialLimit: 100}}
		g, err := newReference(r.config, func() time.Duration { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		end, _ := g.begin()
		if end(dropped); g.limit() != int(want) {
			t.Errorf("%s: a drop makes 100 to %d, want %v", algorithm, g.limit(), want)
		}
	}
	var now time.Duration
	g, err := newReference(concurrency.Config{Algorithm: concurrency.Gradient2}, func() time.Duration { return now })
	if err != nil {
		t.Fatal(err)
	}
	r, _ := g.(*reference)
	for _, want := range []float64{4.4, 4.81952, 5.25859} {
		r.observe(time.Millisecond, 4, false)
		if r.estimate < want-near || r.estimate > want+near {
			t.Errorf("grew to %v, want %v", r.estimate, want)
		}
	}
}

func TestOursKeepsItsBounds(t *testing.T) {
	t.Parallel()
	for _, c := range cases() {
		for _, algorithm := range algorithms {
			for i := range c.phases {
				p := &c.phases[i]
				if ours, _ := phaseOf(t, c.name, algorithm, p.name); !p.keeps(algorithm, ours) {
					t.Errorf("%s: %+v, want %+v", phaseName(c.name, algorithm, p.name), ours, p.bounds(algorithm))
				}
			}
		}
	}
}

func TestTableAndPlotAreWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "plot.svg")
	var out strings.Builder
	if kept, err := run(&out, cases()[2:3], 3, path); err != nil || !kept || strings.Count(out.String(), "\n") != 5 {
		t.Errorf("%v, %v\n%s", kept, err, &out)
	}
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil || !strings.Contains(string(text), "reference, aimd") {
		t.Errorf("%v: %.100s", err, text)
	}
	if err := draw(filepath.Join(t.TempDir(), "no", "plot.svg"), nil); err == nil {
		t.Error("a plot in a folder that does not exist was written")
	}
	impossible := healthy("before", time.Second, overload)
	impossible.gradient2.most = impossible.gradient2.least
	out.Reset()
	if kept, err := run(&out, []scenario{{name: "impossible", phases: []phase{impossible}}}, 1, ""); err != nil || kept || !strings.Contains(out.String(), " NO ") {
		t.Errorf("a limit that leaves its bounds is not seen: %v, %v\n%s", kept, err, &out)
	}
}

func TestRunsRepeat(t *testing.T) {
	t.Parallel()
	c := cases()[4]
	for _, guards := range contenders {
		first, line, err := c.run(7, concurrency.AIMD, guards)
		if err != nil {
			t.Fatal(err)
		}
		if second, again, err := c.run(7, concurrency.AIMD, guards); err != nil || !slices.Equal(first, second) || !slices.Equal(line, again) {
			t.Errorf("%s: two runs with one seed differ, %v", guards.name, err)
		}
		if third, _, err := c.run(8, concurrency.AIMD, guards); err != nil || slices.Equal(first, third) {
			t.Errorf("%s: runs with two seeds are the same, %v", guards.name, err)
		}
	}
}

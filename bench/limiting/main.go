// Command limiting simulates guards in front of a backend with a fixed number of workers, in
// the cases in which adaptive limits go wrong, and reports where the limit went and how much of
// what could be served was.
//
//	go run ./bench/limiting [-seed 1] [-svg docs/img/concurrency.svg]
//
// The guards are the real one and one that follows the laws of an existing implementation to the
// letter. Time, traffic and backend are made up, and repeat for a seed. The exit code is 1 if the
// real guard left the bounds of a case.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go/bench/internal/chart"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

func main() {
	seed := flag.Uint64("seed", 1, "`seed` of everything that is random")
	svg := flag.String("svg", "", "`file` to draw the plot to; none if empty")
	flag.Parse()
	kept, err := run(os.Stdout, cases(), *seed, *svg)
	if err == nil && !kept {
		err = errors.New("the limit left the bounds of a case")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "limiting:", err)
		os.Exit(1)
	}
}

// contender is one of the guards that are compared.
type contender struct {
	name string
	make func(c concurrency.Config, now func() time.Duration) (guard, error)
}

// ours comes first.
var contenders = []contender{{"ours", newOurs}, {"reference", newReference}}

var algorithms = []concurrency.Algorithm{concurrency.Gradient2, concurrency.AIMD}

// run prints a row for each case, algorithm and phase, and reports whether ours kept its bounds.
func run(out io.Writer, all []scenario, seed uint64, svg string) (kept bool, err error) {
	if err := header(out); err != nil {
		return false, err
	}
	kept = true
	var panels []chart.Panel
	for _, c := range all {
		panel := c.panel()
		for _, algorithm := range algorithms {
			both := make([][]outcome, len(contenders))
			for i, guards := range contenders {
				var line []float64
				if both[i], line, err = c.run(seed, algorithm, guards); err != nil {
					return false, err
				}
				panel.Series = append(panel.Series, chart.Series{Name: guards.name + ", " + string(algorithm), Values: line})
			}
			fine, err := c.rows(out, algorithm, both)
			if err != nil {
				return false, err
			}
			kept = kept && fine
		}
		panels = append(panels, panel)
	}
	if svg == "" {
		return kept, nil
	}
	return kept, draw(svg, panels)
}

func header(out io.Writer) error {
	_, err := fmt.Fprintf(out, "%-34s %-9s %-18s %5s %8s | %11s %17s %4s | %11s %17s\n", "case", "algorithm", "phase",
		"right", "bounds", "ours: limit", "served   latency", "kept", "ref.: limit", "served   latency")
	return err
}

// rows prints how each phase went for both, but for the first of several, which are all alike, and
// reports whether ours kept its bounds.
func (c *scenario) rows(out io.Writer, algorithm concurrency.Algorithm, both [][]outcome) (kept bool, err error) {
	kept = true
	for i := range c.phases {
		p, ours, other := &c.phases[i], both[0][i], both[1][i]
		fine, mark := p.keeps(algorithm, ours), "yes"
		if !fine {
			kept, mark = false, "NO"
		} else if i == 0 && len(c.phases) > 1 {
			continue
		}
		b := p.bounds(algorithm)
		_, err := fmt.Fprintf(out, "%-34s %-9s %-18s %5d %8s | %11s %17s %4s | %11s %17s\n", c.name, algorithm, p.name, p.right(),
			fmt.Sprintf("%d-%d", b.least, b.most), ours.limits(), p.served(ours), mark, other.limits(), p.served(other))
		if err != nil {
			return false, err
		}
	}
	return kept, nil
}

// limits are the least and the most over the second half of a phase.
func (o *outcome) limits() string { return fmt.Sprintf("%d-%d", o.least, o.most) }

// served is how much of what could be served was, and the mean latency of that.
func (p *phase) served(o outcome) string {
	if p.possible() == 0 {
		return "-         -"
	}
	return fmt.Sprintf("%.1f%% %6.1f ms", 100*o.share, o.latency.Seconds()*1000)
}

// panel is the plot of a case, with a line for what would be right.
func (c *scenario) panel() chart.Panel {
	p := chart.Panel{Title: c.name, X: "seconds", Y: "limit, logarithmic", Log: true}
	line := chart.Series{Name: "workers of the backend"}
	for at := range c.samples() {
		p.Ticks = append(p.Ticks, at.Seconds())
		line.Values = append(line.Values, math.NaN())
		if right := c.at(at).right(); right > 0 {
			line.Values[len(line.Values)-1] = float64(right)
		}
	}
	p.Series = []chart.Series{line}
	return p
}

// samples are the times at which the limit is looked at.
func (c *scenario) samples() func(yield func(time.Duration) bool) {
	return func(yield func(time.Duration) bool) {
		for at := time.Duration(0); at < c.lasts(); at += sampling {
			if !yield(at) {
				return
			}
		}
	}
}

func draw(path string, panels []chart.Panel) (err error) {
	const columns = 2
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer func() {
		if closing := f.Close(); err == nil {
			err = closing
		}
	}()
	return chart.Grid(f, "Limits of concurrency against time, in cases in which adaptive limits go wrong", columns, slices.Clone(panels))
}

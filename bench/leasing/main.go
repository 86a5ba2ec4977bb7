// Command leasing simulates fleets that share one limit by leasing, under latency, loss,
// partitions, crashes and wrong clocks, and reports what was admitted beyond the limit, how
// much of the limit was used, and how many round trips that took.
//
//	go run ./bench/leasing [-nodes 1,8,64,512] [-span 20s] [-seed 1] [-svg docs/img/leasing.svg]
//
// Transitions, spenders and learners are the real ones; time and network are made up. The
// exit code is 1 if a mode exceeded its bound.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go/bench/internal/chart"
)

func main() {
	nodes := flag.String("nodes", "1,2,8,32,128,512", "`sizes` of the fleet, comma-separated")
	span := flag.Duration("span", 20*time.Second, "simulated `time` of each run")
	seed := flag.Uint64("seed", 1, "`seed` of everything that is random")
	svg := flag.String("svg", "", "`file` to draw the plot to; none if empty")
	flag.Parse()
	sizes, err := parseSizes(*nodes)
	if err == nil && *span < window {
		err = fmt.Errorf("-span %v: must be at least %v", *span, window)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "leasing:", err)
		os.Exit(2)
	}
	kept, err := run(os.Stdout, sizes, *span, *seed, *svg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leasing:", err)
		os.Exit(1)
	}
	if !kept {
		fmt.Fprintln(os.Stderr, "leasing: a bound was exceeded")
		os.Exit(1)
	}
}

func parseSizes(list string) ([]int, error) {
	var sizes []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > 4096 {
			return nil, fmt.Errorf("-nodes %q: must be integers from 1 to 4096, separated by commas", list)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// run prints a row for each mode and size and reports whether every bound was kept.
func run(out io.Writer, sizes []int, span time.Duration, seed uint64, svg string) (kept bool, err error) {
	all, err := modes()
	if err != nil {
		return false, err
	}
	over, trips, used := panels(sizes)
	kept = true
	if _, err := fmt.Fprintf(out, "%-24s %6s %6s %9s %9s %7s %12s %10s %10s\n",
		"mode", "nodes", "batch", "offered", "admitted", "used", "trips/1000", "over", "bound"); err != nil {
		return false, err
	}
	for _, m := range all {
		lines := [3]chart.Series{{Name: m.name}, {Name: m.name}, {Name: m.name}}
		for _, n := range sizes {
			w, err := newWorld(m, n, harsh(seed, span))
			if err != nil {
				return false, err
			}
			o := w.run()
			bound := m.bound(n, w.batch)
			kept = kept && o.over <= bound
			perMille := 1000 * float64(o.trips) / math.Max(1, float64(o.admitted))
			if _, err := fmt.Fprintf(out, "%-24s %6d %6s %9d %9d %6.1f%% %12.1f %10.0f %10s\n", m.name, n, sizeName(m, w.batch),
				o.offered, o.admitted, 100*o.used, perMille, math.Max(0, o.over), boundName(bound)); err != nil {
				return false, err
			}
			lines[0].Values = append(lines[0].Values, math.Max(0, o.over))
			lines[1].Values = append(lines[1].Values, perMille)
			lines[2].Values = append(lines[2].Values, 100*o.used)
		}
		for i, p := range []*chart.Panel{&over, &trips, &used} {
			p.Series = append(p.Series, lines[i])
		}
	}
	if svg == "" {
		return kept, nil
	}
	return kept, draw(svg, []chart.Panel{over, trips, used})
}

func panels(sizes []int) (over, trips, used chart.Panel) {
	ticks := make([]float64, len(sizes))
	for i, n := range sizes {
		ticks[i] = float64(n)
	}
	return chart.Panel{Title: "Admitted beyond the limit", X: "nodes", Y: "units in the worst window", Ticks: ticks},
		chart.Panel{Title: "Round trips", X: "nodes", Y: "for each 1000 admitted", Ticks: ticks},
		chart.Panel{Title: "Admitted of what could be", X: "nodes", Y: "%", Ticks: ticks}
}

func sizeName(m mode, batch int64) string {
	if m.learned {
		return "learnt"
	}
	return strconv.FormatInt(batch, 10)
}

func boundName(bound float64) string {
	if math.IsInf(bound, 1) {
		return "none"
	}
	return strconv.FormatFloat(bound, 'f', 0, 64)
}

func draw(path string, panels []chart.Panel) (err error) {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer func() {
		if closing := f.Close(); err == nil {
			err = closing
		}
	}()
	return chart.Write(f, "Fleets that lease one limit: excess, round trips and use, by size", panels)
}

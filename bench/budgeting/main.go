// Command budgeting simulates gateways that hold streams of tokens to a budget per window,
// by the policies that are common and by ours, and reports by how much the budget was
// exceeded, how much of it was used, how much went into whole answers, and how many
// streams were cut.
//
//	go run ./bench/budgeting [-clients 50,200,500,2000] [-windows 12] [-learning 3] [-runs 10] [-seed 1] [-svg docs/img/budgets.svg]
//
// Meters, reservations and ledgers are the real ones; time, streams and the lengths of
// answers are made up. The exit code is 1 if ours exceeded a budget by more than the last
// debit less one. The other targets are reported.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/throttlekit/throttlekit-go/bench/internal/chart"
)

// plan is what is simulated.
type plan struct {
	sizes    []int // numbers of clients
	windows  int   // of each run
	learning int   // the first windows of each run, which count for the excess alone
	runs     int
	seed     uint64
}

func main() {
	clients := flag.String("clients", "50,200,500,2000", "`numbers` of clients, comma-separated")
	var p plan
	flag.IntVar(&p.windows, "windows", 12, "windows in each run")
	flag.IntVar(&p.learning, "learning", 3, "first windows of each run that count for the excess alone")
	flag.IntVar(&p.runs, "runs", 10, "runs of each row")
	flag.Uint64Var(&p.seed, "seed", 1, "`seed` of everything that is random")
	svg := flag.String("svg", "", "`file` to draw the plot to; none if empty")
	flag.Parse()
	err := p.parse(*clients)
	if err != nil {
		fmt.Fprintln(os.Stderr, "budgeting:", err)
		os.Exit(2)
	}
	kept, err := run(context.Background(), os.Stdout, p, *svg)
	if err == nil && !kept {
		err = errors.New("ours exceeded a budget by more than the last debit less one")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "budgeting:", err)
		os.Exit(1)
	}
}

func (p *plan) parse(clients string) error {
	for word := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > 100_000 {
			return fmt.Errorf("-clients %q: must be integers from 1 to 100000, separated by commas", clients)
		}
		p.sizes = append(p.sizes, n)
	}
	if p.learning < 0 || p.windows <= p.learning || p.windows > 1000 {
		return fmt.Errorf("-windows %d -learning %d: there must be up to 1000 windows, and one that is not for learning",
			p.windows, p.learning)
	}
	if p.runs < 1 || p.runs > 1000 {
		return fmt.Errorf("-runs %d: must be an integer from 1 to 1000", p.runs)
	}
	return nil
}

// targets are what ours is meant to reach, beside the bound on the excess.
const (
	leastUsed      = 0.99
	leastCompleted = 0.75
	mostCut        = 0.04
)

// run prints a row for each workload, policy and number of clients, and what ours missed.
// It reports whether ours kept the bound on the excess.
func run(ctx context.Context, out io.Writer, p plan, svg string) (kept bool, err error) {
	r := survey{plan: p, out: out, kept: true}
	if err := header(out); err != nil {
		return false, err
	}
	for _, load := range workloads() {
		r.panels = panels(p.sizes, load)
		for _, c := range contenders() {
			if err := r.line(ctx, load, c); err != nil {
				return false, err
			}
		}
	}
	if err := report(out, r.missed); err != nil {
		return false, err
	}
	if svg == "" {
		return r.kept, nil
	}
	return r.kept, draw(svg, r.panels[:])
}

// survey is what has been found so far.
type survey struct {
	plan

	out    io.Writer
	kept   bool
	missed []string
	panels [4]chart.Panel // of the latest workload
}

// line is one policy under one workload, by the number of clients.
func (r *survey) line(ctx context.Context, load workload, c contender) error {
	var lines [len(r.panels)]chart.Series
	for _, n := range r.sizes {
		o, err := r.measure(ctx, load, c, n)
		if err != nil {
			return err
		}
		if err := row(r.out, load, c, n, o); err != nil {
			return err
		}
		if c.ours {
			r.kept = r.kept && o.beyond <= 0
			r.missed = append(r.missed, o.missed(fmt.Sprintf("%s, %s, %d clients", c.name, load.name, n))...)
		}
		for i, v := range []float64{float64(o.over) / limit, 100 * o.used, 100 * min(1, o.completed), 100 * o.cut} {
			lines[i].Values = append(lines[i].Values, v)
		}
	}
	for i := range r.panels {
		lines[i].Name = c.name
		r.panels[i].Series = append(r.panels[i].Series, lines[i])
	}
	return nil
}

// measure runs one policy, all runs at once, and judges what came of it.
func (p *plan) measure(ctx context.Context, load workload, c contender, clients int) (outcome, error) {
	runs, errs := make([][]tally, p.runs), make([]error, p.runs)
	var work sync.WaitGroup
	for i := range p.runs {
		work.Go(func() {
			runs[i], errs[i] = newWorld(load, clients, p.windows, p.seed+uint64(i)).run(ctx, c)
		})
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		return outcome{}, fmt.Errorf("%s: %w", c.name, err)
	}
	var all, learnt []tally
	for _, windows := range runs {
		all, learnt = append(all, windows...), append(learnt, windows[p.learning:]...)
	}
	o, whole := judge(learnt), judge(all)
	o.over, o.beyond = whole.over, whole.beyond
	return o, nil
}

func header(out io.Writer) error {
	_, err := fmt.Fprintf(out, "%-9s %-20s %7s %9s %9s %7s %10s %11s %8s %8s\n",
		"workload", "policy", "clients", "over", "beyond", "used", "completed", "cut/window", "of peak", "worst")
	return err
}

func row(out io.Writer, load workload, c contender, clients int, o outcome) error {
	_, err := fmt.Fprintf(out, "%-9s %-20s %7d %9d %9d %6.2f%% %9.1f%% %11.1f %7.2f%% %7.2f%%\n", load.name, c.name, clients,
		o.over, max(0, o.beyond), 100*o.used, 100*o.completed, o.cuts, 100*o.cut, 100*o.worst)
	return err
}

// missed names the targets that are not reached.
func (o *outcome) missed(where string) (targets []string) {
	miss := func(reached bool, what string, got, target float64) {
		if !reached {
			targets = append(targets, fmt.Sprintf("%s: %s is %.2f%%, and meant to be %.0f%%", where, what, 100*got, 100*target))
		}
	}
	if o.beyond > 0 {
		targets = append(targets, fmt.Sprintf("%s: %d tokens beyond the bound", where, o.beyond))
	}
	miss(o.used >= leastUsed, "the use of windows", o.used, leastUsed)
	miss(o.completed >= leastCompleted, "the share of whole answers", o.completed, leastCompleted)
	miss(o.cut <= mostCut, "the share of streams cut", o.cut, mostCut)
	return targets
}

func report(out io.Writer, missed []string) error {
	if len(missed) == 0 {
		missed = []string{"ours reached every target"}
	}
	_, err := fmt.Fprintln(out, "\n"+strings.Join(missed, "\n"))
	return err
}

// panels are those of the plot, which shows the last of the workloads.
func panels(sizes []int, load workload) [4]chart.Panel {
	ticks := make([]float64, len(sizes))
	for i, n := range sizes {
		ticks[i] = float64(n)
	}
	panel := func(title, y string) chart.Panel {
		return chart.Panel{Title: title + ", " + load.name + " answers", X: "clients", Y: y, Ticks: ticks}
	}
	return [4]chart.Panel{
		panel("Beyond the budget", "budgets, in the worst window"), panel("Budget used", "%"),
		panel("In whole answers", "% of the budget, at most 100"), panel("Streams cut", "% of those under way at once"),
	}
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
	return chart.Write(f, "Streams under a token budget: excess, use, whole answers and cuts, by clients", panels)
}

package measure

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Contestant is one side of a comparison.
type Contestant struct {
	Name string
	// Run performs ops operations and returns when the last one is done. It must use what the operations return, so that
	// none is optimised away, and report an operation that did not do its whole work.
	Run func(ops int) error
	// Ready, if not nil, is called once between the trial runs, which find out how fast the contestant is, and the first
	// slice that counts.
	Ready func()
	// Counts, if not nil, is what counts of the slice that Run has just been through, in nanoseconds, such as a percentile of
	// its operations, in place of the mean time of one.
	Counts func() float64
	// Close, if not nil, is called when the race is over.
	Close func()
}

// Schedule says how long a race is.
type Schedule struct {
	Rounds   int           // how many slices of each contestant count
	Slice    time.Duration // about how long each slice is
	Patience int           // how many times as long a race may take in search of quiet rounds, once it has Rounds
}

// quiet is the share of a round that its threads may have waited for a CPU: less than one preemption.
const quiet = 0.02

// Result is what a race came to.
type Result struct {
	names  []string
	rounds []round
	errs   []error // by contestant
}

// round holds one slice of each contestant.
type round struct {
	perOp   []float64 // by contestant, in nanoseconds, or what counts in its place
	stalled float64   // the share of the round that threads waited for a CPU
}

// Race lets contestants run by turns, A B C A B C …, and closes them. Each performs the same number of operations in all
// of its slices, and a slice is timed to its last operation. When enough rounds were quiet, or Patience is at its end,
// the quietest ones are kept, whatever their outcome. A contestant that fails or panics stays out from then on.
func Race(s Schedule, contestants ...Contestant) *Result {
	r := &Result{names: make([]string, len(contestants)), errs: make([]error, len(contestants))}
	ops := make([]int, len(contestants))
	for i, c := range contestants {
		r.names[i] = c.Name
		if ops[i], r.errs[i] = calibrate(c, s.Slice); c.Ready != nil {
			c.Ready()
		}
	}
	runtime.GC() // nobody pays for the set-up of others
	began, enough := time.Now(), time.Duration(s.Rounds*s.Patience*len(contestants))*s.Slice
	for found := 0; found < s.Rounds && (len(r.rounds) < s.Rounds || time.Since(began) < enough); {
		one := r.round(contestants, ops)
		if r.rounds = append(r.rounds, one); one.stalled <= quiet {
			found++
		}
	}
	slices.SortStableFunc(r.rounds, func(a, b round) int { return cmp.Compare(a.stalled, b.stalled) })
	r.rounds = r.rounds[:min(s.Rounds, len(r.rounds))]
	for _, c := range contestants {
		if c.Close != nil {
			c.Close()
		}
	}
	return r
}

func (r *Result) round(contestants []Contestant, ops []int) round {
	one := round{perOp: make([]float64, len(contestants))}
	before, began := Stalled(), time.Now()
	for i, c := range contestants {
		if r.errs[i] != nil {
			continue
		}
		var took time.Duration
		took, r.errs[i] = timed(c, ops[i])
		if one.perOp[i] = float64(took) / float64(ops[i]); c.Counts != nil {
			one.perOp[i] = c.Counts()
		}
	}
	one.stalled = float64(Stalled()-before) / float64(time.Since(began))
	return one
}

// calibrate finds out how many operations fill a slice, and warms the contestant up by it. Each size is tried several
// times, and the fastest counts: one try may have stood still while others had the CPU.
func calibrate(c Contestant, slice time.Duration) (ops int, err error) {
	const (
		tries  = 4
		plenty = 1 << 40
	)
	for ops = 1; ops < plenty; ops *= 4 {
		fastest := time.Duration(math.MaxInt64)
		for range tries {
			took, err := timed(c, ops)
			if err != nil {
				return 0, err
			}
			if fastest = min(fastest, took); fastest < slice/2 {
				break
			}
		}
		if fastest >= slice/2 {
			return max(1, int(float64(ops)*float64(slice)/float64(fastest))), nil
		}
	}
	return 0, errors.New("it takes no time")
}

func timed(c Contestant, ops int) (took time.Duration, err error) {
	began := time.Now()
	err = guarded(c.Run, ops)
	return time.Since(began), err
}

// guarded runs and turns a panic into an error: a peer that breaks must not take the other figures with it.
func guarded(run func(ops int) error, ops int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return run(ops)
}

// Split is a Run that shares its operations out among goroutines, each of which calls run once. It returns when the
// last goroutine has.
func Split(goroutines int, run func(ops int) error) func(ops int) error {
	return func(ops int) error {
		errs := make([]error, goroutines)
		var all sync.WaitGroup
		for g := range goroutines {
			share := ops / goroutines
			if g < ops%goroutines {
				share++
			}
			all.Go(func() { errs[g] = guarded(run, share) })
		}
		all.Wait()
		return errors.Join(errs...)
	}
}

// Err is why contestant i did not finish, or nil.
func (r *Result) Err(i int) error {
	if r.errs[i] == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", r.names[i], r.errs[i])
}

// PerOp is how many nanoseconds an operation of contestant i takes, or what counts in their place. It holds for this run on
// this machine only.
func (r *Result) PerOp(i int) (Figure, error) {
	return r.figure(func(one round) float64 { return one.perOp[i] }, i)
}

// Ratio is how many times as long an operation of contestant i takes as one of contestant j: the median over rounds.
// The other way around, it is how many times as many operations per second j does.
func (r *Result) Ratio(i, j int) (Figure, error) {
	return r.figure(func(one round) float64 { return one.perOp[i] / one.perOp[j] }, i, j)
}

func (r *Result) figure(of func(round) float64, contestants ...int) (Figure, error) {
	for _, i := range contestants {
		if err := r.Err(i); err != nil {
			return Figure{}, err
		}
	}
	samples, stalls := make([]float64, len(r.rounds)), make([]float64, len(r.rounds))
	for k, one := range r.rounds {
		samples[k], stalls[k] = of(one), one.stalled
	}
	f := Summarize(samples)
	f.Stalled = Summarize(stalls).Median
	return f, nil
}

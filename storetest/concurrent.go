package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// concurrentIncrements: of 200 increments at once none is lost, and none is answered twice.
func concurrentIncrements(f *fixture) {
	const n = 200
	answers := make([]int64, n)
	f.together(n, func(i int, store throttlekit.Store) error {
		d, err := store.Apply(f.ctx, "a", lasting, 1)
		answers[i] = d.Remaining
		return err
	})
	f.expect("a", n, "after as many increments at once")
	slices.Sort(answers)
	for i, got := range answers {
		if want := int64(i + 1); got != want {
			f.Fatalf("the sorted answers have %d where %d belongs: %v", got, want, answers)
		}
	}
}

// concurrentKeys: users of different keys at the same time do not disturb each other.
func concurrentKeys(f *fixture) {
	const keys, each = 20, 10
	f.together(keys*each, func(i int, store throttlekit.Store) error {
		_, err := store.Apply(f.ctx, fmt.Sprintf("key %d", i/2%keys), lasting, 1)
		return err
	})
	for i := range keys {
		f.expect(fmt.Sprintf("key %d", i), each, "after as many increments, among those of other keys")
	}
}

// concurrentChecks: 200 checks at once at a limit of 50 admit exactly 50.
func concurrentChecks(name string) func(*fixture) {
	return func(f *fixture) {
		const n, limit = 200, 50
		rule := f.rule(strategy(name, limit))
		var allowed atomic.Int64
		f.together(n, func(_ int, store throttlekit.Store) error {
			d, err := store.Apply(f.ctx, "a", rule, 1)
			if d.Allowed {
				allowed.Add(1)
			}
			return err
		})
		if got := allowed.Load(); got != limit {
			f.Errorf("%d of %d checks at once were admitted, want %d", got, n, limit)
		}
	}
}

// answer is one check of a concurrent history. Its times are places in the order of all
// beginnings and ends.
type answer struct {
	throttlekit.Decision

	cost       float64
	begin, end int64
}

// linearizable: the answers to concurrent checks on one key are those of some order in
// which they could have come one by one, and no check that began after another had
// ended stands before it. A window only fills, so what remains tells the order.
func linearizable(f *fixture) {
	const n, limit = 200, 300
	rule := f.rule(strategy("fixedWindow", limit))
	history := make([]answer, n)
	var tick atomic.Int64
	f.together(n, func(i int, store throttlekit.Store) error {
		a := answer{cost: float64(1 + i%4), begin: tick.Add(1)}
		var err error
		a.Decision, err = store.Apply(f.ctx, "a", rule, a.cost)
		a.end = tick.Add(1)
		history[i] = a
		return err
	})
	if err := explain(history, limit); err != nil {
		f.Error(err)
	}
}

// explain finds the one order that a history of a window admits, or what forbids it.
func explain(history []answer, limit int64) error {
	admitted := slices.DeleteFunc(slices.Clone(history), func(a answer) bool { return !a.Allowed })
	slices.SortFunc(admitted, func(a, b answer) int { return cmp.Compare(b.Remaining, a.Remaining) })
	left := limit
	seen := map[int64]bool{limit: true}
	for _, a := range admitted {
		if left -= int64(a.cost); a.Remaining != left {
			return fmt.Errorf("a check of cost %g leaves %d, but %d in any order", a.cost, a.Remaining, left)
		}
		seen[left] = true
	}
	for _, a := range history {
		if !a.Allowed && (!seen[a.Remaining] || float64(a.Remaining) >= a.cost) {
			return fmt.Errorf("a check of cost %g was denied with %d left", a.cost, a.Remaining)
		}
		for _, b := range history {
			later := a.end < b.begin
			if later && (b.Remaining > a.Remaining || b.Allowed && b.Remaining == a.Remaining) {
				return fmt.Errorf("a check left %d although one that had ended before left %d", b.Remaining, a.Remaining)
			}
		}
	}
	return nil
}

// shaperSpacesOut: concurrent reservations of a leaky bucket get places one interval apart.
func shaperSpacesOut(f *fixture) {
	const n, interval = 20, time.Hour
	bucket := throttlekit.LeakyBucket{RatePerSec: 1 / interval.Seconds(), MaxQueue: 2 * n * interval}
	var mu sync.Mutex
	var delays []time.Duration
	f.together(n, func(_ int, store throttlekit.Store) error {
		shaper, err := throttlekit.NewShaper(bucket, throttlekit.WithStore(store))
		if err != nil {
			return err
		}
		delay, err := shaper.Reserve(f.ctx, "a", 1)
		mu.Lock()
		defer mu.Unlock()
		delays = append(delays, delay)
		return err
	})
	slices.Sort(delays)
	for i, got := range delays {
		want := time.Duration(i) * interval
		if late := want - got; late < 0 || late > patience || f.Clock != nil && late != 0 {
			f.Errorf("place %d waits %v, want %v", i, got, want)
		}
	}
}

package vectors_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// admission is an admitted check. Its time is that of the record: the latest at which
// the key had been charged, so that a clock that steps back does not count as time.
type admission struct {
	at   int64
	cost float64
}

// admissions runs a random timeline and returns what was admitted.
func admissions(t *testing.T, s throttlekit.Strategy, seed uint64, start, longest int64, backward bool) []admission {
	t.Helper()
	const steps = 200
	m := newMachine(t, s)
	w := newWalk(seed, start, longest, backward, 1, 1, 1, 2, 3, 5, 0.5)
	var all []admission
	for range steps {
		now, cost := w.next()
		if !m.check(now, cost).Allowed {
			continue
		}
		at := now
		if n := len(all); n > 0 {
			at = max(at, all[n-1].at)
		}
		all = append(all, admission{at, cost})
	}
	return all
}

// exceeds finds an interval in which more was admitted than the envelope grants, which
// is told the length of the interval in milliseconds.
func exceeds(all []admission, envelope func(length int64) float64) error {
	for i := range all {
		sum := 0.0
		for _, a := range all[i:] {
			sum += a.cost
			if length := a.at - all[i].at; sum > envelope(length) {
				return fmt.Errorf("%g units from %d to %d, at most %g are due", sum, all[i].at, a.at, envelope(length))
			}
		}
	}
	return nil
}

// Each strategy promises an envelope, and keeps it however the clock steps.
func TestEnvelopes(t *testing.T) {
	t.Parallel()
	const slack = 1e-2 // of a unit, for what binary64 rounds at 1.7e12
	rate := func(burst, perMilli float64) func(int64) float64 {
		return func(length int64) float64 { return burst + perMilli*float64(length) + slack }
	}
	// width is the envelope of a limit that holds in every window of that width.
	width := func(limit float64, width int64) func(int64) float64 {
		return func(length int64) float64 {
			if length < width {
				return limit
			}
			return math.Inf(1)
		}
	}
	for _, c := range []struct {
		strategy throttlekit.Strategy
		envelope func(int64) float64
		longest  int64
	}{
		{throttlekit.GCRA{Limit: 7, Period: time.Second}, rate(7, 7e-3), 400},
		{throttlekit.GCRA{Limit: 100, Period: time.Minute, Burst: 5}, rate(5, 100./60_000), 2000},
		{throttlekit.GCRA{Limit: 10, Period: time.Second, Burst: 50}, rate(50, 1e-2), 900},
		{throttlekit.TokenBucket{Capacity: 20, RefillPerSec: 3.5}, rate(20, 3.5e-3), 2000},
		{throttlekit.TokenBucket{Capacity: 8, RefillPerSec: 0.07}, rate(8, 0.07e-3), 60_000},
		{throttlekit.SlidingWindowLog{Limit: 9, Window: time.Second}, width(9, 1000), 300},
		{throttlekit.SlidingWindowLog{Limit: 31, Window: time.Minute}, width(31, 60_000), 8000},
		// Twice the limit may pass around an edge, and no more.
		{throttlekit.FixedWindow{Limit: 9, Window: time.Second}, width(18, 1001), 300},
		{throttlekit.Quota{Limit: 9, Cadence: throttlekit.CalendarDay}, width(18, dayMillis+1), dayMillis / 4},
		// A sliding window counts all of its last buckets but the oldest in full.
		{throttlekit.SlidingWindow{Limit: 9, Window: time.Second, Buckets: 10}, width(9, 900), 300},
		{throttlekit.SlidingWindow{Limit: 31, Window: time.Minute, Buckets: 4}, width(31, 45_000), 8000},
		{throttlekit.Quota{Limit: 9, Cadence: throttlekit.Rolling, Period: time.Second}, width(9, 900), 300},
	} {
		t.Run(fmt.Sprintf("%T%+v", c.strategy, c.strategy), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(40) {
				start := int64(seed % 3 * 850_000_000_000)
				all := admissions(t, c.strategy, seed, start, c.longest, seed%2 == 1)
				if err := exceeds(all, c.envelope); err != nil {
					t.Fatalf("timeline %d: %v", seed, err)
				}
				if len(all) < 5 {
					t.Fatalf("timeline %d admitted %d checks, which shows nothing", seed, len(all))
				}
			}
		})
	}
}

// The check of the envelope does find what exceeds it.
func TestExceedsFindsExcess(t *testing.T) {
	t.Parallel()
	all := []admission{{0, 2}, {10, 1}, {11, 2}, {30, 1}}
	limit := func(most float64) func(int64) float64 {
		return func(length int64) float64 {
			if length < 20 {
				return most
			}
			return 100
		}
	}
	if err := exceeds(all, limit(5)); err != nil {
		t.Error(err)
	}
	if err := exceeds(all, limit(4)); err == nil {
		t.Error("5 units within 20 ms were overlooked")
	}
}

package throttlekit

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// strategies are one valid strategy of each kind.
func strategies() map[string]Strategy {
	return map[string]Strategy{
		"gcra":             GCRA{Limit: 10, Period: time.Second, Burst: 5},
		"tokenBucket":      TokenBucket{Capacity: 10, RefillPerSec: 2.5},
		"fixedWindow":      FixedWindow{Limit: 10, Window: time.Second},
		"slidingWindow":    SlidingWindow{Limit: 10, Window: time.Second, Buckets: 4},
		"slidingWindowLog": SlidingWindowLog{Limit: 10, Window: time.Second},
		"quota/month":      Quota{Limit: 10, Cadence: CalendarMonth},
		"quota/week":       Quota{Limit: 10, Cadence: CalendarWeek, WeekStart: 7},
		"quota/day":        Quota{Limit: 10, Cadence: CalendarDay, Offset: -5 * time.Hour},
		"quota/fixed":      Quota{Limit: 10, Cadence: Fixed, Period: time.Minute, Anchor: 500},
		"quota/rolling":    Quota{Limit: 10, Cadence: Rolling, Period: time.Minute},
	}
}

func TestInvalidStrategiesNameFieldValueAndRule(t *testing.T) {
	t.Parallel()
	inf, nan := math.Inf(1), math.NaN()
	tests := []struct {
		name     string
		strategy Strategy
		want     []string
	}{
		{"gcra zero", GCRA{}, []string{"limit must be a positive finite number, got 0", "period must be a positive duration, got 0s", "burst must be a finite number >= 1, got 0"}},
		{"gcra NaN", GCRA{Limit: nan, Period: time.Second, Burst: 1}, []string{"limit must be a positive finite number, got NaN"}},
		{"gcra infinite burst", GCRA{Limit: 1, Period: time.Second, Burst: inf}, []string{"burst must be a finite number >= 1, got +Inf"}},
		{"gcra small limit without burst", GCRA{Limit: 0.5, Period: time.Second}, []string{"burst must be a finite number >= 1, got 0.5"}},
		{"gcra interval too long", GCRA{Limit: 1e-300, Period: time.Second, Burst: 1}, []string{"limit must give an interval"}},
		{"gcra burst spans too long", GCRA{Limit: 1e-3, Period: time.Hour, Burst: 1e308}, []string{"burst must span a finite time"}},
		{"bucket", TokenBucket{Capacity: -1, RefillPerSec: inf}, []string{"capacity must be", "refillPerSec must be a positive finite number, got +Inf"}},
		{"bucket fills too slowly", TokenBucket{Capacity: 1e300, RefillPerSec: 1e-10}, []string{"refillPerSec must fill the capacity"}},
		{"bucket rate underflows", TokenBucket{Capacity: 1, RefillPerSec: 5e-324}, []string{"refillPerSec must fill the capacity"}},
		{"fixed window", FixedWindow{Window: -time.Second}, []string{"limit must be", "window must be a positive duration, got -1s"}},
		{"sliding window", SlidingWindow{Limit: 1, Window: time.Second, Buckets: 100_001}, []string{"buckets must be an integer from 1 to 100000, got 100001"}},
		{"sliding window negative buckets", SlidingWindow{Limit: 1, Window: time.Second, Buckets: -1}, []string{"buckets must be"}},
		{"sliding log", SlidingWindowLog{}, []string{"limit must be", "window must be"}},
		{"quota cadence", Quota{Limit: 1, Cadence: "yearly"}, []string{`resetCadence must be calendar-month, calendar-week, calendar-day, fixed or rolling, got "yearly"`}},
		{"quota offset", Quota{Limit: 1, Cadence: CalendarDay, Offset: 15 * time.Hour}, []string{"offset must be whole minutes between -14h and 14h, got 15h0m0s"}},
		{"quota offset seconds", Quota{Limit: 1, Cadence: CalendarDay, Offset: time.Second}, []string{"offset must be whole minutes"}},
		{"quota week start", Quota{Limit: 1, Cadence: CalendarWeek, WeekStart: 8}, []string{"weekStart must be an ISO weekday"}},
		{"quota fixed period", Quota{Limit: 1, Cadence: Fixed}, []string{"period must be a positive duration"}},
		{"quota rolling period", Quota{Limit: 1, Cadence: Rolling}, []string{"period must be a positive duration"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := test.strategy.Rule()
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v does not match ErrInvalid", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if got := strings.Count(err.Error(), "\n") + 1; got != len(test.want) {
				t.Errorf("error %q reports %d problems, want %d", err, got, len(test.want))
			}
		})
	}
}

// extremes are parameters at the edges of binary64 and of durations.
func extremes() (numbers []float64, durations []time.Duration) {
	return []float64{5e-324, 1e-300, 1e-9, 0.5, 1, 7, 1e9, MaxSafe, 1e300, math.MaxFloat64},
		[]time.Duration{1, 333_500, time.Millisecond, time.Hour, math.MaxInt64}
}

// Whatever finite parameters a rule accepts, its decisions stay within their ranges.
func TestDecisionsStayInRange(t *testing.T) {
	t.Parallel()
	numbers, durations := extremes()
	var all []Strategy
	for _, n := range numbers {
		for _, m := range numbers {
			all = append(all, TokenBucket{n, m})
		}
		for _, d := range durations {
			for _, burst := range numbers {
				all = append(all, GCRA{n, d, burst})
			}
			all = append(all, FixedWindow{n, d}, SlidingWindow{n, d, 1}, SlidingWindow{n, d, 7}, SlidingWindowLog{n, d},
				Quota{Limit: n, Cadence: Fixed, Period: d, Anchor: -5}, Quota{Limit: n, Cadence: CalendarMonth})
		}
	}
	accepted := 0
	for _, strategy := range all {
		rule, err := strategy.Rule()
		if err != nil {
			continue
		}
		accepted++
		for _, cost := range []float64{5e-324, 0.5, 1, 3, MaxSafe} {
			checkRange(t, rule, cost)
		}
	}
	if accepted < len(all)/4 {
		t.Errorf("only %d of %d strategies were accepted: the test shows little", accepted, len(all))
	}
}

func checkRange(t *testing.T, rule Rule, cost float64) {
	t.Helper()
	var rec Record
	for _, now := range []int64{0, 1, 1_700_000_000_000, 1_700_000_000_001, 1_699_999_999_000, 1 << 52} {
		next, d, ttl := rule.Apply(rec, now, cost)
		f := rule.Forecast(rec, now, cost)
		for _, d := range []Decision{d, rule.Peek(rec, now)} {
			if d.Allowed != (d.RetryAfterMillis == 0) || d.Remaining < 0 || d.RetryAfterMillis < 0 ||
				d.ResetAtMillis < now || d.Limit != rule.Limit() {
				t.Errorf("%#v at %d: %+v is out of range", rule.Strategy(), now, d)
			}
		}
		if f.SpendableNow < 0 || f.NextReplenishAtMillis < 0 || f.FullAtMillis < now {
			t.Errorf("%#v at %d: %+v is out of range", rule.Strategy(), now, f)
		}
		if d.Allowed != (ttl > 0) {
			t.Errorf("%#v at %d: allowed %v with ttl %d", rule.Strategy(), now, d.Allowed, ttl)
		}
		if ttl > 0 {
			rec = next
		}
	}
}

// A clock that steps back never lets more through than one that stands still.
func TestBackwardClockNeverAdmitsMore(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limiter, clock := manual(t, strategy, 1_700_000_000_000)
			admitted := drain(t, limiter)
			for _, back := range []int64{1, 250, 999, 1000, 60_000, 40 * 86_400_000} {
				clock.Set(1_700_000_000_000 - back)
				if more := drain(t, limiter); more != 0 {
					t.Errorf("%d ms back: %d more admitted after %d", back, more, admitted)
				}
			}
			clock.Set(1_700_000_000_000)
			if more := drain(t, limiter); more != 0 {
				t.Errorf("back at the start: %d more admitted", more)
			}
		})
	}
}

// A step back in the middle of a window costs nobody the memory of what was spent.
func TestBackwardClockKeepsRecordsAlive(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const start = 1_700_000_011_000
			limiter, clock := manual(t, strategy, start)
			limit := float64(limiter.Rule().Limit())
			check(t, limiter, limit-1, true)
			clock.Set(start - 1000)
			check(t, limiter, 1, limit == 10) // a GCRA has moved on
			clock.Set(start)
			check(t, limiter, limit, false)
		})
	}
}

func manual(t *testing.T, strategy Strategy, now int64) (*Limiter, *ManualClock) {
	t.Helper()
	clock := NewManualClock(now)
	limiter, err := NewLimiter(strategy, WithClock(clock))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = limiter.Close() })
	return limiter, clock
}

func drain(t *testing.T, limiter *Limiter) (admitted int) {
	t.Helper()
	for {
		d, err := limiter.Check(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if !d.Allowed {
			return admitted
		}
		admitted++
	}
}

func check(t *testing.T, limiter *Limiter, cost float64, allowed bool) {
	t.Helper()
	d, err := limiter.CheckN(t.Context(), "k", cost)
	if err != nil || d.Allowed != allowed {
		t.Errorf("cost %v: %+v, %v; want allowed %v", cost, d, err, allowed)
	}
}

func TestRecordsSurviveTheirText(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"gcra":             "1700000000400",
		"tokenBucket":      `{"tokens":6,"last":1700000000000}`,
		"fixedWindow":      `{"start":1700000000000,"count":4}`,
		"slidingWindow":    `{"i":[6800000000,-1,-1,-1,-1],"n":[4,0,0,0,0]}`,
		"slidingWindowLog": "[1700000000000,1700000000000,1700000000000,1700000000000]",
		"quota/month":      `{"start":1698796800000,"count":4}`,
		"quota/week":       `{"start":1699747200000,"count":4}`,
		"quota/day":        `{"start":1699938000000,"count":4}`,
		"quota/fixed":      `{"start":1699999980500,"count":4}`,
	}
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule, err := strategy.Rule()
			if err != nil {
				t.Fatal(err)
			}
			rec, _, _ := rule.Apply(Record{}, 1_700_000_000_000, 4)
			text, err := rule.Encode(rec)
			if err != nil {
				t.Fatal(err)
			}
			if want, ok := texts[name]; ok && string(text) != want {
				t.Errorf("text %s, want %s", text, want)
			}
			back, err := rule.Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, now := range []int64{1_700_000_000_000, 1_700_000_000_900, 1_700_000_002_000} {
				if got, want := rule.Peek(back, now), rule.Peek(rec, now); got != want {
					t.Errorf("at %d: %+v from text, %+v before", now, got, want)
				}
			}
		})
	}
}

func TestCorruptTextIsRefused(t *testing.T) {
	t.Parallel()
	texts := []string{"", "null", "nonsense", "{}", `{"tokens":1}`, `{"start":1,"count":2,"x":3}`, `{"i":[1],"n":[1]}`, `"1"`, "1]", "[1", `[null,"a"]`, "1e999"}
	for name, strategy := range strategies() {
		rule, err := strategy.Rule()
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			rec, err := rule.Decode([]byte(text))
			if err == nil {
				t.Errorf("%s: %q reads as %+v", name, text, rec)
			}
		}
	}
}

// A step from a record that is no longer the newest must not touch the newest.
func TestRecordsAreValues(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule, err := strategy.Rule()
			if err != nil {
				t.Fatal(err)
			}
			old, _, _ := rule.Apply(Record{}, 1_700_000_000_000, 1)
			old, _, _ = rule.Apply(old, 1_700_000_000_300, 1)
			kept, _, _ := rule.Apply(old, 1_700_000_000_600, 1)
			before, err := rule.Encode(kept)
			if err != nil {
				t.Fatal(err)
			}
			rule.Apply(old, 1_700_000_000_700, 2)
			if after, err := rule.Encode(kept); err != nil || !bytes.Equal(after, before) {
				t.Errorf("%s became %s, %v", before, after, err)
			}
		})
	}
}

package throttlekit_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

func mustRule(t *testing.T, s throttlekit.Strategy) throttlekit.Rule {
	t.Helper()
	rule, err := s.Rule()
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func lendable() []throttlekit.Strategy {
	return []throttlekit.Strategy{
		throttlekit.GCRA{Limit: 100, Period: time.Second, Burst: 37},
		throttlekit.TokenBucket{Capacity: 41, RefillPerSec: 90},
		throttlekit.FixedWindow{Limit: 50, Window: time.Second},
		throttlekit.SlidingWindow{Limit: 60, Window: time.Second, Buckets: 7},
		throttlekit.SlidingWindowLog{Limit: 30, Window: 700 * time.Millisecond},
		throttlekit.Quota{Limit: 45, Cadence: throttlekit.Fixed, Period: time.Second},
	}
}

// A lease is worth exactly what single checks would have got: as many units as fit, at
// least the least, and nothing if they do not fit.
func TestUpToTakesWhatFits(t *testing.T) {
	t.Parallel()
	for _, strategy := range lendable() {
		rule := mustRule(t, strategy)
		random := rand.New(rand.NewPCG(1, 2))
		var rec throttlekit.Record
		now, whole, part, none := int64(1_700_000_000_000), 0, 0, 0
		for range 20_000 {
			now += random.Int64N(60)
			least := 1 + random.Int64N(3)
			cost := least + random.Int64N(20)
			next, d, ttl := throttlekit.UpTo(rule, float64(least)).Apply(rec, now, float64(cost))
			if !d.Allowed {
				none++
				if _, want, _ := rule.Apply(rec, now, float64(least)); want != d {
					t.Fatalf("%s: denied %+v, want the denial of a check of %d: %+v", rule.Name(), d, least, want)
				}
				continue
			}
			if ttl <= 0 || d.Remaining < least || d.Remaining > cost || d.ResetAtMillis-d.RetryAfterMillis != now {
				t.Fatalf("%s at %d, %d to %d units: %+v, ttl %d", rule.Name(), now, least, cost, d, ttl)
			}
			_, want, _ := rule.Apply(rec, now, float64(d.Remaining))
			if !want.Allowed || want.ResetAtMillis != d.ResetAtMillis {
				t.Fatalf("%s: charged %d units, which a check would not: %+v", rule.Name(), d.Remaining, want)
			}
			if d.Remaining < cost {
				part++
				if _, more, _ := rule.Apply(rec, now, float64(d.Remaining+2)); more.Allowed {
					t.Fatalf("%s: charged %d of %d units, though two more fit", rule.Name(), d.Remaining, cost)
				}
			} else {
				whole++
			}
			rec = next
		}
		if min(whole, part, none) < 100 {
			t.Errorf("%s: %d whole, %d partial and %d refused leases are no test", rule.Name(), whole, part, none)
		}
	}
}

func TestRefundComesBackOnlyIntoItsWindow(t *testing.T) {
	t.Parallel()
	rule, ok := mustRule(t, throttlekit.FixedWindow{Limit: 10, Window: time.Second}).(throttlekit.Windowed)
	if !ok {
		t.Fatal("a fixed window is not Windowed")
	}
	rec, _, _ := rule.Apply(throttlekit.Record{}, 100, 8)
	back := rule.Refund(1000)
	next, d, ttl := back.Apply(rec, 999, 3)
	if want := (throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 5, ResetAtMillis: 1000}); d != want || ttl != 1 {
		t.Errorf("in its window: %+v for %d ms, want %+v for 1", d, ttl, want)
	}
	if _, d, _ := rule.Apply(next, 999, 5); !d.Allowed {
		t.Errorf("what came back cannot be spent: %+v", d)
	}
	if _, d, _ := back.Apply(rec, 999, 300); d.Remaining != 10 {
		t.Errorf("more came back than was charged: %+v", d)
	}
	if _, d, ttl := back.Apply(rec, 1000, 3); d.Allowed || ttl != 0 {
		t.Errorf("after its window: %+v, ttl %d", d, ttl)
	}
	later, _, _ := rule.Apply(rec, 1500, 4)
	if _, d, ttl := back.Apply(later, 1500, 3); d.Allowed || ttl != 0 {
		t.Errorf("into the next window: %+v, ttl %d", d, ttl)
	}
	if _, d, ttl := back.Apply(throttlekit.Record{}, 100, 3); d.Allowed || ttl != 0 {
		t.Errorf("into a window in which nothing was charged: %+v, ttl %d", d, ttl)
	}
	for _, s := range []throttlekit.Strategy{
		throttlekit.GCRA{Limit: 1, Period: time.Second},
		throttlekit.SlidingWindow{Limit: 1, Window: time.Second},
		throttlekit.Quota{Limit: 1, Cadence: throttlekit.Rolling, Period: time.Second},
	} {
		if rule, ok := mustRule(t, s).(throttlekit.Windowed); ok {
			t.Errorf("%s has no windows with budgets of their own", rule.Name())
		}
	}
}

func TestDeferPaysForTheDelay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		strategy throttlekit.Deferrable
		delay    time.Duration
		want     throttlekit.Strategy
		rule     string // of the error
	}{
		{throttlekit.GCRA{Limit: 100, Period: time.Second, Burst: 50}, 200 * time.Millisecond, throttlekit.GCRA{Limit: 100, Period: time.Second, Burst: 30}, ""},
		{throttlekit.GCRA{Limit: 100, Period: time.Second}, 201 * time.Millisecond, throttlekit.GCRA{Limit: 100, Period: time.Second, Burst: 79}, ""},
		{throttlekit.GCRA{Limit: 0.1, Period: time.Second, Burst: 2}, time.Second, throttlekit.GCRA{Limit: 0.1, Period: time.Second, Burst: 1}, ""},
		{throttlekit.TokenBucket{Capacity: 10, RefillPerSec: 8}, time.Second, throttlekit.TokenBucket{Capacity: 2, RefillPerSec: 8}, ""},
		{throttlekit.SlidingWindowLog{Limit: 5, Window: time.Second}, time.Second, throttlekit.SlidingWindowLog{Limit: 5, Window: 2 * time.Second}, ""},
		{throttlekit.GCRA{Limit: 100, Period: time.Second, Burst: 50}, time.Second, nil, "must be at most 490ms: a burst of 50 has to pay for it with 100 units and keep 1"},
		{throttlekit.TokenBucket{Capacity: 1, RefillPerSec: 8}, time.Millisecond, nil, "must be at most 0s"},
		{throttlekit.GCRA{Limit: 100, Period: time.Second, Burst: 50}, 0, nil, "must be a positive duration"},
		{throttlekit.SlidingWindowLog{Limit: 5, Window: time.Second}, -1, nil, "must be a positive duration"},
		{throttlekit.SlidingWindowLog{Limit: 5, Window: time.Second}, math.MaxInt64, nil, "must be a positive duration"},
		{throttlekit.GCRA{}, time.Second, nil, "must be a positive"},
	} {
		got, err := c.strategy.Defer(c.delay)
		if c.rule == "" {
			if err != nil || got != c.want {
				t.Errorf("%+v.Defer(%v) = %+v, %v, want %+v", c.strategy, c.delay, got, err, c.want)
			}
			continue
		}
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), c.rule) {
			t.Errorf("%+v.Defer(%v): %v, want %q", c.strategy, c.delay, err, c.rule)
		}
	}
}

// Whatever is charged by the deferred strategy and used up to the delay later keeps to the
// strategy itself. The oracle is the strategy's envelope as a leaky counter.
func TestUsesOfADeferredBucketKeepToItsEnvelope(t *testing.T) {
	t.Parallel()
	bucket := throttlekit.TokenBucket{Capacity: 40, RefillPerSec: 100}
	const delay = 150 // ms, which 15 of the 40 pay for
	deferred, err := bucket.Defer(delay * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	// excess is the most that uses were ever above the envelope; it is positive if the
	// bucket that is charged does not pay.
	excess := func(charged throttlekit.Strategy, seed uint64) float64 {
		rule := mustRule(t, charged)
		random := rand.New(rand.NewPCG(seed, 1))
		var rec throttlekit.Record
		held := map[int64]float64{} // by the time of their charge
		level, worst := 0.0, math.Inf(-1)
		burstAt := random.Int64N(delay)
		for now := range int64(5000) {
			level = max(0, level-0.1)
			if next, d, ttl := rule.Apply(rec, now, 1); ttl > 0 && d.Allowed {
				held[now], rec = held[now]+1, next
			}
			delete(held, now-delay)
			if now%delay == burstAt || random.IntN(50) == 0 { // use all at once, from time to time
				for at, units := range held {
					level += units
					delete(held, at)
				}
			}
			worst = max(worst, level-bucket.Capacity)
		}
		return worst
	}
	for seed := range uint64(200) {
		if over := excess(deferred, seed); over > 0 {
			t.Fatalf("seed %d: %v units above the envelope", seed, over)
		}
	}
	if over := excess(bucket, 1); over <= 0 {
		t.Errorf("the bucket that does not pay stayed %v below the envelope: the test finds nothing", -over)
	}
}

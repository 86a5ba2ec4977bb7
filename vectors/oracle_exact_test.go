package vectors_test

import (
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Strategies with continuous state are held to rational arithmetic, which does not
// round. Binary64 does, so that numbers close to a whole one may come out on the other
// side of it; bounds says by how much, and a check so close to the limit may go either way.

// bounds is a number that is known up to a tolerance.
type bounds struct{ low, high float64 }

func around(x *big.Rat, tolerance float64) bounds {
	f, _ := x.Float64()
	return bounds{f - tolerance, f + tolerance}
}

// exact is what rational arithmetic says about one check.
type exact struct {
	margin    bounds // the request is allowed if this is not negative
	remaining bounds // before it is floored
	reset     bounds // from now, before it is raised to the next whole number
	retry     bounds // likewise
}

// exactOracle looks at a check without charging, and is told whether it was charged.
type exactOracle interface {
	look(now int64, cost float64, allowed bool) exact
	charge(now int64, cost float64)
}

func rat(x float64) *big.Rat  { return new(big.Rat).SetFloat64(x) }
func ratInt(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

func add(a, b *big.Rat) *big.Rat { return new(big.Rat).Add(a, b) }
func sub(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }
func mul(a, b *big.Rat) *big.Rat { return new(big.Rat).Mul(a, b) }
func div(a, b *big.Rat) *big.Rat { return new(big.Rat).Quo(a, b) }

func higher(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) > 0 {
		return a
	}
	return b
}

func lower(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

// check reports how a decision differs from the exact one.
func (e exact) check(now int64, d throttlekit.Decision) error {
	if d.Allowed && e.margin.high < 0 || !d.Allowed && e.margin.low > 0 {
		return fmt.Errorf("allowed is %t with a margin of %+v", d.Allowed, e.margin)
	}
	if got := float64(d.Remaining); got < max(0, math.Floor(e.remaining.low)) || got > max(0, math.Floor(e.remaining.high)) {
		return fmt.Errorf("remaining is %d, want ⌊%+v⌋", d.Remaining, e.remaining)
	}
	if got := float64(d.ResetAtMillis - now); got < math.Ceil(e.reset.low) || got > math.Ceil(e.reset.high) {
		return fmt.Errorf("resetAt is %g ms from now, want ⌈%+v⌉", got, e.reset)
	}
	if got := float64(d.RetryAfterMillis); !d.Allowed && (got < max(1, math.Ceil(e.retry.low)) || got > max(1, math.Ceil(e.retry.high))) {
		return fmt.Errorf("retryAfterMs is %d, want ⌈%+v⌉", d.RetryAfterMillis, e.retry)
	}
	return nil
}

// gcraOracle is §2.1 in rational arithmetic.
type gcraOracle struct{ t, tau, tat *big.Rat }

const gcraTolerance = 0.05 // milliseconds, after some dozens of roundings at 1.7e12

func (o *gcraOracle) look(now int64, cost float64, allowed bool) exact {
	e := higher(o.tat, ratInt(now))
	next := add(e, mul(o.t, rat(cost)))
	at := sub(next, o.tau)
	if allowed {
		e = next
	}
	perUnit, _ := o.t.Float64()
	return exact{
		margin:    around(sub(ratInt(now), at), gcraTolerance),
		remaining: around(div(sub(o.tau, sub(e, ratInt(now))), o.t), gcraTolerance/perUnit),
		reset:     around(sub(e, ratInt(now)), gcraTolerance),
		retry:     around(sub(at, ratInt(now)), gcraTolerance),
	}
}

func (o *gcraOracle) charge(now int64, cost float64) {
	o.tat = add(higher(o.tat, ratInt(now)), mul(o.t, rat(cost)))
}

// bucketOracle is §2.2 in rational arithmetic, with the latest time seen.
type bucketOracle struct {
	capacity, perMilli, tokens *big.Rat
	last                       int64
}

const bucketTolerance = 1e-6 // tokens

func (o *bucketOracle) fill(now int64) *big.Rat {
	return lower(o.capacity, add(o.tokens, mul(ratInt(max(0, now-o.last)), o.perMilli)))
}

func (o *bucketOracle) look(now int64, cost float64, allowed bool) exact {
	tokens := o.fill(now)
	missing := sub(rat(cost), tokens)
	margin := new(big.Rat).Neg(missing)
	if allowed {
		tokens = sub(tokens, rat(cost))
	}
	perMilli, _ := o.perMilli.Float64()
	return exact{
		margin:    around(margin, bucketTolerance),
		remaining: around(tokens, bucketTolerance),
		reset:     around(div(sub(o.capacity, tokens), o.perMilli), bucketTolerance/perMilli),
		retry:     around(div(missing, o.perMilli), bucketTolerance/perMilli),
	}
}

func (o *bucketOracle) charge(now int64, cost float64) {
	o.tokens, o.last = sub(o.fill(now), rat(cost)), max(o.last, now)
}

// slidingOracle is §2.4 in rational arithmetic. It keeps the count of every sub-window
// there ever was; the current one is the newest reached.
type slidingOracle struct {
	limit, window, width *big.Rat
	buckets              int64
	newest               int64
	counts               map[int64]*big.Rat
}

const slidingTolerance = 1e-6 // units, and milliseconds

func (o *slidingOracle) tick(now int64) int64 {
	q := div(ratInt(now), o.width)
	return max(o.newest, new(big.Int).Quo(q.Num(), q.Denom()).Int64())
}

func (o *slidingOracle) count(tick int64) *big.Rat {
	if c, ok := o.counts[tick]; ok {
		return c
	}
	return new(big.Rat)
}

func (o *slidingOracle) look(now int64, cost float64, allowed bool) exact {
	c := o.tick(now)
	elapsed := higher(new(big.Rat), sub(ratInt(now), mul(ratInt(c), o.width)))
	weight := div(sub(o.width, elapsed), o.width)
	estimate := new(big.Rat)
	for tick := c - o.buckets + 1; tick <= c; tick++ {
		estimate = add(estimate, o.count(tick))
	}
	old := o.count(c - o.buckets)
	estimate = add(estimate, mul(old, weight))
	over := sub(add(estimate, rat(cost)), o.limit)
	edge := mul(ratInt(c+1), o.width)
	e := exact{
		margin:    around(new(big.Rat).Neg(over), slidingTolerance),
		remaining: around(sub(o.limit, estimate), slidingTolerance),
		reset:     around(sub(add(edge, o.window), ratInt(now)), slidingTolerance),
		retry:     around(sub(edge, ratInt(now)), slidingTolerance),
	}
	if allowed {
		e.remaining = around(new(big.Rat).Neg(over), slidingTolerance)
	}
	if old.Sign() > 0 {
		decay := around(div(mul(over, o.width), old), slidingTolerance)
		switch gap := around(sub(mul(old, weight), over), slidingTolerance); {
		case gap.low > 0:
			e.retry = decay
		case gap.high >= 0: // so close that either answer stands
			e.retry = bounds{min(decay.low, e.retry.low), max(decay.high, e.retry.high)}
		}
	}
	return e
}

func (o *slidingOracle) charge(now int64, cost float64) {
	o.newest = o.tick(now)
	o.counts[o.newest] = add(o.count(o.newest), rat(cost))
}

func TestContinuousStrategiesAgainstExactArithmetic(t *testing.T) {
	t.Parallel()
	gcra := func(s throttlekit.GCRA) func() exactOracle {
		interval := div(div(ratInt(int64(s.Period)), ratInt(int64(time.Millisecond))), rat(s.Limit))
		return func() exactOracle {
			return &gcraOracle{t: interval, tau: mul(interval, rat(s.Burst)), tat: new(big.Rat)}
		}
	}
	bucket := func(s throttlekit.TokenBucket) func() exactOracle {
		return func() exactOracle {
			return &bucketOracle{capacity: rat(s.Capacity), perMilli: div(rat(s.RefillPerSec), ratInt(1000)), tokens: rat(s.Capacity)}
		}
	}
	sliding := func(s throttlekit.SlidingWindow) func() exactOracle {
		window := div(ratInt(int64(s.Window)), ratInt(int64(time.Millisecond)))
		return func() exactOracle {
			return &slidingOracle{
				limit: rat(s.Limit), window: window, width: div(window, ratInt(int64(s.Buckets))),
				buckets: int64(s.Buckets), counts: map[int64]*big.Rat{},
			}
		}
	}
	g := func(limit float64, period time.Duration, burst float64) throttlekit.GCRA {
		return throttlekit.GCRA{Limit: limit, Period: period, Burst: burst}
	}
	b := func(capacity, refill float64) throttlekit.TokenBucket {
		return throttlekit.TokenBucket{Capacity: capacity, RefillPerSec: refill}
	}
	w := func(limit float64, window time.Duration, buckets int) throttlekit.SlidingWindow {
		return throttlekit.SlidingWindow{Limit: limit, Window: window, Buckets: buckets}
	}
	for _, c := range []struct {
		strategy throttlekit.Strategy
		oracle   func() exactOracle
		longest  int64
	}{
		{g(7, time.Second, 7), gcra(g(7, time.Second, 7)), 400},
		{g(100, time.Minute, 5), gcra(g(100, time.Minute, 5)), 2000},
		{g(3, 333_500*time.Microsecond, 11), gcra(g(3, 333_500*time.Microsecond, 11)), 500},
		{b(20, 3.5), bucket(b(20, 3.5)), 2000},
		{b(8, 0.07), bucket(b(8, 0.07)), 60_000},
		{b(100, 1300), bucket(b(100, 1300)), 30},
		{w(20, time.Second, 3), sliding(w(20, time.Second, 3)), 300},
		{w(30, time.Minute, 60), sliding(w(30, time.Minute, 60)), 5000},
		{w(12, 333_500*time.Microsecond, 7), sliding(w(12, 333_500*time.Microsecond, 7)), 100},
		{w(9, time.Second, 1), sliding(w(9, time.Second, 1)), 400},
	} {
		t.Run(fmt.Sprintf("%T%+v", c.strategy, c.strategy), func(t *testing.T) {
			t.Parallel()
			const timelines, steps = 40, 60
			for seed := range uint64(timelines) {
				start := int64(seed % 3 * 850_000_000_000)
				m, o := newMachine(t, c.strategy), c.oracle()
				walk := newWalk(seed, start, c.longest, seed%2 == 1, 1, 1, 2, 3, 5, 0.5, 40)
				for i := range steps {
					now, cost := walk.next()
					d := m.check(now, cost)
					if err := o.look(now, cost, d.Allowed).check(now, d); err != nil {
						t.Fatalf("timeline %d, check %d, cost %g at %d: %v in %+v", seed, i, cost, now, err, d)
					}
					if d.Allowed {
						o.charge(now, cost)
					}
				}
			}
		})
	}
}

package throttlekit

import (
	"math"
	"time"
)

// GCRA is the generic cell rate algorithm: requests are admitted at an even rate of
// Limit per Period, and up to Burst of them at once after a pause. It keeps one
// number per key and has no window edges. It is the strategy to take when in doubt.
//
// In any interval of length t it admits at most Burst + t·Limit/Period units.
// Source of the formulas: ITU-T I.371, as bracketed in the specification's §2.1.
type GCRA struct {
	// Limit is how many units one Period refills; positive.
	Limit float64
	// Period is the time in which Limit units come back; positive.
	Period time.Duration
	// Burst is how many units can be spent at once; at least 1. Zero means Limit.
	Burst float64
}

// gcra holds the derived constants. A record's A is the theoretical arrival time in
// epoch milliseconds: the instant at which the key is whole again.
type gcra struct {
	spec  GCRA
	t     float64 // milliseconds per unit
	tau   float64 // milliseconds that a full burst spans
	limit int64
}

// Rule implements [Strategy].
func (s GCRA) Rule() (Rule, error) {
	if s.Burst == 0 {
		s.Burst = s.Limit
	}
	var c checks
	c.positive("limit", s.Limit)
	c.duration("period", s.Period)
	c.require(finite(s.Burst) && s.Burst >= 1, "burst", s.Burst, "must be a finite number >= 1")
	if len(c) > 0 {
		return nil, c.err()
	}
	t := toMillis(s.Period) / s.Limit
	tau := t * s.Burst
	c.require(t > 0 && t <= MaxSafe, "limit", s.Limit, "must give an interval between units of more than 0 and at most 9007199254740991 ms")
	c.require(finite(tau), "burst", s.Burst, "must span a finite time at this rate")
	if len(c) > 0 {
		return nil, c.err()
	}
	return &gcra{spec: s, t: t, tau: tau, limit: whole(s.Burst)}, nil
}

func (g *gcra) Name() string                       { return "gcra" }
func (g *gcra) Strategy() Strategy                 { return g.spec }
func (g *gcra) Limit() int64                       { return g.limit }
func (g *gcra) Encode(rec Record) ([]byte, error)  { return encodeScalar(rec) }
func (g *gcra) Decode(text []byte) (Record, error) { return decodeScalar(g.Name(), text) }

// arrival is the theoretical arrival time, which a key never seen has reached.
func (g *gcra) arrival(rec Record, now float64) float64 {
	if rec.A > now {
		return rec.A
	}
	return now
}

// remaining is how many whole units fit when the arrival time is e.
func (g *gcra) remaining(e, now float64) int64 { return floor0((g.tau - (e - now)) / g.t) }

func (g *gcra) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	now := float64(nowMillis)
	e := g.arrival(rec, now)
	next := e + float64(g.t*cost)
	allowAt := next - g.tau
	if now < allowAt {
		return rec, deny(g.limit, g.remaining(e, now), ceil(e), ceil(allowAt-now)), 0
	}
	return Record{A: next}, allow(g.limit, g.remaining(next, now), ceil(next)), max(1, ceil(next-now))
}

func (g *gcra) Peek(rec Record, nowMillis int64) Decision {
	now := float64(nowMillis)
	e := g.arrival(rec, now)
	remaining := g.remaining(e, now)
	if remaining >= 1 {
		return allow(g.limit, remaining, ceil(e))
	}
	return deny(g.limit, remaining, ceil(e), ceil(e+g.t-g.tau-now))
}

func (g *gcra) Forecast(rec Record, nowMillis int64, cost float64) Forecast {
	now := float64(nowMillis)
	e := g.arrival(rec, now)
	k := math.Max(0, math.Floor((g.tau-(e-now))/g.t))
	f := Forecast{SpendableNow: floor(k / cost), NextReplenishAtMillis: nowMillis, FullAtMillis: nowMillis}
	if e > now {
		f.NextReplenishAtMillis = ceil(e - g.tau + float64((k+1)*g.t))
		f.FullAtMillis = ceil(e)
	}
	return f
}

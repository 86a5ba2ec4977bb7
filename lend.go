package throttlekit

import (
	"fmt"
	"math"
	"math/big"
	"time"
)

// This file holds what leasing asks of a rule: to take a part where the whole does not
// fit, to take back what was not used, and to allow for units that are used later than
// they were charged. Package lease builds on it.

// UpTo returns a transition that charges as much of the cost as fits, in whole units, if
// that is at least least. It makes a lease out of a rule: the caller may hand out what was
// charged without asking again. Cost and least are whole numbers, 1 <= least <= cost.
//
// A decision that allows reports in Remaining how many units were charged, and in
// RetryAfterMillis how long it is until ResetAtMillis on the store's clock, so that
// ResetAtMillis-RetryAfterMillis is the store's time. One that denies is that of a check
// of cost least.
func UpTo(rule Rule, least float64) Transition {
	if !(least >= 1) { // NaN included
		least = 1
	}
	return &upTo{rule: rule, least: least}
}

// upTo is not a Rule itself, so that no store takes it for the one that it was made from.
type upTo struct {
	rule  Rule
	least float64
}

// UpTo is what the transition was made from, for stores that have a faster form of it.
func (u *upTo) UpTo() (rule Rule, least float64) { return u.rule, u.least }

func (u *upTo) Name() string                       { return "upTo:" + u.rule.Name() }
func (u *upTo) Encode(rec Record) ([]byte, error)  { return u.rule.Encode(rec) }
func (u *upTo) Decode(text []byte) (Record, error) { return u.rule.Decode(text) }

func (u *upTo) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	charged := cost
	next, d, ttl := u.rule.Apply(rec, nowMillis, charged)
	if left := float64(d.Remaining); !d.Allowed && left >= u.least && left < cost {
		charged = left
		next, d, ttl = u.rule.Apply(rec, nowMillis, charged)
	}
	if !d.Allowed && charged > u.least {
		charged = u.least
		next, d, ttl = u.rule.Apply(rec, nowMillis, charged)
	}
	if d.Allowed {
		d.Remaining, d.RetryAfterMillis = whole(charged), d.ResetAtMillis-nowMillis
	}
	return next, d, ttl
}

// Windowed is a Rule whose budget starts anew when a window ends: what was charged in one
// window has no part in any decision of the next. Units charged in a window may therefore
// be used up to its end and not later, by whoever holds them. [FixedWindow] and quotas
// that do not roll make such rules.
type Windowed interface {
	Rule
	// Refund returns a transition that gives back units which were charged in the window
	// that ends at resetAtMillis; its cost is how many. The decision says in Allowed
	// whether that window was still the current one; if not, nothing has changed.
	Refund(resetAtMillis int64) Transition
}

type refund struct {
	rule    *windowed
	resetAt int64
}

// Refund implements [Windowed].
func (w *windowed) Refund(resetAtMillis int64) Transition {
	return &refund{rule: w, resetAt: resetAtMillis}
}

// Refund is what the transition was made from, for stores that have a faster form of it.
func (r *refund) Refund() (rule Rule, resetAtMillis int64) { return r.rule, r.resetAt }

func (r *refund) Name() string                       { return "refund:" + r.rule.Name() }
func (r *refund) Encode(rec Record) ([]byte, error)  { return r.rule.Encode(rec) }
func (r *refund) Decode(text []byte) (Record, error) { return r.rule.Decode(text) }

func (r *refund) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	w := r.rule
	start, reset, count := w.window(rec, nowMillis)
	if ceil(reset) != r.resetAt || count == 0 || !(cost > 0 && finite(cost)) {
		return rec, deny(w.reported, floor0(w.limit-count), ceil(reset), 0), 0
	}
	count = max(0, count-cost)
	return Record{A: start, B: count}, allow(w.reported, floor0(w.limit-count), ceil(reset)), max(1, ceil(reset-float64(nowMillis)))
}

// Drift is how much faster or slower than a store's clock the clock of a holder of units
// may run, in parts per million, for the bounds of what it holds to stand. NTP slews a
// clock by up to 500, and two clocks may be slewed in opposite directions.
const Drift = 1000

// Usable is for how long after it asked a holder may use what lasts for a time on a
// store's clock: shorter by the [Drift] between the two clocks, and by the millisecond to
// which stores round theirs.
func Usable(lasts time.Duration) time.Duration {
	return max(0, lasts-lasts/(1_000_000/Drift)-time.Millisecond)
}

// Deferrable is a Strategy that can allow for a delay between charging a unit and using it.
type Deferrable interface {
	Strategy
	// Defer returns the strategy to charge by so that uses keep to this one, if every
	// unit is used at most delay after it was charged. The error matches [ErrInvalid] if
	// the strategy cannot pay for so long a delay.
	Defer(delay time.Duration) (Strategy, error)
}

// Defer implements [Deferrable]: uses in any interval of length t were charged in one of
// length t + delay, so the burst shrinks by what the rate refills in delay.
func (s GCRA) Defer(delay time.Duration) (Strategy, error) {
	if s.Burst == 0 {
		s.Burst = s.Limit
	}
	if _, err := s.Rule(); err != nil {
		return nil, err
	}
	left, err := paid(s.Burst, s.Limit, s.Period, delay)
	s.Burst = left
	return s, err
}

// Defer implements [Deferrable], as that of [GCRA] does.
func (s TokenBucket) Defer(delay time.Duration) (Strategy, error) {
	if _, err := s.Rule(); err != nil {
		return nil, err
	}
	left, err := paid(s.Capacity, s.RefillPerSec, time.Second, delay)
	s.Capacity = left
	return s, err
}

// Defer implements [Deferrable]: uses in any window were charged in one longer by delay.
func (s SlidingWindowLog) Defer(delay time.Duration) (Strategy, error) {
	if _, err := s.Rule(); err != nil {
		return nil, err
	}
	if delay <= 0 || s.Window+delay < s.Window {
		return nil, &InvalidError{Field: "delay", Value: delay, Rule: "must be a positive duration"}
	}
	s.Window += delay
	return s, nil
}

// paid is what is left of a burst after ⌈delay·units/period⌉, computed exactly.
func paid(burst, units float64, period, delay time.Duration) (left float64, err error) {
	if delay <= 0 {
		return 0, &InvalidError{Field: "delay", Value: delay, Rule: "must be a positive duration"}
	}
	exact := new(big.Rat).SetFloat64(units)
	price := new(big.Rat).Mul(exact, big.NewRat(int64(delay), int64(period)))
	up := new(big.Int).Add(price.Num(), new(big.Int).Sub(price.Denom(), big.NewInt(1)))
	due, _ := new(big.Float).SetInt(up.Quo(up, price.Denom())).Float64()
	if left = burst - due; left >= 1 {
		return left, nil
	}
	most := new(big.Rat).Quo(new(big.Rat).SetFloat64(max(0, math.Floor(burst-1))), exact)
	longest, _ := most.Mul(most, big.NewRat(int64(period), 1)).Float64()
	return 0, &InvalidError{Field: "delay", Value: delay, Rule: fmt.Sprintf(
		"must be at most %v: a burst of %v has to pay for it with %v units and keep 1",
		time.Duration(min(longest, math.MaxInt64)).Truncate(time.Microsecond), burst, due)}
}

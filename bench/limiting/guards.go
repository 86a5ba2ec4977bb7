package main

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
)

// ending is how a request ends.
type ending int

const (
	released ending = iota
	dropped
	canceled // it was denied by another limit and never reached the backend
)

// guard is what a simulation drives.
type guard interface {
	begin() (end func(ending), ok bool)
	limit() int
}

// ours is the real guard.
type ours struct{ *concurrency.Guard }

func newOurs(c concurrency.Config, now func() time.Duration) (guard, error) {
	c.Elapsed = now
	g, err := concurrency.NewGuard(c)
	return ours{g}, err
}

func (o ours) begin() (func(ending), bool) {
	p := o.TryAcquire()
	return func(how ending) {
		switch how {
		case released:
			p.Release()
		case dropped:
			p.Drop()
		case canceled:
			p.Cancel()
		}
	}, p.Allowed
}

func (o ours) limit() int { return o.Stats().Limit }

// reference is a guard by the laws of specification "TALE" §2.1, to the letter: the latency without
// load is the minimum over the latest requests, failures included, and a request that another limit
// denied is recorded as one that took no time (§6.8).
type reference struct {
	config   concurrency.Config // with all defaults filled in
	now      func() time.Duration
	estimate float64
	inFlight int
	latest   []time.Duration

	probing  bool
	ended    time.Duration // the last measurement
	measured []time.Duration
}

func newReference(c concurrency.Config, now func() time.Duration) (guard, error) {
	c.MinLimit, c.MaxLimit = cmp.Or(c.MinLimit, 4), cmp.Or(c.MaxLimit, 512)
	c.RTTWindow, c.Smoothing = cmp.Or(c.RTTWindow, 100), cmp.Or(c.Smoothing, 0.2)
	c.Tolerance, c.BackoffRatio = cmp.Or(c.Tolerance, 2), cmp.Or(c.BackoffRatio, 0.9)
	return &reference{config: c, now: now, estimate: float64(cmp.Or(c.InitialLimit, c.MinLimit))}, nil
}

// probeSamples is how many requests a measurement takes, whose limit is MinLimit.
const probeSamples = 5

func (r *reference) limit() int { return int(r.estimate) }

func (r *reference) begin() (func(ending), bool) {
	ceiling := r.limit()
	if r.probing {
		ceiling = min(ceiling, r.config.MinLimit)
	}
	if r.inFlight >= ceiling {
		return nil, false
	}
	r.inFlight++
	start, used := r.now(), r.inFlight
	return func(how ending) {
		r.inFlight--
		r.observe(r.now()-start, used, how == dropped)
	}, true
}

func (r *reference) observe(rtt time.Duration, used int, failed bool) {
	if r.probing {
		if !failed && used <= r.config.MinLimit {
			r.measured = append(r.measured, rtt)
		}
		if len(r.measured) == probeSamples {
			r.latest, r.measured = []time.Duration{slices.Min(r.measured)}, nil
			r.probing, r.ended = false, r.now()
		}
		return
	}
	r.latest = append(r.latest, rtt)
	r.latest = r.latest[max(0, len(r.latest)-r.config.RTTWindow):]
	r.estimate = r.next(rtt, used, failed)
	if p := r.config.Recalibration; p != nil && r.now()-r.ended >= p.Interval {
		r.probing = true
	}
}

func (r *reference) next(rtt time.Duration, used int, failed bool) float64 {
	c, e := &r.config, r.estimate
	bound, busy := c.Tolerance*float64(slices.Min(r.latest)), float64(2*used) >= e
	if c.Algorithm == concurrency.AIMD {
		switch {
		case failed || float64(rtt) > bound:
			return max(float64(c.MinLimit), math.Floor(e*c.BackoffRatio))
		case busy:
			return min(float64(c.MaxLimit), e+1)
		}
		return e
	}
	gamma := 1.0
	switch {
	case failed:
		gamma = 0.5
	case !busy:
		return e
	case rtt > 0:
		gamma = min(max(bound/float64(rtt), 0.5), 1)
	}
	e = (1-c.Smoothing)*e + c.Smoothing*(gamma*e+math.Sqrt(e))
	return min(max(e, float64(c.MinLimit)), float64(c.MaxLimit))
}

package concurrency

import (
	"math"
	"time"
)

// law is how the limit follows from what requests have told. It is pure: time comes in as an
// argument. Its window is shared between copies.
type law struct {
	last     time.Duration
	noLoad   noLoad
	estimate float64       // the limit before it is rounded down
	lowered  time.Duration // when the estimate was last lowered

	probing  bool
	since    time.Duration // when the measurement began, or when the last one ended
	measured int
	least    time.Duration

	config Config
}

// sample is what one request tells.
type sample struct {
	now      time.Duration
	rtt      time.Duration // not negative; 0 if the clock did not see it pass
	inFlight int           // when it began, itself included
	alone    bool          // no more than the probe limit were in flight while it was
	dropped  bool
}

// newLaw expects a complete configuration.
func newLaw(config Config, now time.Duration) law {
	return law{
		config: config, estimate: float64(config.InitialLimit), lowered: math.MinInt64, noLoad: newNoLoad(config.RTTWindow), since: now,
	}
}

func (l *law) limit() int { return int(l.estimate) }

// ceiling is how many may be in flight; less than the limit during a measurement.
func (l *law) ceiling() int {
	if l.probing {
		return min(l.limit(), l.config.Recalibration.ProbeLimit)
	}
	return l.limit()
}

// probeShare is which part of the interval a measurement may take.
const probeShare = 10

// pass gives a measurement up that takes too long.
func (l *law) pass(now time.Duration) {
	if l.probing && now-l.since >= l.config.Recalibration.Interval/probeShare {
		l.probing, l.since = false, now
	}
}

// observe learns from a request that has ended. Failures say nothing about the latency without
// load, but that there is too much load also during a measurement.
func (l *law) observe(s *sample) {
	l.pass(s.now)
	l.last = s.rtt
	switch {
	case s.dropped:
		l.adapt(s)
	case l.probing:
		l.measure(s)
	default:
		if s.rtt > 0 {
			l.noLoad.add(s.rtt, s.alone)
		}
		l.adapt(s)
		if r := l.config.Recalibration; r != nil && s.now-l.since >= r.Interval {
			l.probing, l.since, l.measured, l.least = true, s.now, 0, math.MaxInt64
		}
	}
}

// measure takes a latency into the measurement that is under way.
func (l *law) measure(s *sample) {
	if !s.alone || s.rtt <= 0 {
		return
	}
	l.measured++
	l.least = min(l.least, s.rtt)
	if l.measured >= l.config.Recalibration.ProbeSamples {
		l.noLoad.reset(l.least)
		l.probing, l.since = false, s.now
	}
}

// adapt moves the estimate. Slow requests lower it once in a round trip: one that began before the
// last decrease met a backend that more requests were let through to, and what it tells has been
// heeded. Otherwise a queue that is seen late makes the limit collapse each time. Drops count one
// by one, so that it is their share that matters.
func (l *law) adapt(s *sample) {
	next := l.next(s)
	if next == l.estimate {
		return // and write nothing
	}
	if next < l.estimate {
		if !s.dropped && s.now-s.rtt < l.lowered {
			return
		}
		l.lowered = s.now
	}
	l.estimate = next
}

// next is the estimate after a request. Growth needs at least half of it to be in use, for
// otherwise nothing is known about what lies beyond.
func (l *law) next(s *sample) float64 {
	c, e := &l.config, l.estimate
	used := float64(2*s.inFlight) >= e
	if c.Algorithm == AIMD {
		switch {
		case s.dropped || float64(s.rtt) > c.Tolerance*float64(l.noLoad.least()):
			return max(float64(c.MinLimit), math.Floor(e*c.BackoffRatio))
		case used:
			return min(float64(c.MaxLimit), e+1)
		}
		return e
	}
	if !s.dropped && !used {
		return e
	}
	step := float64(l.gradient(s)*e) + math.Sqrt(e)
	e = float64((1-c.Smoothing)*e) + float64(c.Smoothing*step)
	return min(max(e, float64(c.MinLimit)), float64(c.MaxLimit))
}

// gradient is what Gradient2 multiplies the estimate by.
func (l *law) gradient(s *sample) float64 {
	const least = 0.5
	switch {
	case s.dropped:
		return least
	case s.rtt <= 0:
		return 1
	}
	return min(max(l.config.Tolerance*float64(l.noLoad.least())/float64(s.rtt), least), 1)
}

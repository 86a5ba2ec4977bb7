package main

import (
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
)

// phase is a part of a case in which traffic and backend stay as they are. The backend has so many
// workers, each of which serves one request at a time, first come, first served.
type phase struct {
	name     string
	lasts    time.Duration
	rate     float64 // requests per second, at random times
	burst    int     // arrive at the same moment, 0 for 1
	workers  int
	service  time.Duration // on average, at least nine tenths of it
	fails    bool          // every request fails within a millisecond
	spikes   float64       // share of requests that take ten times as long
	canceled float64       // share of requests that another limit denies at once

	gradient2, aimd bounds // of ours
}

// bounds are within which the limit stays over the second half of a phase, and how much of what
// could be served is.
type bounds struct {
	least, most int
	share       float64
}

func (p *phase) bounds(algorithm concurrency.Algorithm) bounds {
	if algorithm == concurrency.AIMD {
		return p.aimd
	}
	return p.gradient2
}

func (p *phase) keeps(algorithm concurrency.Algorithm, o outcome) bool {
	b := p.bounds(algorithm)
	return o.least >= b.least && o.most <= b.most && o.share >= b.share
}

// right is how many can be in flight without a queue: the workers, of whom none serves while all fails.
func (p *phase) right() int {
	if p.fails {
		return 0
	}
	return p.workers
}

// possible is how many requests can be served in a phase.
func (p *phase) possible() float64 {
	if p.fails {
		return 0
	}
	capacity := float64(p.workers) / p.service.Seconds()
	return min(capacity, p.rate*(1-p.canceled)) * p.lasts.Seconds()
}

// scenario is a case to simulate.
type scenario struct {
	name          string
	recalibration *concurrency.Recalibration
	phases        []phase
}

func (c *scenario) lasts() (d time.Duration) {
	for i := range c.phases {
		d += c.phases[i].lasts
	}
	return d
}

// at is the phase at a time.
func (c *scenario) at(now time.Duration) *phase {
	for i := range c.phases {
		if now -= c.phases[i].lasts; now < 0 {
			return &c.phases[i]
		}
	}
	return &c.phases[len(c.phases)-1]
}

// healthy is a backend that serves 4000 requests per second, at a load.
func healthy(name string, lasts time.Duration, load float64) phase {
	const workers, service = 40, 10 * time.Millisecond
	well := bounds{least: workers, most: 170, share: 0.9}
	return phase{
		name: name, lasts: lasts, workers: workers, service: service, rate: load * workers / service.Seconds(),
		gradient2: well, aimd: well,
	}
}

const overload = 1.2

// cases are those in which adaptive limits go wrong.
func cases() []scenario {
	start := func() phase { return healthy("before", 5*time.Second, overload) }
	after := func() phase { return healthy("after", 5*time.Second, overload) }
	low, least := bounds{least: 4, most: 20, share: 0.9}, bounds{least: 4, most: 4}

	incident := healthy("a tenth is left", 30*time.Second, overload)
	incident.workers, incident.gradient2, incident.aimd = 4, low, low

	storm := healthy("everything fails", 10*time.Second, overload)
	storm.fails, storm.gradient2, storm.aimd = true, least, least

	quiet := healthy("5 % load, spikes", 20*time.Second, 0.05)
	quiet.spikes, quiet.gradient2.share, quiet.aimd = 0.02, 0.98, bounds{least: 4, most: 170, share: 0.98}

	denials := healthy("half is denied", 10*time.Second, 2*overload)
	denials.burst, denials.canceled = 10, 0.5

	half := healthy("half is left", 10*time.Second, overload)
	half.workers, half.gradient2, half.aimd = 20, bounds{least: 20, most: 90, share: 0.9}, bounds{least: 20, most: 90, share: 0.9}

	risen := healthy("three times as slow", 15*time.Second, overload)
	risen.workers, risen.service = 3*risen.workers, 3*risen.service
	raised := bounds{least: 120, most: 500, share: 0.8}
	risen.gradient2, risen.aimd = raised, raised
	unseen := risen // by gradient2: its limit stays above those that count as alone
	unseen.gradient2 = bounds{least: 4, most: 12}
	return []scenario{
		{name: "standing overload", phases: []phase{healthy("a fifth too much", 15*time.Second, overload)}},
		{name: "long incident", phases: []phase{start(), incident, after()}},
		{name: "failures only", phases: []phase{start(), storm, after()}},
		{name: "low utilisation, then a rush", phases: []phase{start(), quiet, after()}},
		{name: "rate denials mixed in", phases: []phase{start(), denials, after()}},
		{name: "half of the capacity, and back", phases: []phase{start(), half, after()}},
		{name: "slower for good", phases: []phase{start(), unseen}},
		{
			name: "slower for good, recalibrated", phases: []phase{start(), risen},
			recalibration: &concurrency.Recalibration{Interval: 5 * time.Second},
		},
	}
}

package top

import (
	"math"
	"slices"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

const (
	// historySize is how many samples are kept, and guardHistory how many of each guard.
	historySize  = 120
	guardHistory = 60
	// settle is the time in which a rate takes over most of a change, in milliseconds.
	settle = 2500
)

// History is what snapshots tell together: rates, which no single one has. The zero History is empty.
type History struct {
	at       int64
	policies map[string]past
	denied   []float64            // per second, of the latest samples
	guards   map[string][]float64 // how much was in flight, in the latest samples
}

// past is what a policy counted up to the latest snapshot, and its rates per second.
type past struct {
	window                int64
	allowed, denied       int64
	units, leased         float64
	allowedRate           float64
	deniedRate            float64
	unitsRate, leasedRate float64
}

// Add takes the next snapshot. Counters start from 0 in each window, and whenever a server starts: what is counted then is
// what came since, and not what is missing from before.
func (h *History) Add(s *monitor.Snapshot) {
	if s.Meta.GeneratedAt == h.at && h.policies != nil {
		return
	}
	next := make(map[string]past, len(s.Policies))
	var denied float64
	for i := range s.Policies {
		p := &s.Policies[i]
		now, came, span := h.step(p, s.Meta.GeneratedAt)
		if span > 0 {
			denied += 1000 * float64(came) / span
		}
		next[p.Name] = now
	}
	guards := make(map[string][]float64, len(s.Guards))
	for i := range s.Guards {
		g := &s.Guards[i]
		past := h.guards[g.Name]
		guards[g.Name] = append(slices.Clone(past[max(0, len(past)-guardHistory+1):]), float64(g.InFlight))
	}
	h.at, h.policies, h.guards = s.Meta.GeneratedAt, next, guards
	h.denied = append(h.denied, denied)
	if len(h.denied) > historySize {
		h.denied = append(h.denied[:0], h.denied[len(h.denied)-historySize:]...)
	}
}

// step is what is known of a policy after a snapshot, the denials that are new in it, and in how many milliseconds they came.
func (h *History) step(p *monitor.Policy, at int64) (now past, came int64, span float64) {
	a := &p.Analytics
	now = past{window: a.WindowStartedAt, allowed: a.Allowed, denied: a.Denied, units: a.Units}
	if a.Leases != nil {
		now.leased = a.Leases.Units
	}
	was, known := h.policies[p.Name]
	since := a.WindowStartedAt
	var base past
	if known && was.window == a.WindowStartedAt && a.Allowed >= was.allowed && a.Denied >= was.denied && at >= h.at {
		base, since = was, max(since, h.at)
	}
	came = a.Denied - base.denied
	span = float64(at - since)
	now.allowedRate, now.deniedRate, now.unitsRate, now.leasedRate = was.allowedRate, was.deniedRate, was.unitsRate, was.leasedRate
	if span <= 0 {
		return now, came, span
	}
	weight := 1.0
	if known {
		weight = 1 - math.Exp(-span/settle)
	}
	toward := func(rate *float64, units float64) {
		*rate += weight * (1000*max(0, units)/span - *rate)
	}
	toward(&now.allowedRate, float64(a.Allowed-base.allowed))
	toward(&now.deniedRate, float64(came))
	toward(&now.unitsRate, a.Units-base.units)
	toward(&now.leasedRate, now.leased-base.leased)
	return now, came, span
}

// rates are those of all policies together.
func (h *History) rates() (allowed, denied float64) {
	for _, p := range h.policies {
		allowed += p.allowedRate
		denied += p.deniedRate
	}
	return allowed, denied
}

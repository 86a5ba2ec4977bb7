package top

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// latencies is how long decisions take.
func (f *Frame) latencies(width int) (head, body []line) {
	g := f.glyphs()
	if len(f.Snapshot.Policies) == 0 {
		return nil, nothing("The server has no policies.")
	}
	rows := make([][]cell, 0, len(f.Snapshot.Policies))
	for i := range f.Snapshot.Policies {
		p := &f.Snapshot.Policies[i]
		l := p.Latency
		if l == nil || l.N == 0 {
			none := cell{text: g.dash, style: faint}
			rows = append(rows, []cell{{text: g.shown(p.Name)}, none, none, none, none, none, {text: "no samples", style: faint}})
			continue
		}
		look, bar := plain, accent
		if l.P99Ms >= 25 && l.P99Ms >= 10*l.P50Ms {
			look, bar = warn, warn
		}
		rows = append(rows, []cell{
			{text: g.shown(p.Name)},
			{text: g.latency(l.AvgMs)},
			{text: g.latency(l.P50Ms)},
			{text: g.latency(l.P99Ms), style: look},
			{text: g.latency(l.MaxMs)},
			{text: count(l.N), style: faint},
			{draw: func(w int) line { return g.stretch(l.P50Ms, l.P99Ms, w, bar) }},
		})
	}
	table := g.table(width, []column{
		{name: "policy", least: 6, most: 28},
		{name: "average", right: true, least: 7, rank: 3},
		{name: "median", right: true, least: 7, rank: 2},
		{name: "p99", right: true, least: 7},
		{name: "longest", right: true, least: 7, rank: 1},
		{name: "samples", right: true, rank: 4},
		{name: "1 " + g.micro + "s  1 s", scale: true, least: 16, most: 48, grows: true, rank: 5},
	}, rows)
	return table[:1], table[1:]
}

// stretch draws a stretch of a scale that goes in powers of ten from a microsecond to a second.
func (g *glyphs) stretch(from, to float64, width int, s style) line {
	place := func(ms float64) int {
		part := (math.Log10(max(ms, 1e-3)) + 3) / 6
		return int(min(max(part, 0), 1) * float64(max(0, width-1)))
	}
	if width <= 0 {
		return nil
	}
	first, last := place(from), max(place(from), place(to))
	return line{
		{strings.Repeat(g.empty, first), faint},
		{strings.Repeat(g.full, last-first+1), s},
		{strings.Repeat(g.empty, width-last-1), faint},
	}
}

// nothing is what a view shows that has nothing to show.
func nothing(why ...string) []line {
	lines := make([]line, 0, len(why))
	for _, text := range why {
		lines = append(lines, line{{text, faint}})
	}
	return lines
}

// tenant is one of those who share, and what it is sure to get.
type tenant struct {
	monitor.Tenant

	guaranteed float64
	known      bool // whether guaranteed is: not if tenants are missing
}

// tenants are ranked by what they have or could have.
func tenants(v *monitor.ShareValue) []tenant {
	var weights float64
	for _, t := range v.Tenants {
		weights += t.Weight
	}
	known := v.TenantCount <= len(v.Tenants) && weights > 0
	all := make([]tenant, 0, len(v.Tenants))
	for _, t := range v.Tenants {
		one := tenant{Tenant: t, known: known}
		if known {
			one.guaranteed = math.Floor(t.Weight * v.EffectiveLimit / weights)
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(a, b tenant) int {
		return cmp.Or(cmp.Compare(max(b.Used, b.guaranteed), max(a.Used, a.guaranteed)), cmp.Compare(b.Used, a.Used))
	})
	return all
}

// mostTenants of a policy are shown.
const mostTenants = 10

// fairness is how tenants share their limits.
func (f *Frame) fairness(width int) (head, body []line) {
	if len(f.Snapshot.Stats) == 0 {
		return nil, nothing("No policy divides its limit among tenants.", "A policy with fairEscrow or federatedFairEscrow does.")
	}
	for i := range f.Snapshot.Stats {
		if i > 0 {
			body = append(body, nil)
		}
		body = append(body, f.share(&f.Snapshot.Stats[i], width)...)
	}
	return nil, body
}

// share is one policy of them.
func (f *Frame) share(s *monitor.Share, width int) []line {
	g, v := f.glyphs(), &s.Value
	top := line{{g.shown(s.Name), title}, {"  limit ", faint}, {number(v.EffectiveLimit), plain}}
	if v.EffectiveLimit != v.Limit {
		top = top.add(faint, " of ").add(plain, number(v.Limit))
	}
	top = top.add(faint, "  used ").add(plain, number(v.TotalUsed)).add(faint, "  free ").
		add(plain, number(max(0, v.EffectiveLimit-v.TotalUsed)))
	if room := min(40, width-top.columns()-2); room >= 8 && v.EffectiveLimit > 0 {
		top = append(top.add(plain, "  "), g.bar(v.TotalUsed/v.EffectiveLimit, room, accent)...)
	}
	all := tenants(v)
	if v.WindowStart == nil || len(all) == 0 {
		return append([]line{top}, nothing("Nobody has asked yet.")...)
	}
	scale, below := 0.0, 0
	for _, t := range all {
		scale = max(scale, t.Used, t.guaranteed)
	}
	seen := all[:min(mostTenants, len(all))]
	rows := make([][]cell, 0, len(seen))
	for _, t := range seen {
		guaranteed, borrowed, look := g.dash, g.dash, plain
		if t.known {
			guaranteed, borrowed = number(t.guaranteed), number(max(0, t.Used-t.guaranteed))
			if t.Used > t.guaranteed {
				look = warn
			}
		}
		rows = append(rows, []cell{
			{text: g.shown(t.Tenant.Tenant)},
			{text: fmt.Sprintf("%.3g", t.Weight), style: faint},
			{text: number(t.Used)},
			{text: guaranteed},
			{text: borrowed, style: look},
			{draw: func(w int) line { return g.used(t, scale, w) }},
		})
	}
	lines := append([]line{top}, g.table(width, []column{
		{name: "tenant", least: 6, most: 28},
		{name: "weight", right: true, least: 4, rank: 3},
		{name: "used", right: true},
		{name: "guaranteed", right: true, least: 4, rank: 2},
		{name: "borrowed", right: true, least: 4, rank: 1},
		{least: 8, most: 48, grows: true, rank: 4},
	}, rows)...)
	for _, t := range all[len(seen):] {
		if t.known && t.Used < t.guaranteed {
			below++
		}
	}
	if more := max(len(all), v.TenantCount) - len(seen); more > 0 {
		text := fmt.Sprintf("+%s more", count(int64(more)))
		if below > 0 {
			text += fmt.Sprintf(" (%s below what they are guaranteed)", count(int64(below)))
		}
		lines = append(lines, line{{text, faint}})
	}
	return lines
}

// used draws what a tenant has used of the largest share, apart what it has borrowed.
func (g *glyphs) used(t tenant, scale float64, width int) line {
	if scale <= 0 || width <= 0 {
		return nil
	}
	cells := func(units float64) int { return int(min(max(units/scale, 0), 1)*float64(width) + 0.5) }
	own := t.Used
	if t.known {
		own = min(t.Used, t.guaranteed)
	}
	first, all := cells(own), cells(t.Used)
	return line{
		{strings.Repeat(g.full, first), good},
		{strings.Repeat(g.full, all-first), warn},
		{strings.Repeat(g.empty, width-all), faint},
	}
}

// capacity is what the busiest key of each policy could spend.
func (f *Frame) capacity(width int) (head, body []line) {
	g := f.glyphs()
	if len(f.Snapshot.Policies) == 0 {
		return nil, nothing("The server has no policies.")
	}
	rows := make([][]cell, 0, len(f.Snapshot.Policies))
	for i := range f.Snapshot.Policies {
		p := &f.Snapshot.Policies[i]
		c := p.Forecast
		if c == nil {
			rows = append(rows, []cell{{text: g.shown(p.Name)}, {text: whyNoForecast(p), style: faint}, {}, {}, {}, {}})
			continue
		}
		look := plain
		if c.SpendableNow <= 0 {
			look = warn
		}
		rows = append(rows, []cell{
			{text: g.shown(p.Name)},
			{text: g.shown(c.Key)},
			{text: count(c.SpendableNow), style: look},
			{text: wait(c.NextReplenishAt - f.Snapshot.Meta.GeneratedAt)},
			{text: wait(c.FullAt - f.Snapshot.Meta.GeneratedAt)},
			{draw: func(w int) line {
				if p.Limit <= 0 {
					return nil
				}
				return g.bar(float64(c.SpendableNow)/float64(p.Limit), w, accent)
			}},
		})
	}
	table := g.table(width, []column{
		{name: "policy", least: 6, most: 28},
		{name: "hottest key", least: 12, most: 40},
		{name: "spendable now", right: true, least: 5},
		{name: "next unit in", right: true, least: 8, rank: 1},
		{name: "full in", right: true, least: 7, rank: 2},
		{least: 8, most: 40, grows: true, rank: 3},
	}, rows)
	return table[:1], table[1:]
}

func whyNoForecast(p *monitor.Policy) string {
	switch {
	case p.Kind == monitor.KindAdmitter:
		return "n/a: an admitter, see Guards"
	case p.ForecastUnavailable == "async":
		return "n/a: the store is not in memory"
	case p.ForecastUnavailable == "idle":
		return "n/a: no traffic"
	}
	return "n/a: no forecast"
}

// budgets is how fast tokens are spent.
func (f *Frame) budgets(width int) (head, body []line) {
	g := f.glyphs()
	var rows [][]cell
	for i := range f.Snapshot.Policies {
		p := &f.Snapshot.Policies[i]
		a := &p.Analytics
		refused, per := a.Denied, g.dash
		switch lanes := a.DeniedByLane; {
		case lanes != nil && (lanes.Cost > 0 || a.Units != float64(a.Allowed)):
			refused = lanes.Cost
		case lanes == nil && axisOf(p.PolicyKind) == axisCost:
			if p.Limit > 0 {
				per = count(p.Limit)
			}
		default:
			continue
		}
		look := plain
		if refused > 0 {
			look = warn
		}
		key, burn := g.dash, 0.0
		if len(a.TopRequested) > 0 {
			key = g.shown(a.TopRequested[0].Key)
		}
		if f.History != nil {
			burn = f.History.policies[p.Name].unitsRate
		}
		rows = append(rows, []cell{
			{text: g.shown(p.Name)},
			{text: g.safe(p.PolicyKind), style: faint},
			{text: per},
			{text: number(a.Units)},
			{text: perSecond(burn)},
			{text: count(refused), style: look},
			{text: key},
		})
	}
	if len(rows) == 0 {
		return nil, nothing("No policy spends a budget.", "A policy with tokenBudget or fleetBudget does, and one that admits at a cost.")
	}
	table := g.table(width, []column{
		{name: "policy", least: 6, most: 28},
		{name: "kind", least: 4, most: 20, rank: 3},
		{name: "budget per key", right: true, least: 6, rank: 2},
		{name: "spent", right: true, least: 5},
		{name: "burn", right: true, least: 6},
		{name: "refused", right: true, least: 4, rank: 1},
		{name: "busiest key", least: 6, most: 40, rank: 4},
	}, rows)
	return table[:1], table[1:]
}

// leases is what was lent, and which slots are held.
func (f *Frame) leases(width int) (head, body []line) {
	g := f.glyphs()
	var rows [][]cell
	for i := range f.Snapshot.Policies {
		p := &f.Snapshot.Policies[i]
		lent := p.Analytics.Leases
		if lent == nil {
			if p.PolicyKind != "federated" {
				continue
			}
			lent = &monitor.Leases{}
		}
		each, rate, limit := g.dash, 0.0, g.dash
		if lent.Granted > 0 {
			each = number(lent.Units / float64(lent.Granted))
		}
		if f.History != nil {
			rate = f.History.policies[p.Name].leasedRate
		}
		if p.Limit > 0 {
			limit = count(p.Limit)
		}
		rows = append(rows, []cell{
			{text: g.shown(p.Name)},
			{text: count(lent.Granted)},
			{text: number(lent.Units)},
			{text: each},
			{text: perSecond(rate)},
			{text: limit},
		})
	}
	if len(rows) > 0 {
		body = append(body, line{{"Budget lent to callers", title}})
		body = append(body, g.table(width, []column{
			{name: "policy", least: 6, most: 28},
			{name: "leases", right: true, least: 4},
			{name: "units", right: true, least: 5},
			{name: "each", right: true, least: 4, rank: 2},
			{name: "lent", right: true, least: 6, rank: 1},
			{name: "limit", right: true, least: 5, rank: 3},
		}, rows)...)
	}
	if len(f.Snapshot.Guards) > 0 {
		if len(body) > 0 {
			body = append(body, nil)
		}
		body = append(body, line{{"Slots held by callers", title}})
		slots := make([][]cell, 0, len(f.Snapshot.Guards))
		for i := range f.Snapshot.Guards {
			guard := &f.Snapshot.Guards[i]
			held, limit := count(int64(guard.InFlight)), count(int64(guard.Limit))
			slots = append(slots, []cell{{text: g.shown(guard.Name)}, {text: held}, {text: limit}})
		}
		body = append(body, g.table(width, []column{
			{name: "policy", least: 6, most: 28}, {name: "held", right: true, least: 4}, {name: "limit", right: true, least: 5},
		}, slots)...)
	}
	if len(body) == 0 {
		body = nothing("No budget is lent and no slot can be held.", "A federated policy lends, and one with concurrency has slots.")
	}
	return nil, body
}

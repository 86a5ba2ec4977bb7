package top

import (
	"cmp"
	"slices"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// The axes that deny, as the wire calls them; what fair shares deny has no name there.
const (
	axisRate        = "rate"
	axisConcurrency = "concurrency"
	axisCost        = "cost"
	axisFairness    = "fairness"
	axisPrice       = "policy"
)

// axisOf is what denies the requests of a policy without lanes: it has one axis only.
func axisOf(policyKind string) string {
	switch policyKind {
	case "tokenBudget", "fleetBudget":
		return axisCost
	case "fairEscrow", "federatedFairEscrow":
		return axisFairness
	}
	return axisRate
}

// axis is how much one has denied.
type axis struct {
	name   string
	denied int64
	exists bool // a policy has it
}

// axes are what denied in this window.
func axes(s *monitor.Snapshot) []axis {
	all := []axis{{name: axisRate, exists: true}, {name: axisConcurrency}, {name: axisCost}, {name: axisFairness}, {name: axisPrice}}
	add := func(name string, denied int64, exists bool) {
		i := slices.IndexFunc(all, func(a axis) bool { return a.name == name })
		all[i].denied += denied
		all[i].exists = all[i].exists || exists || denied > 0
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		if lanes := p.Analytics.DeniedByLane; lanes != nil {
			add(axisRate, lanes.Rate, true)
			add(axisConcurrency, lanes.Concurrency, true)
			add(axisCost, lanes.Cost, false)
			add(axisPrice, lanes.Policy, false)
			continue
		}
		add(axisOf(p.PolicyKind), p.Analytics.Denied, true)
	}
	return slices.DeleteFunc(all, func(a axis) bool { return !a.exists })
}

// overview is why requests are denied, whose, and which were the last.
func (f *Frame) overview(width int) (head, body []line) {
	left, right := f.bindingAxes, f.deniedKeys
	if width >= 74 {
		half := (width - 4) / 2
		head = beside(f.glyphs(), left(half), right(width-4-half), half)
	} else {
		head = append(left(width), nil)
		head = append(head, right(width)...)
	}
	if f.once || f.Rows >= 32 {
		head = append(head, nil)
		head = append(head, f.policies(width)...)
	}
	feed := f.feed(width)
	return append(head, nil, feed[0], feed[1]), feed[2:]
}

// beside puts two blocks next to each other.
func beside(g *glyphs, left, right []line, width int) []line {
	lines := make([]line, 0, max(len(left), len(right)))
	for i := range max(len(left), len(right)) {
		var l line
		if i < len(left) {
			l = left[i]
		}
		l = l.fit(g, width).add(plain, "    ")
		if i < len(right) {
			l = append(l, right[i]...)
		}
		lines = append(lines, l)
	}
	return lines
}

// bindingAxes is what share of the denials each axis has.
func (f *Frame) bindingAxes(width int) []line {
	g := f.glyphs()
	all := axes(f.Snapshot)
	var total int64
	for _, a := range all {
		total += a.denied
	}
	lines := []line{{{"Denied by", title}}}
	if total == 0 {
		return append(lines, line{{"No request was denied in this window.", faint}})
	}
	rows := make([][]cell, 0, len(all))
	for _, a := range all {
		part, name := float64(a.denied)/float64(total), a.name
		if name == axisPrice {
			name = "price"
		}
		rows = append(rows, []cell{
			{text: name},
			{draw: func(w int) line { return g.bar(part, w, warn) }},
			{text: percent(part)},
			{text: count(a.denied), style: faint},
		})
	}
	table := g.table(width, []column{
		{least: 11}, {least: 4, most: 40, grows: true, rank: 2}, {right: true, least: 4}, {right: true, least: 4, rank: 1},
	}, rows)
	return append(lines, table[1:]...)
}

// deniedKeys are the keys denied most often, in whichever policy that was.
func (f *Frame) deniedKeys(width int) []line {
	type row struct {
		monitor.KeyCount

		policy string
	}
	var rows []row
	for i := range f.Snapshot.Policies {
		p := &f.Snapshot.Policies[i]
		for _, k := range p.Analytics.TopDenied {
			at := slices.IndexFunc(rows, func(r row) bool { return r.Key == k.Key })
			switch {
			case at < 0:
				rows = append(rows, row{k, p.Name})
			case rows[at].Count < k.Count:
				rows[at] = row{k, p.Name}
			}
		}
	}
	lines := []line{{{"Denied most", title}}}
	if len(rows) == 0 {
		return append(lines, line{{"Nobody.", faint}})
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key)) })
	g := f.glyphs()
	cells := make([][]cell, 0, 5)
	for _, r := range rows[:min(5, len(rows))] {
		cells = append(cells, []cell{{text: g.shown(r.Key)}, {text: g.safe(r.policy), style: faint}, {text: count(r.Count)}})
	}
	table := g.table(width, []column{{least: 6, grows: true}, {least: 4, most: 16, rank: 1}, {right: true, least: 4}}, cells)
	return append(lines, table[1:]...)
}

// shown is a key, also one without characters.
func (g *glyphs) shown(key string) string {
	if key == "" {
		return `""`
	}
	return g.safe(key)
}

// policies is what each policy did, those that deny most first.
func (f *Frame) policies(width int) []line {
	g := f.glyphs()
	list := slices.Clone(f.Snapshot.Policies)
	lines := []line{{{"Policies", title}}}
	if len(list) == 0 {
		return append(lines, line{{"The server has none.", faint}})
	}
	if !f.once && len(list) > 6 {
		slices.SortStableFunc(list, func(a, b monitor.Policy) int {
			return cmp.Or(cmp.Compare(b.Analytics.Denied, a.Analytics.Denied), cmp.Compare(b.Analytics.Total, a.Analytics.Total))
		})
		list = list[:6]
	}
	rows := make([][]cell, 0, len(list))
	for i := range list {
		p := &list[i]
		var now past
		if f.History != nil {
			now = f.History.policies[p.Name]
		}
		look := plain
		if p.Analytics.Denied > 0 {
			look = warn
		}
		rows = append(rows, []cell{
			{text: g.shown(p.Name)},
			{text: g.safe(cmp.Or(p.Strategy, p.PolicyKind, p.Kind)), style: faint},
			{text: perSecond(now.allowedRate)},
			{text: perSecond(now.deniedRate)},
			{text: count(p.Analytics.Allowed)},
			{text: count(p.Analytics.Denied), style: look},
			{text: percent(p.Analytics.DenyRate), style: look},
		})
	}
	return append(lines, g.table(width, []column{
		{name: "policy", least: 8, most: 28},
		{name: "kind", least: 4, most: 20, rank: 4},
		{name: "allowed/s", right: true, rank: 2},
		{name: "denied/s", right: true, rank: 3},
		{name: "allowed", right: true, rank: 1},
		{name: "denied", right: true},
		{right: true, least: 4, rank: 5},
	}, rows)...)
}

// feed is a title, a head, and the latest denials, newest first.
func (f *Frame) feed(width int) []line {
	g := f.glyphs()
	denials := f.Snapshot.RecentDenials
	lines := []line{{{"Latest denials", title}}}
	if len(denials) == 0 {
		return append(lines, line{{"None is remembered.", faint}})
	}
	most := len(denials)
	if f.once {
		most = min(most, 10)
	}
	rows := make([][]cell, 0, most)
	for i := range most {
		d := &denials[len(denials)-1-i]
		retry := g.dash
		if d.Decision.RetryAfterMs > 0 {
			retry = wait(d.Decision.RetryAfterMs)
		}
		rows = append(rows, []cell{
			{text: f.clock(d.At), style: faint},
			{text: g.shown(d.Policy)},
			{text: g.shown(d.Key)},
			{text: g.safe(f.laneOf(d))},
			{text: count(d.Decision.Remaining)},
			{text: retry},
		})
	}
	return append(lines, g.table(width, []column{
		{name: "time", rank: 1},
		{name: "policy", least: 6, most: 18},
		{name: "key", least: 4, grows: true},
		{name: "axis", least: 4, most: 11, rank: 3},
		{name: "left", right: true, rank: 4},
		{name: "retry in", right: true, least: 8, rank: 2},
	}, rows)...)
}

// laneOf is what denied.
func (f *Frame) laneOf(d *monitor.Denial) string {
	if d.Lane == axisPrice {
		return "price"
	}
	if d.Lane != "" {
		return d.Lane
	}
	for i := range f.Snapshot.Policies {
		if p := &f.Snapshot.Policies[i]; p.Name == d.Policy {
			return axisOf(p.PolicyKind)
		}
	}
	return f.glyphs().dash
}

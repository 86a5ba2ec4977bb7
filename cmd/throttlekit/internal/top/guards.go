package top

import (
	"fmt"
	"slices"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// guards is how much is in flight, and how much may be.
func (f *Frame) guards(width int) (head, body []line) {
	g, list := f.glyphs(), f.Snapshot.Guards
	if len(list) == 0 {
		none := nothing("No policy limits what is in flight.", "A policy with concurrency or distributedConcurrency does.")
		return nil, append(none, f.fences()...)
	}
	within, inFlight, fleet := 0, 0, false
	rows := make([][]cell, 0, len(list))
	for i := range list {
		guard := &list[i]
		ceiling := guard.Limit
		if guard.Share != nil {
			ceiling, fleet = min(ceiling, *guard.Share), true
		}
		inFlight += guard.InFlight
		state, look, bar := "ok", good, accent
		switch {
		case guard.Fenced != nil && *guard.Fenced:
			state, look, bar = "FENCED", bad, bad
		case guard.InFlight > ceiling:
			state, look, bar = "over", warn, warn
		case guard.InFlight == ceiling:
			state, look, bar = "full", warn, warn
		}
		if guard.InFlight <= ceiling {
			within++
		}
		waiting := plain
		if guard.Waiting > 0 {
			waiting = warn
		}
		rows = append(rows, []cell{
			{text: g.shown(guard.Name)},
			{text: state, style: look},
			{text: count(int64(guard.InFlight))},
			{text: count(int64(ceiling))},
			{text: count(int64(max(0, ceiling-guard.InFlight)))},
			{text: count(int64(guard.Waiting)), style: waiting},
			{text: g.latency(guard.LastRTT)},
			{text: g.latency(guard.RTTNoLoad), style: faint},
			{text: g.optional(guard.Share)},
			{text: g.fleet(guard)},
			{draw: func(w int) line {
				if ceiling <= 0 {
					return g.bar(0, w, bar)
				}
				return g.bar(float64(guard.InFlight)/float64(ceiling), w, bar)
			}},
		})
	}
	sum := line{{plural(len(list), "guard", "guards"), plain}, {", ", faint}, {count(int64(inFlight)), plain}, {" in flight, ", faint}}
	sum = sum.add(plain, fmt.Sprintf("%d within their ceiling", within))
	if n := fenced(list); n > 0 {
		sum = sum.add(faint, ", ").add(bad, fmt.Sprintf("%d fenced", n))
	}
	cols := []column{
		{name: "guard", least: 6, most: 24},
		{name: "", least: 6},
		{name: "in flight", right: true, least: 4},
		{name: "ceiling", right: true, least: 4},
		{name: "headroom", right: true, least: 4, rank: 3},
		{name: "waiting", right: true, least: 4, rank: 2},
		{name: "latest", right: true, least: 7, rank: 4},
		{name: "no load", right: true, least: 7, rank: 5},
		{name: "share", right: true, least: 4, rank: 7},
		{name: "fleet", right: true, least: 6, rank: 6},
		{least: 8, most: 30, grows: true, rank: 1},
	}
	if !fleet {
		cols = append(cols[:8:8], cols[10])
		for i := range rows {
			rows[i] = append(rows[i][:8:8], rows[i][10])
		}
	}
	table := g.table(width, cols, rows)
	return []line{sum, nil, table[0]}, slices.Concat(table[1:], f.inFlight(width), f.fences())
}

// inFlight is how much was in flight lately, each guard in proportion to its most.
func (f *Frame) inFlight(width int) []line {
	if f.History == nil || f.once {
		return nil
	}
	g := f.glyphs()
	var rows [][]cell
	for i := range f.Snapshot.Guards {
		guard := &f.Snapshot.Guards[i]
		if past := f.History.guards[guard.Name]; len(past) > 1 {
			rows = append(rows, []cell{
				{text: g.shown(guard.Name)},
				{text: number(slices.Max(past)), style: faint},
				{draw: func(w int) line { return line{{g.spark(past, w), accent}} }},
			})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	table := g.table(width, []column{
		{name: "guard", least: 6, most: 24}, {name: "most", right: true, least: 4}, {least: 8, most: guardHistory, grows: true},
	}, rows)
	return append([]line{nil, {{"In flight lately", title}}}, table...)
}

// optional is a number that may be unknown.
func (g *glyphs) optional(n *int) string {
	if n == nil {
		return g.dash
	}
	return count(int64(*n))
}

// fleet is the ceiling of all servers together, and how many they are.
func (g *glyphs) fleet(guard *monitor.Guard) string {
	if guard.LGlobal == nil {
		return g.dash
	}
	text := count(int64(*guard.LGlobal))
	if guard.Nodes != nil {
		text += " / " + plural(*guard.Nodes, "node", "nodes")
	}
	return text
}

// fences are the last times that guards stopped admitting, the latest first.
func (f *Frame) fences() []line {
	list := f.Snapshot.RecentFences
	if len(list) == 0 {
		return nil
	}
	lines := []line{nil, {{"Latest fences", title}}}
	for i := len(list) - 1; i >= max(0, len(list)-5); i-- {
		lines = append(lines, line{{f.clock(list[i].At), faint}, {"  ", plain}, {f.glyphs().shown(list[i].Guard), plain}})
	}
	return lines
}

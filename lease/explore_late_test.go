package lease

import (
	"fmt"
	"slices"
	"testing"

	"github.com/throttlekit/throttlekit-go"
)

// lateModel is one row of the table of module GaleLateLeasing.
type lateModel struct {
	nodes, limit, batch, lowWater, waiting int
	coupled                                bool
	states, most                           int
}

// onItsWay is a grant that has not arrived.
type onItsWay struct{ units, resetAt int64 }

// lateFleet is a state: that of a windowFleet and what is on its way to each node.
type lateFleet struct {
	windowFleet

	coming []onItsWay
}

func (f lateFleet) clone() lateFleet {
	f.windowFleet = f.windowFleet.clone()
	f.coming = slices.Clone(f.coming)
	return f
}

type lateKey struct {
	windowKey

	coming [4]int64
	late   [4]bool
}

func TestExploreLateGrants(t *testing.T) {
	t.Parallel()
	models := []lateModel{
		{nodes: 2, limit: 4, batch: 2, states: 187, most: 8},
		{nodes: 2, limit: 4, batch: 2, lowWater: 1, states: 539, most: 10},
		{nodes: 3, limit: 6, batch: 2, states: 1396, most: 12},
		{nodes: 2, limit: 4, batch: 2, coupled: true, states: 43, most: 4},
		{nodes: 2, limit: 4, batch: 2, coupled: true, waiting: 1, states: 109, most: 6},
		{nodes: 2, limit: 4, batch: 2, coupled: true, waiting: 2, states: 175, most: 8},
		{nodes: 2, limit: 4, batch: 2, coupled: true, lowWater: 1, waiting: 2, states: 207, most: 8},
		{nodes: 3, limit: 6, batch: 3, coupled: true, waiting: 1, states: 682, most: 9},
	}
	for _, m := range models {
		t.Run(fmt.Sprintf("nodes=%d limit=%d batch=%d lowWater=%d waiting=%d coupled=%t",
			m.nodes, m.limit, m.batch, m.lowWater, m.waiting, m.coupled), func(t *testing.T) {
			t.Parallel()
			m.explore(t)
		})
	}
}

func (m lateModel) explore(t *testing.T) {
	t.Helper()
	plain := windowModel{nodes: m.nodes, limit: m.limit, batch: m.batch, partial: true, coupled: m.coupled}
	rules := plain.rules(t)
	first := lateFleet{windowFleet: plain.first(t), coming: make([]onItsWay, m.nodes)}
	states := explore(t, first, func(f lateFleet) lateKey { return m.key(rules, f) }, func(f lateFleet, visit func(lateFleet)) {
		for node := range f.nodes {
			m.serve(f, node, visit)
			m.debit(rules, f, node, visit)
			m.arrive(f, node, visit)
		}
		rolled := f.clone()
		rolled.now += exploredWindow.Milliseconds()
		rolled.admitted = 0
		visit(rolled)
	})
	if len(states) != m.states {
		t.Errorf("%d distinct states instead of %d", len(states), m.states)
	}
	if got := most(states, func(f lateFleet) int { return f.admitted }); got != m.most {
		t.Errorf("a window answers up to %d requests instead of %d", got, m.most)
	}
}

func (m lateModel) key(rules windowRules, f lateFleet) lateKey {
	k := lateKey{windowKey: rules.key(f.windowFleet)}
	for i, c := range f.coming {
		k.coming[i], k.late[i] = c.units, m.late(f, i)
	}
	return k
}

// late reports whether what is on its way to a node was debited in a window that is over.
func (m lateModel) late(f lateFleet, node int) bool {
	c := f.coming[node]
	return m.coupled && c.units > 0 && c.resetAt <= f.now
}

func (m lateModel) serve(f lateFleet, node int, visit func(lateFleet)) {
	next := f.clone()
	if _, ok := next.nodes[node].Spend(f.now, 1); ok {
		next.admitted++
		visit(next)
	}
}

func (m lateModel) debit(rules windowRules, f lateFleet, node int, visit func(lateFleet)) {
	if f.coming[node].units > 0 || f.nodes[node].Credits(f.now) > float64(m.lowWater) {
		return
	}
	next := f.clone()
	var d throttlekit.Decision
	if next.record, d, _ = rules.lease.Apply(f.record, f.now, float64(m.batch)); d.Allowed {
		next.coming[node] = onItsWay{d.Remaining, d.ResetAtMillis}
		visit(next)
	}
}

// arrive hands a grant to the node. Of one that is late, the requests that waited for it
// take their part first; the Spender sees to the rest.
func (m lateModel) arrive(f lateFleet, node int, visit func(lateFleet)) {
	c := f.coming[node]
	if c.units == 0 {
		return
	}
	waiting := 0
	if m.late(f, node) {
		waiting = min(m.waiting, int(c.units))
	}
	for served := 0; served <= waiting; served++ {
		next := f.clone()
		next.coming[node] = onItsWay{}
		next.admitted += served
		next.nodes[node].Grant(float64(int(c.units)-served), c.resetAt)
		visit(next)
	}
}

package lease

import (
	"slices"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// chainModel is a chain of loans, one tick for each millisecond: a coordinator lends to the
// escrow of a region, and that to the processes of the region. Every message takes as
// long as it likes, every clock shows something else.
type chainModel struct {
	window                      int64
	limit, batch, regionalBatch int

	// What the chain must not do.
	fromArrival bool // a process's units last from when they arrive
	lateFill    bool // the escrow's units last from when they arrive there

	breaks bool // whether a window admits more than the limit
}

const (
	regionAhead  = 1_000_003 // of the coordinator's clock
	processAhead = 7
)

// What a process of the region is at.
const (
	resting    = iota // nothing is under way
	atEscrow          // it asks the escrow
	atLender          // it asks the coordinator
	puttingBy         // it fills the escrow with what it does not need
	comingHome        // its units are on their way
)

// chainNode is one process. Its times are those of the clocks that it took them from.
type chainNode struct {
	phase          int
	sent, since    int64
	lasts          time.Duration
	units, surplus int
	resetAt        int64
	spender        Spender
}

// chain is a state. now is the coordinator's time.
type chain struct {
	now      int64
	budget   throttlekit.Record
	escrow   throttlekit.Record
	nodes    []chainNode
	admitted int
}

func (c chain) clone() chain {
	c.nodes = slices.Clone(c.nodes)
	return c
}

func (c chain) region() int64  { return c.now + regionAhead }
func (c chain) process() int64 { return c.now + processAhead }

type chainNodeKey struct {
	phase, units, surplus, credits        int
	age, deadline, since, expires, source int64
}

type chainKey struct {
	now               int64
	left              int64
	admitted, balance int
	lasts, source     int64
	nodes             [2]chainNodeKey
}

// ahead is how far a time lies ahead of now; what is past is all the same.
func ahead(at, now int64) int64 { return max(0, at-now) }

func (m chainModel) key(c chain, rule throttlekit.Rule) chainKey {
	source, _ := c.escrow.Extra.(int64)
	k := chainKey{
		now: c.now % m.window, left: rule.Peek(c.budget, c.now).Remaining, admitted: c.admitted, source: ahead(source, c.now),
	}
	if c.escrow.A > 0 && k.source > 0 {
		k.lasts, k.balance = ahead(int64(c.escrow.B), c.region()), int(c.escrow.A)
	}
	for i := range c.nodes {
		k.nodes[i] = m.nodeKey(c, c.nodes[i])
	}
	slices.SortFunc(k.nodes[:], chainNodeKey.compare) // processes are alike
	return k
}

// compare is some order of keys.
func (k chainNodeKey) compare(other chainNodeKey) int {
	return slices.Compare(k.numbers(), other.numbers())
}

func (k chainNodeKey) numbers() []int64 {
	return []int64{
		int64(k.phase), int64(k.units), int64(k.surplus), int64(k.credits), k.age, k.deadline, k.since, k.expires, k.source,
	}
}

func (m chainModel) nodeKey(c chain, n chainNode) chainNodeKey {
	k := chainNodeKey{phase: n.phase, units: n.units, surplus: n.surplus, credits: int(n.spender.Credits(c.process()))}
	if k.credits > 0 {
		k.deadline = ahead(n.spender.expiresAt, c.process())
	}
	switch n.phase {
	case atEscrow:
		k.age = min(m.window-2, c.process()-n.sent)
	case atLender:
		k.age, k.since = min(m.window-2, c.process()-n.sent), min(m.window-2, c.region()-n.since)
	case puttingBy, comingHome:
		if n.surplus > 0 {
			k.expires, k.source = ahead(m.fillExpires(c, n), c.region()), ahead(n.resetAt, c.now)
		}
		if n.units > 0 {
			k.deadline = ahead(m.deadline(c, n), c.process())
		}
	}
	return k
}

// deadline is how long the units of a process are good, on its clock.
func (m chainModel) deadline(c chain, n chainNode) int64 {
	if m.fromArrival {
		return c.process() + usable(n.lasts)
	}
	return n.sent + usable(n.lasts)
}

// fillExpires is how long the units of the escrow are good, on the region's clock.
func (m chainModel) fillExpires(c chain, n chainNode) int64 {
	if m.lateFill {
		return c.region() + usable(n.lasts)
	}
	return n.since + usable(n.lasts)
}

// step is what one process can do.
func (m chainModel) step(lend throttlekit.Transition, c chain, node int, visit func(chain)) {
	c = c.clone()
	n := &c.nodes[node]
	switch n.phase {
	case resting:
		if _, ok := n.spender.Spend(c.process(), 1); ok {
			c.admitted++
		} else {
			n.phase, n.sent = atEscrow, c.process()
		}
	case atEscrow:
		var d throttlekit.Decision
		if c.escrow, d, _ = apply(escrowLease{}, c.escrow, c.region(), m.batch); d.Allowed {
			m.serve(&c, n, d, m.batch)
		} else {
			n.phase, n.since = atLender, d.ResetAtMillis-d.RetryAfterMillis
		}
	case atLender:
		var d throttlekit.Decision
		if c.budget, d, _ = apply(lend, c.budget, c.now, max(m.batch, m.regionalBatch)); d.Allowed {
			m.serve(&c, n, d, m.batch)
		} else {
			*n = chainNode{spender: n.spender}
		}
	case puttingBy:
		fill := escrowFill{source: n.resetAt, expires: m.fillExpires(c, *n)}
		c.escrow, _, _ = apply(fill, c.escrow, c.region(), n.surplus)
		n.phase, n.surplus, n.since = comingHome, 0, 0
	case comingHome:
		n.spender.Reset()
		n.spender.Grant(float64(n.units), m.deadline(c, *n))
		*n = chainNode{spender: n.spender}
	}
	visit(c)
}

func apply(t throttlekit.Transition, rec throttlekit.Record, now int64, cost int) (throttlekit.Record, throttlekit.Decision, int64) {
	return t.Apply(rec, now, float64(cost))
}

// serve takes what a lease brought: one unit for the request that waits for it, which counts
// at the debit, up to a batch for the process, and the rest for the escrow.
func (m chainModel) serve(c *chain, n *chainNode, d throttlekit.Decision, batch int) {
	g := grantOf(d)
	c.admitted++
	n.lasts, n.resetAt = g.ResetsIn, g.ResetAtMillis
	n.units = min(int(g.Units), batch) - 1
	n.surplus = max(0, int(g.Units)-batch)
	n.phase = comingHome
	if n.surplus > 0 {
		n.phase = puttingBy
	}
}

func (m chainModel) explore(t *testing.T) {
	t.Helper()
	rules := federatedRules(t, throttlekit.FixedWindow{Limit: float64(m.limit), Window: time.Duration(m.window) * time.Millisecond})
	first := chain{now: 1000 * m.window, nodes: make([]chainNode, 2)}
	states := explore(t, first, func(c chain) chainKey { return m.key(c, rules.rule) }, func(c chain, visit func(chain)) {
		if c.admitted > m.limit {
			return // seen enough
		}
		for node := range c.nodes {
			m.step(rules.lease, c, node, visit)
		}
		next := c.clone()
		next.now++
		if next.now%m.window == 0 {
			next.admitted = 0
		}
		visit(next)
	})
	want := m.limit
	if m.breaks {
		want++
	}
	if got := most(states, func(c chain) int { return c.admitted }); got != want {
		t.Errorf("a window admits up to %d units instead of %d, in %d states", got, want, len(states))
	}
}

// TestExploreEscrow goes through all delays of a federation with a regional escrow.
func TestExploreEscrow(t *testing.T) {
	t.Parallel()
	single := chainModel{window: 6, limit: 3, batch: 1, regionalBatch: 2}
	several := chainModel{window: 6, limit: 4, batch: 2, regionalBatch: 4}
	fromArrival, lateFill := several, several
	fromArrival.fromArrival, fromArrival.breaks = true, true
	lateFill.lateFill, lateFill.breaks = true, true
	for name, m := range map[string]chainModel{
		"one by one": single, "in batches": several, "age from arrival": fromArrival, "age from filling": lateFill,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.explore(t)
		})
	}
}

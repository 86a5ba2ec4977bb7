package lease

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// A tick of these models is a millisecond.

// What a node of the time-coupled models is at.
const (
	idle = iota
	sent
	granted
	holding
)

// timeNode is one node: its lease, and the Spender that has it once it has arrived.
type timeNode struct {
	phase   int
	since   int64 // when the request was sent, or the grant arrived if age counts from there
	units   int   // granted and not yet arrived
	spender Spender
}

// timeLease are the constants that both time-coupled models share.
type timeLease struct {
	nodes, batch int
	life         int64 // credits may be spent at this age, not later
	fromArrival  bool  // their age counts from the arrival of the grant
}

// credits is what a node holds at a time. A node whose credits have died is idle.
func (l timeLease) credits(n timeNode, now int64) int { return int(n.spender.Credits(now)) }

func (l timeLease) settle(n timeNode, now int64) timeNode {
	if n.phase == holding && l.credits(n, now) == 0 {
		n.forget()
	}
	return n
}

func (n *timeNode) forget() {
	n.phase, n.since, n.units = idle, 0, 0
	n.spender.Reset()
}

func (l timeLease) age(n timeNode, now int64) int64 {
	if n.phase == idle {
		return 0
	}
	return min(l.life+1, now-n.since)
}

// dead reports whether a grant is over before it arrives.
func (l timeLease) dead(n timeNode, now int64) bool { return !l.fromArrival && now-n.since > l.life }

// arrive makes what is on its way spendable.
func (l timeLease) arrive(n *timeNode, now int64) {
	if l.fromArrival {
		n.since = now
	}
	n.phase = holding
	n.spender.Grant(float64(n.units), n.since+l.life+1)
	n.units = 0
}

// leaseUnits takes exactly this many units.
func leaseUnits(rule throttlekit.Rule, record throttlekit.Record, now int64, units int) (throttlekit.Record, bool) {
	next, d, _ := throttlekit.UpTo(rule, float64(units)).Apply(record, now, float64(units))
	return next, d.Allowed && d.Remaining == int64(units)
}

type timeNodeKey struct {
	phase, units int
	age          int64
}

func (l timeLease) key(n timeNode, now int64) timeNodeKey {
	return timeNodeKey{phase: n.phase, age: l.age(n, now), units: n.units + l.credits(n, now)}
}

// bucketModel is one row of the table of module GaleTimeCoupledLeasing. Its bucket refills
// rate parts in a tick, and one unit costs unit parts.
type bucketModel struct {
	timeLease

	burst, shared, rate, unit int
	waiting                   int
	atArrival                 bool // requests that wait count when the grant arrives, not at the debit
	states                    int  // 0 if the bound does not hold
	most                      int  // parts above what the rate explains; 0 stands for the burst
}

type bucketFleet struct {
	now    int64
	record throttlekit.Record
	nodes  []timeNode
	excess int // parts admitted beyond the rate
}

type bucketKey struct {
	level, excess int
	nodes         [3]timeNodeKey
}

func (f bucketFleet) clone() bucketFleet {
	f.nodes = slices.Clone(f.nodes)
	return f
}

// strategies are those whose envelope the model is about, and how many parts their
// records have at a time.
func (m bucketModel) strategies() map[throttlekit.Deferrable]func(throttlekit.Record, int64) int {
	rate := float64(m.rate) / float64(m.unit)
	full := float64(m.shared * m.unit)
	return map[throttlekit.Deferrable]func(throttlekit.Record, int64) int{
		throttlekit.GCRA{
			Limit: float64(m.rate), Period: time.Duration(m.unit) * time.Millisecond, Burst: float64(m.burst),
		}: func(rec throttlekit.Record, now int64) int {
			return int(full - max(0, rec.A-float64(now))*float64(m.rate))
		},
		throttlekit.TokenBucket{Capacity: float64(m.burst), RefillPerSec: 1000 * rate}: func(rec throttlekit.Record, now int64) int {
			if rec.B == 0 {
				return int(full)
			}
			return int(min(full, (rec.A+(float64(now)-(rec.B-1))*rate)*float64(m.unit)))
		},
	}
}

// charged is the rule that nodes lease from. Where the model keeps to what the strategy
// asks for, it is the strategy's own answer.
func (m bucketModel) charged(t *testing.T, strategy throttlekit.Deferrable) throttlekit.Rule {
	t.Helper()
	var lent throttlekit.Strategy
	switch s := strategy.(type) {
	case throttlekit.GCRA:
		s.Burst = float64(m.shared)
		lent = s
	case throttlekit.TokenBucket:
		s.Capacity = float64(m.shared)
		lent = s
	}
	if m.states > 0 {
		deferred, err := strategy.Defer(time.Duration(m.life) * time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if deferred != lent {
			t.Fatalf("the strategy charges by %+v and the model by %+v", deferred, lent)
		}
	}
	rule, err := lent.Rule()
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func TestExploreTimeCoupled(t *testing.T) {
	t.Parallel()
	sound := func(nodes, batch, burst, shared, rate, unit int, life int64, states int) bucketModel {
		return bucketModel{
			timeLease: timeLease{nodes: nodes, batch: batch, life: life},
			burst:     burst, shared: shared, rate: rate, unit: unit, waiting: batch, states: states,
		}
	}
	ahead := sound(2, 2, 4, 2, 1, 1, 2, 1877)
	ahead.waiting = 0
	answered := sound(2, 2, 4, 2, 1, 1, 2, 2437)
	answered.waiting, answered.atArrival, answered.most = 1, true, 5
	fraction := sound(2, 2, 3, 2, 1, 2, 1, 1234)
	fraction.most = 5
	notReduced := sound(2, 2, 4, 4, 1, 1, 2, 0)
	notReduced.most = 6
	oneLess := sound(2, 2, 4, 3, 1, 1, 2, 0)
	oneLess.most = 5
	tooOld := sound(2, 2, 4, 2, 1, 1, 3, 0)
	tooOld.most = 5
	fromArrival := sound(2, 2, 4, 2, 1, 1, 2, 0)
	fromArrival.fromArrival, fromArrival.most = true, 6
	for name, m := range map[string]bucketModel{
		"two nodes":                sound(2, 2, 4, 2, 1, 1, 2, 1913),
		"fetched ahead":            ahead,
		"one node":                 sound(1, 4, 4, 2, 1, 1, 2, 124),
		"three nodes":              sound(3, 1, 3, 2, 1, 1, 1, 3410),
		"one unit in two ticks":    sound(2, 2, 3, 2, 1, 2, 2, 2782),
		"half a unit in the time":  fraction,
		"two units in a tick":      sound(2, 3, 6, 2, 2, 1, 2, 3047),
		"counted when answered":    answered,
		"burst not reduced":        notReduced,
		"burst reduced too little": oneLess,
		"credits live too long":    tooOld,
		"age from arrival":         fromArrival,
	} {
		for strategy, level := range m.strategies() {
			t.Run(fmt.Sprintf("%s/%T", name, strategy), func(t *testing.T) {
				t.Parallel()
				m.explore(t, m.charged(t, strategy), level)
			})
		}
	}
}

func (m bucketModel) explore(t *testing.T, rule throttlekit.Rule, level func(throttlekit.Record, int64) int) {
	t.Helper()
	first := bucketFleet{now: 1_000_000, nodes: make([]timeNode, m.nodes)}
	key := func(f bucketFleet) bucketKey {
		k := bucketKey{level: level(f.record, f.now), excess: f.excess}
		for i := range f.nodes {
			k.nodes[i] = m.key(f.nodes[i], f.now)
		}
		return k
	}
	states := explore(t, first, key, func(f bucketFleet, visit func(bucketFleet)) {
		for node := range f.nodes {
			m.step(rule, f, node, visit)
		}
		next := f.clone()
		next.now++
		next.excess = max(0, f.excess-m.rate)
		for i := range next.nodes {
			next.nodes[i] = m.settle(next.nodes[i], next.now)
		}
		visit(next)
	})
	if m.states > 0 && len(states) != m.states {
		t.Errorf("%d distinct states instead of %d", len(states), m.states)
	}
	if got, want := most(states, func(f bucketFleet) int { return f.excess }), cmp.Or(m.most, m.burst*m.unit); got != want {
		t.Errorf("a moment admits up to %d/%d units instead of %d/%d", got, m.unit, want, m.unit)
	}
}

// step is what one node can do.
func (m bucketModel) step(rule throttlekit.Rule, f bucketFleet, node int, visit func(bucketFleet)) {
	switch next := f.clone(); next.nodes[node].phase {
	case idle:
		next.nodes[node].phase, next.nodes[node].since = sent, f.now
		visit(next)
	case sent:
		m.debit(rule, f, node, visit)
	case granted:
		m.land(f, node, visit)
	case holding:
		if _, ok := next.nodes[node].spender.Spend(f.now, 1); ok {
			next.excess += m.unit
			next.nodes[node] = m.settle(next.nodes[node], f.now)
			visit(next)
		}
	}
}

func (m bucketModel) debit(rule throttlekit.Rule, f bucketFleet, node int, visit func(bucketFleet)) {
	for units := 1; units <= m.batch; units++ {
		record, ok := leaseUnits(rule, f.record, f.now, units)
		if !ok {
			return
		}
		waiting := min(m.waiting, units)
		if m.atArrival {
			waiting = 0
		}
		for served := 0; served <= waiting; served++ {
			next := f.clone()
			next.record = record
			next.excess += served * m.unit
			next.nodes[node].phase, next.nodes[node].units = granted, units-served
			if served == units {
				next.nodes[node].forget()
			}
			visit(next)
		}
	}
}

func (m bucketModel) land(f bucketFleet, node int, visit func(bucketFleet)) {
	if !m.dead(f.nodes[node], f.now) {
		next := f.clone()
		m.arrive(&next.nodes[node], f.now)
		visit(next)
		return
	}
	waiting := 0
	if m.atArrival {
		waiting = min(m.waiting, f.nodes[node].units)
	}
	for served := 0; served <= waiting; served++ {
		next := f.clone()
		next.excess += served * m.unit
		n := &next.nodes[node]
		n.units -= served
		m.arrive(n, f.now)
		next.nodes[node] = m.settle(*n, f.now)
		visit(next)
	}
}

// logModel is one row of the table of module GaleTimeCoupledLog.
type logModel struct {
	timeLease

	limit          int
	window, shared int64
	states         int // 0 if the bound does not hold
	most           int
}

// event is a number of units at a time.
type event struct {
	at    int64
	units int
}

type logFleet struct {
	now    int64
	record throttlekit.Record
	nodes  []timeNode
	debits []event // what the record stands for
	spent  []event
}

func (f logFleet) clone() logFleet {
	f.nodes, f.debits, f.spent = slices.Clone(f.nodes), slices.Clone(f.debits), slices.Clone(f.spent)
	return f
}

type logKey struct {
	debits, spent [4]int
	nodes         [2]timeNodeKey
}

// recent is how many units there were at each age below width, and in all.
func recent(events []event, now, width int64) (ages [4]int, total int) {
	for _, e := range events {
		if age := now - e.at; age < width {
			ages[age] += e.units
			total += e.units
		}
	}
	return ages, total
}

func (m logModel) admitted(f logFleet) int {
	_, total := recent(f.spent, f.now, m.window)
	return total
}

func TestExploreTimeCoupledLog(t *testing.T) {
	t.Parallel()
	lease := func(batch int, life int64) timeLease { return timeLease{nodes: 2, batch: batch, life: life} }
	fromArrival := lease(2, 1)
	fromArrival.fromArrival = true
	for name, m := range map[string]logModel{
		"two nodes":            {timeLease: lease(2, 1), limit: 2, window: 2, shared: 3, states: 1411, most: 2},
		"longer life":          {timeLease: lease(2, 2), limit: 2, window: 2, shared: 4, states: 3208, most: 2},
		"higher limit":         {timeLease: lease(3, 1), limit: 3, window: 2, shared: 3, states: 5749, most: 3},
		"log not lengthened":   {timeLease: lease(2, 1), limit: 2, window: 2, shared: 2, most: 4},
		"log a tick too short": {timeLease: lease(2, 2), limit: 2, window: 2, shared: 3, most: 4},
		"age from arrival":     {timeLease: fromArrival, limit: 2, window: 2, shared: 3, most: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.explore(t)
		})
	}
}

func (m logModel) charged(t *testing.T) throttlekit.Rule {
	t.Helper()
	promised := throttlekit.SlidingWindowLog{Limit: float64(m.limit), Window: time.Duration(m.window) * time.Millisecond}
	lent := promised
	lent.Window = time.Duration(m.shared) * time.Millisecond
	if m.states > 0 {
		deferred, err := promised.Defer(time.Duration(m.life) * time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if deferred != throttlekit.Strategy(lent) {
			t.Fatalf("the strategy charges by %+v and the model by %+v", deferred, lent)
		}
	}
	rule, err := lent.Rule()
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func (m logModel) explore(t *testing.T) {
	t.Helper()
	rule := m.charged(t)
	key := func(f logFleet) logKey {
		var k logKey
		k.debits, _ = recent(f.debits, f.now, m.shared)
		k.spent, _ = recent(f.spent, f.now, m.window)
		for i := range f.nodes {
			k.nodes[i] = m.key(f.nodes[i], f.now)
		}
		return k
	}
	first := logFleet{now: 1_000_000, nodes: make([]timeNode, m.nodes)}
	states := explore(t, first, key, func(f logFleet, visit func(logFleet)) {
		for node := range f.nodes {
			m.step(rule, f, node, visit)
		}
		next := f.clone()
		next.now++
		for i := range next.nodes {
			next.nodes[i] = m.settle(next.nodes[i], next.now)
		}
		visit(next)
	})
	if m.states > 0 && len(states) != m.states {
		t.Errorf("%d distinct states instead of %d", len(states), m.states)
	}
	if got := most(states, m.admitted); got != m.most {
		t.Errorf("a window admits up to %d units instead of %d", got, m.most)
	}
}

// step is what one node can do.
func (m logModel) step(rule throttlekit.Rule, f logFleet, node int, visit func(logFleet)) {
	switch next := f.clone(); next.nodes[node].phase {
	case idle:
		next.nodes[node].phase, next.nodes[node].since = sent, f.now
		visit(next)
	case sent:
		for units := 1; units <= m.batch; units++ {
			record, ok := leaseUnits(rule, f.record, f.now, units)
			if !ok {
				return
			}
			next = f.clone()
			next.record, next.debits = record, append(next.debits, event{f.now, units})
			next.nodes[node].phase, next.nodes[node].units = granted, units
			visit(next)
		}
	case granted:
		m.arrive(&next.nodes[node], f.now)
		next.nodes[node] = m.settle(next.nodes[node], f.now)
		visit(next)
	case holding:
		if _, ok := next.nodes[node].spender.Spend(f.now, 1); ok {
			next.spent = append(next.spent, event{f.now, 1})
			next.nodes[node] = m.settle(next.nodes[node], f.now)
			visit(next)
		}
	}
}

package concurrency

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// The tests named TestExplore go through every interleaving of what the nodes of a fleet can do,
// with the real heartbeat. Two of them have the constants and the states of the models in spec/ and
// expect as many of them; the third has states of its own, in which nodes die and come back.

// explored is what a walk through all states has found.
type explored struct {
	states int
	depth  int // the longest of the shortest ways to a state; the first counts
	most   int // the largest value of a state
	over   int // the depth at which a value was first above the bound, or 0
}

// walk goes through the states breadth first, until a value is above a bound.
func walk[S comparable](first []S, bound int, value func(S) int, next func(S, func(S))) (found explored) {
	seen := make(map[S]struct{})
	var level []S
	visit := func(s S) {
		if _, ok := seen[s]; !ok {
			seen[s] = struct{}{}
			level = append(level, s)
		}
	}
	for _, s := range first {
		visit(s)
	}
	for len(level) > 0 && found.over == 0 {
		found.depth++
		now := level
		level = nil
		for _, s := range now {
			v := value(s)
			found.most = max(found.most, v)
			if v > bound {
				found.over = found.depth
				break
			}
			next(s, visit)
		}
	}
	found.states = len(seen)
	return found
}

const (
	exploredNodes = 3
	exploredNow   = 1_000
	exploredTTL   = time.Second
)

func exploredName(i int) string { return string(rune('a' + i)) }

// beatOn applies a beat of node i to the members of a record, and returns what it makes of that
// node and what it answers. It must leave the others alone.
func beatOn(t *testing.T, c *Ceiling, members []member, i, limit, inFlight int, seq, applied int64) (member, Share) {
	t.Helper()
	move, err := c.Beat(Report{
		Node: exploredName(i), Limit: limit, InFlight: inFlight, TTL: exploredTTL, Seq: seq, Applied: applied,
	})
	if err != nil {
		t.Fatal(err)
	}
	next, d, _ := move.Apply(throttlekit.Record{Extra: members}, exploredNow, 1)
	after, _ := next.Extra.([]member)
	if !d.Allowed || int(d.Limit) != limit || int(d.RetryAfterMillis) != len(after) {
		t.Fatalf("a beat was answered by %+v", d)
	}
	for _, m := range members {
		if k, ok := find(after, m.name); m.name != exploredName(i) && (!ok || after[k] != m) {
			t.Fatalf("a beat of %s made %+v of %+v", exploredName(i), after, members)
		}
	}
	place, _ := find(after, exploredName(i))
	return after[place], ShareOf(d)
}

func exploredCeiling(t *testing.T, config CeilingConfig) *Ceiling {
	t.Helper()
	c, err := NewCeiling(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// someNodes visits every set of nodes but the empty one.
func someNodes(nodes int, visit func(active [exploredNodes]bool)) {
	for set := 1; set < 1<<nodes; set++ {
		var active [exploredNodes]bool
		for i := range nodes {
			active[i] = set>>i&1 == 1
		}
		visit(active)
	}
}

func others(active [exploredNodes]bool, i int) bool {
	active[i] = false
	return active != [exploredNodes]bool{}
}

// syncState is a state of module GaleHeartbeatLeasing: what nodes have in flight is known at once.
type syncState struct {
	active          [exploredNodes]bool
	share, inFlight [exploredNodes]int
}

// heldRule is one of those that the bounds rest on.
type heldRule int

const (
	noRule       heldRule = iota
	flightCounts          // requests in flight count as held
	othersCount           // what others hold counts
	issuedCounts          // so does what a node may still go by
	atOneMoment           // grant and requests in flight are reported at one moment
)

// syncModel is one row of the table of that module.
type syncModel struct {
	nodes, limit        int
	allocation          Allocation
	broken              heldRule
	states, depth, most int // depth 0 if it is not published
}

func (m syncModel) members(s syncState, but int) []member {
	var members []member
	for i := range m.nodes {
		if !s.active[i] {
			continue
		}
		n := member{
			name: exploredName(i), limit: int64(m.limit), expires: math.MaxInt32,
			share: int64(s.share[i]), inFlight: int64(s.inFlight[i]),
		}
		if i != but && m.broken != noRule {
			n.inFlight = 0
			if m.broken == othersCount {
				n.share = 0
			}
		}
		members = append(members, n)
	}
	return members
}

func (m syncModel) explore(t *testing.T) {
	t.Helper()
	c := exploredCeiling(t, CeilingConfig{Allocation: m.allocation})
	var first []syncState
	someNodes(m.nodes, func(active [exploredNodes]bool) { first = append(first, syncState{active: active}) })
	shares := 0
	got := walk(first, 2*m.limit, func(s syncState) int {
		total, flying := 0, 0
		for i := range s.share {
			total, flying = total+s.share[i], flying+s.inFlight[i]
		}
		shares = max(shares, total)
		return flying
	}, func(s syncState, visit func(syncState)) {
		for i := range m.nodes {
			if !s.active[i] {
				join := s
				join.active[i] = true
				visit(join)
				continue
			}
			beat := s
			_, share := beatOn(t, c, m.members(s, i), i, m.limit, s.inFlight[i], 1, -1)
			beat.share[i] = share.Slots
			visit(beat)
			if others(s.active, i) {
				visit(m.leave(t, c, s, i))
			}
			if s.inFlight[i] < s.share[i] {
				acquire := s
				acquire.inFlight[i]++
				visit(acquire)
			}
			if s.inFlight[i] > 0 {
				release := s
				release.inFlight[i]--
				visit(release)
			}
		}
	})
	wantShares := m.limit
	if m.broken == othersCount {
		wantShares = m.most
	}
	if got.states != m.states || got.most != m.most || m.depth > 0 && got.depth != m.depth || shares != wantShares {
		t.Errorf("got %+v and shares of %d", got, shares)
	}
}

// leave takes a node out of the record by the real transition.
func (m syncModel) leave(t *testing.T, c *Ceiling, s syncState, i int) syncState {
	t.Helper()
	move, err := c.Leave(exploredName(i), "")
	if err != nil {
		t.Fatal(err)
	}
	next, d, _ := move.Apply(throttlekit.Record{Extra: m.members(s, i)}, exploredNow, 1)
	s.active[i], s.share[i], s.inFlight[i] = false, 0, 0
	after, _ := next.Extra.([]member)
	want := m.members(s, i)
	if !d.Allowed || len(after) != len(want) {
		t.Fatalf("left %+v, %+v", after, d)
	}
	return s
}

// TestExploreHeartbeats expects the numbers of states that are published for beats that are
// answered at once, and those that the model checker finds.
func TestExploreHeartbeats(t *testing.T) {
	t.Parallel()
	for _, m := range []syncModel{
		{2, 4, EqualSplit, noRule, 76, 12, 4},
		{2, 6, EqualSplit, noRule, 149, 0, 6},
		{3, 6, EqualSplit, noRule, 1432, 0, 6},
		{3, 4, EqualSplit, noRule, 459, 0, 4}, // the model of 361 states rounds all parts up
		{2, 4, DemandProportional, noRule, 112, 9, 4},
		{2, 6, DemandProportional, noRule, 292, 0, 6},
		{3, 4, DemandProportional, noRule, 635, 0, 4},
		{3, 6, DemandProportional, noRule, 2547, 0, 6},
		{3, 2, DemandProportional, noRule, 103, 0, 2},
		{2, 4, EqualSplit, flightCounts, 64, 0, 6},
		{2, 4, EqualSplit, othersCount, 94, 0, 6},
	} {
		t.Run(fmt.Sprintf("nodes=%d limit=%d %s broken=%d", m.nodes, m.limit, m.allocation, m.broken), func(t *testing.T) {
			t.Parallel()
			m.explore(t)
		})
	}
}

// lateGrants bounds how many grants a state can remember.
const lateGrants = 3

// lateNode is one node's part of a state of module GaleHeartbeatHandoff. Grants are counted from 1.
type lateNode struct {
	sent              [lateGrants]int8
	count             int8 // of sent
	applied, known    int8 // the grant that it goes by, and that it has said that it goes by; or 0
	inFlight, reports int8 // its requests, and how many it has said to have
}

func (n *lateNode) at(i int8) int8 {
	if i == 0 {
		return 0
	}
	return n.sent[i-1]
}

// open is the largest share that the node may still go by.
func (n *lateNode) open() (most int8) {
	for i := max(1, n.known); i <= n.count; i++ {
		most = max(most, n.at(i))
	}
	return most
}

// changed is the first of the last grants that are all the same.
func (n *lateNode) changed() int8 {
	i := n.count
	for i > 1 && n.at(i-1) == n.at(n.count) {
		i--
	}
	return i
}

// trim forgets the grants that can matter no longer.
func (n *lateNode) trim() {
	drop := min(max(n.applied, 1), max(n.known, 1)) - 1
	if drop == 0 {
		return
	}
	copy(n.sent[:], n.sent[drop:n.count])
	clear(n.sent[n.count-drop : n.count])
	n.count, n.applied, n.known = n.count-drop, n.applied-drop, max(0, n.known-drop)
}

type lateState struct {
	active [2]bool
	nodes  [2]lateNode
}

// lateModel is one row of the table of that module.
type lateModel struct {
	limit  int
	grants int8
	trim   bool
	broken heldRule
	states int // 0 if it breaks
	depth  int // 0 if it is not published; that of the first state that breaks
	slow   bool
}

// record is what the store knows in a state. The model reports by a step of its own, the code with
// each beat: so a beat here repeats what was reported last.
func (m lateModel) record(s *lateState) []member {
	var members []member
	for i := range s.nodes {
		n := &s.nodes[i]
		if !s.active[i] {
			continue
		}
		entry := member{
			name: exploredName(i), limit: int64(m.limit), expires: math.MaxInt32, inFlight: int64(n.reports),
			share: int64(n.at(n.count)), generation: int64(n.changed()), seq: int64(n.count), high: int64(n.open()),
		}
		switch m.broken {
		case issuedCounts:
			entry.high = int64(max(n.at(n.count), n.at(n.known)))
		case flightCounts:
			entry.inFlight = 0
		default:
		}
		members = append(members, entry)
	}
	return members
}

func (m lateModel) beat(t *testing.T, c *Ceiling, s lateState, i int) lateState {
	t.Helper()
	n := &s.nodes[i]
	applied := int64(n.known)
	if applied == 0 {
		applied = -1
	}
	after, share := beatOn(t, c, m.record(&s), i, m.limit, int(n.reports), int64(n.count)+1, applied)
	n.sent[n.count] = int8(share.Slots)
	n.count++
	if m.broken != issuedCounts && after.high != int64(n.open()) {
		t.Fatalf("%+v: the node may still go by %d, the record says %+v", n, n.open(), after)
	}
	return s
}

func (m lateModel) explore(t *testing.T) {
	t.Helper()
	c := exploredCeiling(t, CeilingConfig{AcknowledgedHandoff: true})
	var first []lateState
	someNodes(2, func(active [exploredNodes]bool) { first = append(first, lateState{active: [2]bool(active[:2])}) })
	got := walk(first, m.limit, func(s lateState) int {
		granted := 0
		for i := range s.nodes {
			granted += int(s.nodes[i].at(s.nodes[i].count))
		}
		if granted > m.limit && m.broken == noRule {
			t.Fatalf("%+v: granted %d", s, granted)
		}
		return int(s.nodes[0].inFlight + s.nodes[1].inFlight)
	}, func(s lateState, visit func(lateState)) {
		for i := range s.nodes {
			m.step(t, c, s, i, visit)
		}
	})
	switch {
	case m.broken != noRule:
		if got.over == 0 || m.depth > 0 && got.over != m.depth {
			t.Errorf("it must break, and does so at depth %d instead of %d", got.over, m.depth)
		}
	case got.states != m.states || got.most != m.limit || got.over > 0 || m.depth > 0 && got.depth != m.depth:
		t.Errorf("got %+v", got)
	}
}

// step visits what follows when one node does something.
func (m lateModel) step(t *testing.T, c *Ceiling, s lateState, i int, visit func(lateState)) {
	t.Helper()
	try := func(change func(n *lateNode)) {
		next := s
		change(&next.nodes[i])
		if m.trim {
			next.nodes[i].trim()
		}
		visit(next)
	}
	n := s.nodes[i]
	other := s
	other.active[i], other.nodes[i] = !s.active[i], lateNode{}
	if !s.active[i] || s.active[1-i] {
		visit(other) // joins or leaves
	}
	if !s.active[i] {
		return
	}
	if n.count < m.grants {
		visit(m.beat(t, c, s, i))
	}
	for at := n.applied + 1; at <= n.count; at++ {
		try(func(n *lateNode) { n.applied = at })
	}
	if n.known != n.applied || n.reports != n.inFlight {
		if m.broken == atOneMoment {
			try(func(n *lateNode) { n.known = n.applied })
			try(func(n *lateNode) { n.reports = n.inFlight })
		} else {
			try(func(n *lateNode) { n.known, n.reports = n.applied, n.inFlight })
		}
	}
	if n.inFlight < n.at(n.applied) {
		try(func(n *lateNode) { n.inFlight++ })
	}
	if n.inFlight > 0 {
		try(func(n *lateNode) { n.inFlight-- })
	}
}

// TestExploreHandoff expects the numbers of states that are published for answers that take as
// long as they like.
func TestExploreHandoff(t *testing.T) {
	t.Parallel()
	for _, m := range []lateModel{
		{limit: 4, grants: 2, states: 20_914},
		{limit: 4, grants: 2, trim: true, states: 12_387},
		{limit: 6, grants: 2, trim: true, states: 38_223},
		{limit: 4, grants: 3, trim: true, states: 76_914, slow: true},
		{limit: 4, grants: 3, states: 250_624, depth: 37, slow: true},
		{limit: 4, grants: 2, broken: issuedCounts},
		{limit: 4, grants: 3, broken: issuedCounts, depth: 12},
		{limit: 4, grants: 3, broken: flightCounts, depth: 14},
		{limit: 4, grants: 3, broken: atOneMoment, depth: 14},
	} {
		t.Run(fmt.Sprintf("limit=%d grants=%d trim=%t broken=%d", m.limit, m.grants, m.trim, m.broken), func(t *testing.T) {
			t.Parallel()
			if m.slow && testing.Short() {
				t.Skip("takes seconds")
			}
			m.explore(t)
		})
	}
}

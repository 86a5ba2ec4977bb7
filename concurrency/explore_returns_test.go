package concurrency

import (
	"fmt"
	"math"
	"testing"
)

// This walk has the messages themselves. A node issues beats, which reach the store in any
// order and whenever they like, and whose answers come back likewise or never. It goes by the
// answer to the latest beat of which it has one. When its time runs out at the store, it has
// fenced itself before and let its requests end; from then on it admits nobody until it goes by an
// answer that the store gave later. Its beats from before may reach the store then, and what they
// report is old.

// lifeBeats bounds how many beats one node issues.
const lifeBeats = 4

type lifeNode struct {
	issued              int8
	gone                bool // fenced itself
	share, inFlight     int8
	applied, appliedSeq int8
	asked               [lifeBeats]lifeBeat
	told                [lifeBeats]lifeAnswer
}

// lifeBeat is on its way to the store, lifeAnswer on its way back, if on.
type (
	lifeBeat struct {
		on                bool
		inFlight, applied int8
	}
	lifeAnswer struct {
		on, old           bool // old if the store has forgotten the node since
		share, generation int8
	}
)

// lifeEntry is what the store knows of a node; nothing if seq is 0.
type lifeEntry struct{ share, inFlight, generation, seq, high int8 }

type lifeState struct {
	entries [2]lifeEntry
	nodes   [2]lifeNode
}

// lifeRule is one of those that the bound rests on when nodes come back.
type lifeRule int

const (
	lifeNone    lifeRule = iota
	lifeFence            // a node fences itself before the store forgets it
	lifeBySeq            // generations are the seqs of beats, and so are never used again
	lifeTold             // the generation told to a late beat is not above its seq
	lifeRequest          // a node's requests end before the store forgets it
)

// lifeModel has a first node whose beats take their time, and a second whose beats are answered at once.
type lifeModel struct {
	limit  int
	beats  [2]int8
	broken lifeRule
	states int // 0 if it breaks
	slow   bool
}

func (m lifeModel) members(s *lifeState) []member {
	var members []member
	for i, e := range s.entries {
		if e.seq > 0 {
			members = append(members, member{
				name: exploredName(i), limit: int64(m.limit), expires: math.MaxInt32, inFlight: int64(e.inFlight),
				share: int64(e.share), generation: int64(e.generation), seq: int64(e.seq), high: int64(e.high),
			})
		}
	}
	return members
}

func (n *lifeNode) issue() (seq int8) {
	n.asked[n.issued] = lifeBeat{on: true, inFlight: n.inFlight, applied: n.applied}
	n.issued++
	return n.issued
}

// process has a beat reach the store.
func (m lifeModel) process(t *testing.T, c *Ceiling, s *lifeState, i int, seq int8) {
	t.Helper()
	n, before := &s.nodes[i], s.entries[i]
	asked := n.asked[seq-1]
	n.asked[seq-1] = lifeBeat{}
	after, share := beatOn(t, c, m.members(s), i, m.limit, int(asked.inFlight), int64(seq), int64(asked.applied))
	e := lifeEntry{
		share: int8(after.share), inFlight: int8(after.inFlight),
		generation: int8(after.generation), seq: int8(after.seq), high: int8(after.high),
	}
	answer := lifeAnswer{on: true, share: int8(share.Slots), generation: int8(share.Generation)}
	switch {
	case m.broken == lifeTold:
		answer.generation = e.generation
	case m.broken == lifeBySeq && seq > before.seq:
		e.generation, e.high = before.generation, max(before.high, e.share)
		if e.share != before.share {
			e.generation++
		}
		if asked.applied >= e.generation {
			e.high = e.share
		}
		answer.generation = e.generation
	default:
	}
	s.entries[i], n.told[seq-1] = e, answer
}

// deliver has an answer reach its node.
func (n *lifeNode) deliver(seq int8) {
	answer := n.told[seq-1]
	n.told[seq-1] = lifeAnswer{}
	if seq > n.appliedSeq {
		n.share, n.applied, n.appliedSeq, n.gone = answer.share, answer.generation, seq, answer.old
	}
}

// forget has a node's time run out.
func (m lifeModel) forget(s *lifeState, i int) {
	s.entries[i] = lifeEntry{}
	n := &s.nodes[i]
	if m.broken == lifeFence {
		return
	}
	n.gone = true
	for k := range n.told {
		n.told[k].old = n.told[k].on
	}
}

func (m lifeModel) step(t *testing.T, c *Ceiling, s lifeState, i int, visit func(lifeState)) {
	t.Helper()
	try := func(change func(s *lifeState, n *lifeNode)) {
		next := s
		change(&next, &next.nodes[i])
		visit(next)
	}
	n := s.nodes[i]
	if n.issued < m.beats[i] {
		try(func(s *lifeState, n *lifeNode) {
			if seq := n.issue(); i == 1 {
				m.process(t, c, s, i, seq)
				n.deliver(seq)
			}
		})
	}
	for k := range n.asked {
		if n.asked[k].on {
			try(func(s *lifeState, _ *lifeNode) { m.process(t, c, s, i, int8(k)+1) })
		}
		if n.told[k].on {
			try(func(_ *lifeState, n *lifeNode) { n.deliver(int8(k) + 1) })
		}
	}
	if s.entries[i].seq > 0 && (n.inFlight == 0 || m.broken == lifeRequest) {
		try(func(s *lifeState, _ *lifeNode) { m.forget(s, i) })
	}
	if !n.gone && n.inFlight < n.share {
		try(func(_ *lifeState, n *lifeNode) { n.inFlight++ })
	}
	if n.inFlight > 0 {
		try(func(_ *lifeState, n *lifeNode) { n.inFlight-- })
	}
}

func (m lifeModel) explore(t *testing.T) {
	t.Helper()
	c := exploredCeiling(t, CeilingConfig{AcknowledgedHandoff: true})
	first := lifeState{nodes: [2]lifeNode{{applied: -1}, {applied: -1}}}
	got := walk([]lifeState{first}, m.limit, func(s lifeState) int {
		return int(s.nodes[0].inFlight + s.nodes[1].inFlight)
	}, func(s lifeState, visit func(lifeState)) {
		for i := range s.nodes {
			m.step(t, c, s, i, visit)
		}
	})
	if broken := m.broken != lifeNone; broken != (got.over > 0) || !broken && (got.states != m.states || got.most != m.limit) {
		t.Errorf("got %+v", got)
	}
}

// TestExploreReturns goes through the lives of nodes that are forgotten and come back.
func TestExploreReturns(t *testing.T) {
	t.Parallel()
	for _, m := range []lifeModel{
		{limit: 2, beats: [2]int8{2, 3}, states: 6_562},
		{limit: 2, beats: [2]int8{3, 2}, states: 38_059},
		{limit: 2, beats: [2]int8{3, 3}, states: 91_752},
		{limit: 3, beats: [2]int8{3, 3}, states: 156_628},
		{limit: 2, beats: [2]int8{4, 3}, states: 1_369_256, slow: true},
		{limit: 2, beats: [2]int8{3, 2}, broken: lifeFence},
		{limit: 2, beats: [2]int8{3, 2}, broken: lifeRequest},
		{limit: 2, beats: [2]int8{4, 2}, broken: lifeTold},
		{limit: 2, beats: [2]int8{4, 3}, broken: lifeBySeq, slow: true},
	} {
		t.Run(fmt.Sprintf("limit=%d beats=%d broken=%d", m.limit, m.beats, m.broken), func(t *testing.T) {
			t.Parallel()
			if m.slow && testing.Short() {
				t.Skip("takes seconds")
			}
			m.explore(t)
		})
	}
}

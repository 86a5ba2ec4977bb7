package concurrency

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// naive is the specification's §2.3, read word by word, with what docs/proofs.md says of generations.
type naive struct {
	config CeilingConfig
	nodes  map[string]*naiveNode
}

type naiveNode struct {
	limit, inFlight, share int
	expires                int64
	grants                 []naiveGrant // all since the node was new, with handoff
	seq, acked             int64
	floor                  int
}

type naiveGrant struct {
	seq   int64
	share int
}

func (n *naive) beat(r Report, now int64) Share {
	for name, node := range n.nodes {
		if node.expires < now {
			delete(n.nodes, name)
		}
	}
	self := n.nodes[r.Node]
	if self == nil {
		self = &naiveNode{}
		n.nodes[r.Node] = self
	}
	late := n.config.AcknowledgedHandoff && r.Seq <= self.seq
	self.limit, self.expires = r.Limit, now+r.TTL.Milliseconds()
	if !late {
		self.inFlight = r.InFlight
	}
	var names []string
	var limits []int
	for name, node := range n.nodes {
		names, limits = append(names, name), append(limits, node.limit)
	}
	slices.Sort(names)
	slices.Sort(limits)
	all := limits[0]
	if n.config.Aggregate != Min {
		all = limits[(len(limits)-1)/2]
	}
	if !late {
		share := n.target(r.Node, names, all)
		rest := all
		for name, node := range n.nodes {
			switch {
			case name == r.Node:
			case n.config.AcknowledgedHandoff:
				rest -= max(node.floor, node.inFlight)
			default:
				rest -= max(node.share, node.inFlight)
			}
		}
		self.adopt(max(0, min(share, rest)), r)
	}
	said := int64(0)
	if last := len(self.grants); n.config.AcknowledgedHandoff && last > 0 {
		said = min(r.Seq, self.grants[last-1].seq)
	}
	return Share{Slots: self.share, Ceiling: all, Nodes: len(names), Generation: said}
}

// adopt makes a share the node's. What it may still go by are all grants from the last one that it
// has acknowledged when nothing newer was there.
func (n *naiveNode) adopt(share int, r Report) {
	n.seq = r.Seq
	if share != n.share {
		n.grants = append(n.grants, naiveGrant{seq: r.Seq, share: share})
	}
	n.share = share
	if len(n.grants) == 0 || r.Applied >= n.grants[len(n.grants)-1].seq {
		n.acked = int64(len(n.grants))
	}
	n.floor = share
	if n.acked > 0 {
		n.floor = max(n.floor, n.grants[n.acked-1].share)
	}
	for _, grant := range n.grants[n.acked:] {
		n.floor = max(n.floor, grant.share)
	}
}

func (n *naive) target(self string, names []string, all int) int {
	nth := func(units int, names []string) int {
		shares := make([]int, len(names))
		for i := range units {
			shares[i%len(names)]++
		}
		return shares[slices.Index(names, self)]
	}
	if n.config.Allocation != DemandProportional {
		return nth(all, names)
	}
	var hungry []string
	spare := all
	for _, name := range names {
		if node := n.nodes[name]; node.inFlight >= node.share {
			hungry = append(hungry, name)
		} else {
			spare -= node.inFlight + 1
		}
	}
	if !slices.Contains(hungry, self) {
		return n.nodes[self].inFlight + 1
	}
	return max(1, nth(max(0, spare), hungry))
}

// TestHeartbeatAgainstOracle runs random timelines through the transition and through the
// specification read naively, and looks at what must always hold.
func TestHeartbeatAgainstOracle(t *testing.T) {
	t.Parallel()
	for n := range uint64(600) {
		r := rand.New(rand.NewPCG(7, n))
		config := CeilingConfig{
			Aggregate: []Aggregate{"", Min}[r.IntN(2)], Allocation: []Allocation{"", DemandProportional}[r.IntN(2)],
			AcknowledgedHandoff: r.IntN(2) == 0,
		}
		if err := againstOracle(t, r, config); err != nil {
			t.Fatalf("timeline %d, %+v%v", n, config, err)
		}
	}
}

func againstOracle(t *testing.T, r *rand.Rand, config CeilingConfig) error {
	t.Helper()
	k := newKeeper(t, config)
	oracle := &naive{config: config, nodes: make(map[string]*naiveNode)}
	nodes := []string{"d", "a", "C", "b1", "b", "é"}[:1+r.IntN(6)]
	limits, fixed := 1+r.IntN(20), r.IntN(2) == 0
	issued, applied := map[string]int64{}, map[string]int64{}
	var history strings.Builder
	for range 80 {
		node := nodes[r.IntN(len(nodes))]
		issued[node]++
		report := Report{
			Node: node, Limit: limits, InFlight: r.IntN(5), TTL: time.Duration(1+r.IntN(3000)) * time.Millisecond, Seq: issued[node], Applied: -1,
		}
		if fixed {
			report.InFlight = 0
		} else {
			report.Limit = 1 + r.IntN(limits)
		}
		if a, ok := applied[node]; ok && r.IntN(4) > 0 {
			report.Applied = a
		}
		if r.IntN(6) == 0 {
			report.Seq = 1 + r.Int64N(report.Seq)
			report.Applied = min(report.Applied, report.Seq-1)
		}
		if r.IntN(20) == 0 {
			k.leave(node, "")
			delete(oracle.nodes, node)
		}
		fmt.Fprintf(&history, "\n%d %+v", k.now, report)
		old, text := k.rec, encoded(t, k.rec)
		got, want := ShareOf(k.beat(report)), oracle.beat(report, k.now)
		if got != want {
			return fmt.Errorf("%s: got %+v, want %+v", &history, got, want)
		}
		if encoded(t, old) != text {
			return fmt.Errorf("%s: a beat has changed the record that it began with", &history)
		}
		if err := k.sound(fixed); err != nil {
			return fmt.Errorf("%s: %w", &history, err)
		}
		applied[node] = got.Generation
		k.now += r.Int64N([]int64{1, 100, 1500}[r.IntN(3)])
	}
	return nil
}

// sound looks at what must hold of every record, and at how it is written.
func (k *keeper) sound(fixed bool) error {
	members, _ := k.rec.Extra.([]member)
	shares, held := int64(0), int64(0)
	for _, m := range members {
		shares, held = shares+m.share, held+k.c.config.held(m)
	}
	if fixed && (shares > members[0].limit || held > members[0].limit) {
		return fmt.Errorf("shares are %d and %d are held: %+v", shares, held, members)
	}
	if !slices.IsSortedFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) }) {
		return fmt.Errorf("the members are not in order: %+v", members)
	}
	again, err := heartbeat{}.Decode([]byte(encoded(k.t, k.rec)))
	if err != nil || !reflect.DeepEqual(again, k.rec) {
		return fmt.Errorf("the record reads back as %+v, error %w", again, err)
	}
	return nil
}

func encoded(t *testing.T, rec throttlekit.Record) string {
	t.Helper()
	text, err := heartbeat{}.Encode(rec)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

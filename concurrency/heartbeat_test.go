package concurrency

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// keeper is a store of one record.
type keeper struct {
	t   *testing.T
	c   *Ceiling
	rec throttlekit.Record
	now int64
}

func newKeeper(t *testing.T, config CeilingConfig) *keeper {
	t.Helper()
	c, err := NewCeiling(config)
	if err != nil {
		t.Fatal(err)
	}
	return &keeper{t: t, c: c, now: 1_000_000}
}

func (k *keeper) apply(move throttlekit.Transition, err error) throttlekit.Decision {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
	next, d, ttl := move.Apply(k.rec, k.now, 1)
	if ttl > 0 {
		k.rec = next
	}
	return d
}

func (k *keeper) beat(r Report) throttlekit.Decision {
	k.t.Helper()
	if r.TTL == 0 {
		r.TTL = 2 * time.Second
	}
	return k.apply(k.c.Beat(r))
}

func (k *keeper) leave(node, owner string) throttlekit.Decision {
	k.t.Helper()
	return k.apply(k.c.Leave(node, owner))
}

// wants has a node of a limit beat and expects its share.
func (k *keeper) wants(node string, limit, inFlight int, seq, applied int64, want Share) {
	k.t.Helper()
	d := k.beat(Report{Node: node, Limit: limit, InFlight: inFlight, Seq: seq, Applied: applied})
	if got := ShareOf(d); !d.Allowed || got != want {
		k.t.Errorf("beat %d of %s: got %+v, want %+v", seq, node, got, want)
	}
}

// TestHeartbeatSequences are those of the specification's §2.3.
func TestHeartbeatSequences(t *testing.T) {
	t.Parallel()
	t.Run("two nodes", func(t *testing.T) {
		t.Parallel()
		k := newKeeper(t, CeilingConfig{})
		k.wants("A", 10, 0, 1, -1, Share{Slots: 10, Ceiling: 10, Nodes: 1})
		k.wants("B", 10, 0, 1, -1, Share{Slots: 0, Ceiling: 10, Nodes: 2})
		k.wants("A", 10, 0, 2, 0, Share{Slots: 5, Ceiling: 10, Nodes: 2})
		k.wants("B", 10, 0, 2, 0, Share{Slots: 5, Ceiling: 10, Nodes: 2})
	})
	t.Run("debt", func(t *testing.T) {
		t.Parallel()
		k := newKeeper(t, CeilingConfig{})
		k.wants("A", 10, 0, 1, -1, Share{Slots: 10, Ceiling: 10, Nodes: 1})
		k.wants("B", 10, 0, 1, -1, Share{Slots: 0, Ceiling: 10, Nodes: 2})
		k.wants("A", 10, 9, 2, 0, Share{Slots: 5, Ceiling: 10, Nodes: 2})
		k.wants("B", 10, 0, 2, 0, Share{Slots: 1, Ceiling: 10, Nodes: 2})
	})
	t.Run("handoff", func(t *testing.T) {
		t.Parallel()
		k := newKeeper(t, CeilingConfig{AcknowledgedHandoff: true})
		k.wants("n1", 6, 0, 1, -1, Share{Slots: 6, Ceiling: 6, Nodes: 1, Generation: 1})
		k.wants("n2", 6, 0, 1, -1, Share{Slots: 0, Ceiling: 6, Nodes: 2})
		k.wants("n1", 6, 0, 2, 1, Share{Slots: 3, Ceiling: 6, Nodes: 2, Generation: 2})
		k.wants("n2", 6, 0, 2, 0, Share{Slots: 0, Ceiling: 6, Nodes: 2})
		k.wants("n1", 6, 0, 3, 2, Share{Slots: 3, Ceiling: 6, Nodes: 2, Generation: 2})
		k.wants("n2", 6, 0, 3, 0, Share{Slots: 3, Ceiling: 6, Nodes: 2, Generation: 3})
	})
	for name, c := range map[string]struct {
		allocation Allocation
		hot, idle  int
	}{"by demand": {DemandProportional, 9, 1}, "equal": {EqualSplit, 3, 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKeeper(t, CeilingConfig{Allocation: c.allocation})
			nodes := []string{"hot", "i1", "i2", "i3"}
			share := map[string]int{}
			for seq := range int64(8) {
				for _, node := range nodes {
					inFlight := 0
					if node == "hot" {
						inFlight = share[node]
					}
					share[node] = ShareOf(k.beat(Report{Node: node, Limit: 12, InFlight: inFlight, Seq: seq + 1, Applied: -1})).Slots
				}
			}
			want := map[string]int{"hot": c.hot, "i1": c.idle, "i2": c.idle, "i3": c.idle}
			if !reflect.DeepEqual(share, want) {
				t.Errorf("settled at %v, want %v", share, want)
			}
		})
	}
}

// TestHeartbeatRemainders gives what is left over to the first by the bytes of their names.
func TestHeartbeatRemainders(t *testing.T) {
	t.Parallel()
	for limit := 1; limit <= 9; limit++ {
		k := newKeeper(t, CeilingConfig{Aggregate: Min})
		nodes := []string{"é", "a", "B", "b"}
		for seq := range int64(3) {
			for _, node := range nodes {
				k.beat(Report{Node: node, Limit: limit, Seq: seq + 1, Applied: -1})
			}
		}
		var shares []int64
		members, _ := k.rec.Extra.([]member)
		for _, m := range members {
			shares = append(shares, m.share)
		}
		for i, share := range shares {
			if want := int64((limit + 3 - i) / 4); share != want || members[i].name != []string{"B", "a", "b", "é"}[i] {
				t.Errorf("%d slots are divided as %v", limit, shares)
			}
		}
	}
}

func TestAggregates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		aggregate Aggregate
		limits    []int
		want      int
	}{
		{Median, []int{7}, 7},
		{Median, []int{9, 4}, 4},
		{Median, []int{9, 4, 6}, 6},
		{Median, []int{1, 9, 6, 7}, 6},
		{Median, []int{1_000_000, 5, 5}, 5},
		{Min, []int{9, 4, 6}, 4},
	} {
		k := newKeeper(t, CeilingConfig{Aggregate: c.aggregate})
		var last Share
		for i, limit := range c.limits {
			last = ShareOf(k.beat(Report{Node: string(rune('a' + i)), Limit: limit, Seq: 1, Applied: -1}))
		}
		if last.Ceiling != c.want || last.Nodes != len(c.limits) {
			t.Errorf("%s of %v: %+v", c.aggregate, c.limits, last)
		}
	}
}

// TestHeartbeatExpiry has nodes count for as long as their TTL says on the store's clock.
func TestHeartbeatExpiry(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, CeilingConfig{})
	k.wants("A", 10, 4, 1, -1, Share{Slots: 10, Ceiling: 10, Nodes: 1})
	k.now += 2000
	k.wants("B", 10, 0, 1, -1, Share{Slots: 0, Ceiling: 10, Nodes: 2}) // A's last millisecond
	k.now++
	k.wants("B", 10, 0, 2, 0, Share{Slots: 10, Ceiling: 10, Nodes: 1})
	k.now -= 5000 // who has been forgotten stays so, whatever the clock does
	k.wants("A", 10, 4, 2, 0, Share{Slots: 0, Ceiling: 10, Nodes: 2})

	fraction, err := k.c.Beat(Report{Node: "C", Limit: 1, TTL: time.Millisecond + 1, Seq: 1, Applied: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ttl := fraction.Apply(throttlekit.Record{}, k.now, 1); ttl != 2 {
		t.Errorf("a time of 1.000001 ms lasts for %d ms", ttl)
	}
}

// TestHeartbeatReturns: a node whose time ran out is as one that the store has never seen, whether
// it was forgotten or not, and the generations that it has seen are not used again.
func TestHeartbeatReturns(t *testing.T) {
	t.Parallel()
	for _, forgotten := range []bool{false, true} {
		k := newKeeper(t, CeilingConfig{AcknowledgedHandoff: true})
		k.wants("A", 10, 0, 1, -1, Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 1})
		k.wants("A", 10, 0, 7, 1, Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 1})
		k.now += 2001
		if forgotten {
			k.rec = throttlekit.Record{}
		}
		k.wants("A", 10, 0, 8, 1, Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 8})
		k.wants("B", 10, 0, 1, -1, Share{Slots: 0, Ceiling: 10, Nodes: 2})
		k.wants("A", 10, 0, 9, 1, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 9}) // 1 acknowledges nothing any more
		k.wants("B", 10, 0, 2, 0, Share{Slots: 0, Ceiling: 10, Nodes: 2})
		k.wants("A", 10, 0, 10, 8, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 9})
		k.wants("B", 10, 0, 3, 0, Share{Slots: 0, Ceiling: 10, Nodes: 2})
		k.wants("A", 10, 0, 11, 9, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 9})
		k.wants("B", 10, 0, 4, 0, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 4})
	}
}

// TestLateBeats: with handoff, a beat that comes after a later one, or again, keeps the node alive
// and changes nothing else. What it is told acknowledges no grant that a later one was told.
func TestLateBeats(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, CeilingConfig{AcknowledgedHandoff: true})
	k.wants("A", 10, 0, 2, -1, Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 2})
	k.wants("B", 10, 0, 1, -1, Share{Ceiling: 10, Nodes: 2})
	k.wants("A", 10, 3, 3, -1, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 3})
	k.now += 1500
	k.wants("A", 20, 9, 1, -1, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 1}) // goes by 5, but the 10 is on its way yet
	k.wants("A", 20, 9, 3, 2, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 3})
	members, _ := k.rec.Extra.([]member)
	want := member{name: "A", limit: 20, inFlight: 3, expires: k.now + 2000, share: 5, generation: 3, seq: 3, high: 10}
	if members[0] != want {
		t.Errorf("late beats made %+v, want %+v", members[0], want)
	}
	k.wants("A", 10, 3, 4, 1, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 3})
	k.wants("B", 10, 0, 2, 0, Share{Ceiling: 10, Nodes: 2})
	k.wants("A", 10, 3, 5, 3, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 3})
	k.wants("B", 10, 0, 3, 0, Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 3})

	without := newKeeper(t, CeilingConfig{}) // where the last to come counts
	without.wants("A", 10, 0, 5, -1, Share{Slots: 10, Ceiling: 10, Nodes: 1})
	without.wants("A", 10, 7, 2, -1, Share{Slots: 10, Ceiling: 10, Nodes: 1})
	without.wants("B", 10, 0, 1, -1, Share{Ceiling: 10, Nodes: 2})
	without.wants("A", 10, 7, 6, 0, Share{Slots: 5, Ceiling: 10, Nodes: 2})
	without.wants("B", 10, 0, 2, 0, Share{Slots: 3, Ceiling: 10, Nodes: 2})
}

// TestOwners has two processes use one name.
func TestOwners(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, CeilingConfig{AcknowledgedHandoff: true})
	report := Report{Node: "A", Owner: "first", Limit: 10, Seq: 5, Applied: -1}
	second := Report{Node: "A", Owner: "second", Limit: 10, Seq: 1, Applied: -1}
	untold := Report{Node: "A", Limit: 10, Seq: 6, Applied: 5}
	if d := k.beat(report); !d.Allowed {
		t.Fatalf("got %+v", d)
	}
	k.now += 2000
	before := k.rec
	if d, want := k.beat(second), (throttlekit.Decision{RetryAfterMillis: 1}); d != want || !reflect.DeepEqual(k.rec, before) {
		t.Errorf("another process got %+v and made %+v", d, k.rec)
	}
	if owner := k.c.OwnerOf(k.rec, "A"); owner != "first" || k.c.OwnerOf(k.rec, "B") != "" || k.c.OwnerOf(throttlekit.Record{}, "A") != "" {
		t.Errorf("the owner is %q", owner)
	}
	if d := k.leave("A", "second"); d.Allowed || d.RetryAfterMillis != 1 || !reflect.DeepEqual(k.rec, before) {
		t.Errorf("another process left: %+v", d)
	}
	if d := k.beat(untold); !d.Allowed || k.c.OwnerOf(k.rec, "A") != "first" {
		t.Errorf("a beat of who does not say who it is got %+v", d)
	}
	k.now += 2001
	afresh := Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 1}
	if d := k.beat(second); !d.Allowed || k.c.OwnerOf(k.rec, "A") != "second" || ShareOf(d) != afresh {
		t.Errorf("a new process got %+v", d)
	}
	report.Seq = 7
	if d := k.beat(report); d.Allowed {
		t.Errorf("a late beat of the old process got %+v", d)
	}
	if d := k.leave("A", "second"); !d.Allowed || k.c.OwnerOf(k.rec, "A") != "" {
		t.Errorf("did not leave: %+v", d)
	}
	if d := k.beat(report); !d.Allowed || k.c.OwnerOf(k.rec, "A") != "first" {
		t.Errorf("a name that was left is not free: %+v", d)
	}
	if d := k.leave("nobody", ""); !d.Allowed {
		t.Errorf("leaving what one is not in: %+v", d)
	}
	if d := k.leave("A", ""); !d.Allowed || len(k.rec.Extra.([]member)) != 0 {
		t.Errorf("did not leave: %+v", d)
	}
}

// TestFullFleet refuses one node too many, and drops no living one for it.
func TestFullFleet(t *testing.T) {
	t.Parallel()
	k := newKeeper(t, CeilingConfig{MaxNodes: 2})
	k.beat(Report{Node: "A", Limit: 10, Seq: 1, Applied: -1})
	k.now += 500
	k.beat(Report{Node: "B", Limit: 10, Seq: 1, Applied: -1})
	before := k.rec
	d := k.beat(Report{Node: "C", Limit: 10, Seq: 1, Applied: -1})
	if want := (throttlekit.Decision{Limit: 2, RetryAfterMillis: 1501}); d != want || !reflect.DeepEqual(k.rec, before) {
		t.Errorf("got %+v, want %+v, and the record %+v", d, want, k.rec)
	}
	if d := k.beat(Report{Node: "B", Limit: 10, Seq: 2, Applied: -1}); !d.Allowed {
		t.Errorf("who is in it is refused: %+v", d)
	}
	k.now += 1501
	if d := k.beat(Report{Node: "C", Limit: 10, Seq: 1, Applied: -1}); !d.Allowed {
		t.Errorf("who comes for one that died is refused: %+v", d)
	}
}

func TestCeilingBadInput(t *testing.T) {
	t.Parallel()
	fields := func(err error) string {
		var names []string
		for line := range strings.SplitSeq(fmt.Sprint(err), "\n") {
			name, _, _ := strings.Cut(line, " ")
			names = append(names, name)
		}
		return strings.Join(names, " ")
	}
	for _, config := range []CeilingConfig{
		{Aggregate: "mean"}, {Allocation: "all"}, {MaxNodes: -1}, {MaxNodes: 4097}, {Aggregate: "x", Allocation: "y", MaxNodes: -1},
	} {
		c, err := NewCeiling(config)
		if c != nil || !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%+v: %v", config, err)
		}
	}
	_, err := NewCeiling(CeilingConfig{Aggregate: "x", Allocation: "y", MaxNodes: -1})
	if got := fields(err); got != "aggregate allocation maxNodes" {
		t.Errorf("it names %s", got)
	}
	k := newKeeper(t, CeilingConfig{})
	good := Report{Node: "a", Limit: 1, TTL: time.Second, Seq: 1, Applied: -1}
	for _, c := range []struct {
		field  string
		change func(r *Report)
	}{
		{"nodeId", func(r *Report) { r.Node = "" }},
		{"nodeId", func(r *Report) { r.Node = strings.Repeat("n", 257) }},
		{"nodeId", func(r *Report) { r.Node = "\xff" }},
		{"nodeId", func(r *Report) { r.Node = "owner/1/a/x" }},
		{"owner", func(r *Report) { r.Owner = strings.Repeat("n", 257) }},
		{"owner", func(r *Report) { r.Owner = "\xff" }},
		{"limit", func(r *Report) { r.Limit = 0 }},
		{"limit", func(r *Report) { r.Limit = 1_000_001 }},
		{"inFlight", func(r *Report) { r.InFlight = -1 }},
		{"inFlight", func(r *Report) { r.InFlight = 1_000_001 }},
		{"ttl", func(r *Report) { r.TTL = 0 }},
		{"ttl", func(r *Report) { r.TTL = time.Millisecond - 1 }},
		{"ttl", func(r *Report) { r.TTL = 24*time.Hour + 1 }},
		{"seq", func(r *Report) { r.Seq = 1e14 }},
		{"applied", func(r *Report) { r.Applied = -2 }},
		{"applied", func(r *Report) { r.Applied = 1 }},
		{"seq applied", func(r *Report) { r.Seq = 0; r.Applied = 0 }},
		{"nodeId limit", func(r *Report) { r.Node = ""; r.Limit = -1 }},
	} {
		r := good
		c.change(&r)
		move, err := k.c.Beat(r)
		if move != nil || !errors.Is(err, throttlekit.ErrInvalid) || fields(err) != c.field {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	for _, node := range []string{"", "owner/1/a/x"} {
		if move, err := k.c.Leave(node, ""); move != nil || !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("leaving as %q: %v", node, err)
		}
	}
	if CeilingKey(DefaultCeilingPrefix, "db") != "tk:fedconc:db" {
		t.Errorf("the key is %s", CeilingKey(DefaultCeilingPrefix, "db"))
	}
}

// TestHeartbeatText is the text of records, whole and torn.
func TestHeartbeatText(t *testing.T) {
	t.Parallel()
	const text = `{"a":"10 3 2000 5 4 9 8","b":"10 0 3000 1","owner/1/a/host#1":"0 0 0 0"}`
	rec, err := heartbeat{}.Decode([]byte(text))
	want := []member{
		{name: "a", owner: "host#1", limit: 10, inFlight: 3, expires: 2000, share: 5, generation: 4, seq: 9, high: 8},
		{name: "b", limit: 10, expires: 3000, share: 1},
	}
	if err != nil || !reflect.DeepEqual(rec.Extra, want) || encoded(t, rec) != text {
		t.Errorf("got %+v, %v, written as %s", rec, err, encoded(t, rec))
	}
	for _, owners := range []string{
		`{"owner/1/a/x":"0 0 0 0"}`,            // of nobody
		`{"owner/1/a/x":"0 0 0 0","b":"%s"}`,   // of somebody else
		`{"owner/3/a/b/x":"0 0 0 0","a":"%s"}`, // of a/b
	} {
		rec, err := heartbeat{}.Decode([]byte(strings.ReplaceAll(owners, "%s", "1 2 3 4")))
		members, _ := rec.Extra.([]member)
		if err != nil || len(members) > 0 && (len(members) > 1 || members[0].owner != "") {
			t.Errorf("%s: %+v, %v", owners, members, err)
		}
	}
	for _, nodes := range []string{
		"owner/1/a", "owner/1/ax", "owner/", "owner/x/a/b", "owner/2/a/", "owner/-1/a", "owner/+1/a/b", "owner/99999999999999999999/a/b",
	} {
		rec, err := heartbeat{}.Decode(fmt.Appendf(nil, `{%q:"0 0 0 0"}`, nodes))
		if members, _ := rec.Extra.([]member); err != nil || len(members) != 1 {
			t.Errorf("%s is no owner: %+v, %v", nodes, members, err)
		}
	}
	for _, torn := range []string{
		``, `null`, `[]`, `{`, `{} {}`, `{"a":1}`, `{"a":null}`, `{"a":""}`, `{"a":"1 2 3"}`, `{"a":"1 2 3 4 5"}`, `{"a":"1 2 3 4 5 6"}`,
		`{"a":"1 2 3 4 5 6 7 8"}`, `{"a":"1 2 3 -4"}`, `{"a":"1 2 3 4.5"}`, `{"a":"1 2 3 +4"}`, `{"a":"1  2 3 4"}`,
		`{"a":"1 2 3 100000000000000"}`,
	} {
		if rec, err := (heartbeat{}).Decode([]byte(torn)); err == nil || !strings.Contains(err.Error(), "corrupt heartbeat record") {
			t.Errorf("%s: %+v, %v", torn, rec, err)
		}
	}
}

// FuzzHeartbeatRecord reads any text, and what can be read must be written as it was meant.
func FuzzHeartbeatRecord(f *testing.F) {
	f.Add(`{"a":"10 3 2000 5 4 9 8","b":"10 0 3000 1","owner/1/a/host#1":"0 0 0 0"}`)
	f.Add(`{"owner/1/a/b":"1 2 3 4"}`)
	f.Fuzz(func(t *testing.T, text string) {
		rec, err := heartbeat{}.Decode([]byte(text))
		if err != nil {
			return
		}
		again, err := heartbeat{}.Decode([]byte(encoded(t, rec)))
		if err != nil || !reflect.DeepEqual(rec, again) {
			t.Errorf("%q reads as %+v, and written as %+v, error %v", text, rec, again, err)
		}
		c, _ := NewCeiling(CeilingConfig{AcknowledgedHandoff: true})
		move, _ := c.Beat(Report{Node: "n", Limit: 10, InFlight: 1, TTL: time.Second, Seq: 1, Applied: -1})
		_, d, ttl := move.Apply(rec, 2000, 1)
		if d.Allowed && (d.Remaining < 0 || d.Remaining > max(d.Limit, 1) || ttl < 1) {
			t.Errorf("%q: %+v for %d ms", text, d, ttl)
		}
	})
}

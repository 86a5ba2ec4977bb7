package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

func ceilingOf(tb testing.TB, config concurrency.CeilingConfig) *concurrency.Ceiling {
	tb.Helper()
	c, err := concurrency.NewCeiling(config)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// steps counts what random timelines of beats came to.
type steps struct{ granted, nothing, refused, full, stale, left, revived atomic.Int64 }

// TestHeartbeatAgreesWithCore runs random timelines of many fleets through the script and through
// the transition: duplicate, late and lost beats, nodes that die, come back, leave, and share a name.
// Every field of every decision and the record after it must be equal.
func TestHeartbeatAgreesWithCore(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	stop := flushAllTheTime(t, server)
	t.Cleanup(stop)
	var s steps
	inParallel(t, checks()/timelineLength, func(n int) error {
		return runHeartbeats(t, server, rand.New(rand.NewPCG(*seed<<8|220, uint64(n))), &s)
	})
	t.Logf("equal in every field: %d grants, %d of nothing, %d of late beats, %d on a new life; "+
		"refused: %d to another owner, %d for want of room; %d left", s.granted.Load(), s.nothing.Load(), s.stale.Load(), s.revived.Load(), s.refused.Load(), s.full.Load(), s.left.Load())
	for _, n := range []*atomic.Int64{&s.granted, &s.nothing, &s.refused, &s.full, &s.stale, &s.left, &s.revived} {
		if n.Load() < s.granted.Load()/200 {
			t.Error("the timelines are too tame to prove anything")
		}
	}
}

func runHeartbeats(t *testing.T, server *redistest.Server, r *pick, s *steps) error {
	t.Helper()
	config := concurrency.CeilingConfig{
		Aggregate: oneOf(r, "", concurrency.Min), Allocation: oneOf(r, "", concurrency.DemandProportional),
		AcknowledgedHandoff: r.IntN(2) == 0, MaxNodes: oneOf(r, 0, 0, 3),
	}
	c := ceilingOf(t, config)
	clock := throttlekit.NewManualClock(0)
	store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
	names := []string{"a", "B", "a/b", "é", "node-1", "node-10", "1/a/", "Owner/1/a/x"}[:2+r.IntN(7)]
	issued, applied, last := map[string]int64{}, map[string]int64{}, map[string]int64{}
	var rec throttlekit.Record
	var history strings.Builder
	now := oneOf(r, int64(base), base, 0, 1)
	limits := 1 + r.IntN(30)
	for range timelineLength {
		name := oneOf(r, names...)
		owner := oneOf(r, "", "x", "x", "x", "x", "x", "host#1/2")
		issued[name]++
		report := concurrency.Report{
			Node: name, Owner: owner, Limit: 1 + r.IntN(limits), InFlight: r.IntN(8), TTL: time.Duration(1+r.IntN(2000)) * time.Millisecond,
			Seq: issued[name], Applied: -1,
		}
		if a, ok := applied[name]; ok && r.IntN(5) > 0 {
			report.Applied = a
		}
		if r.IntN(6) == 0 { // a beat of long ago
			report.Seq = 1 + r.Int64N(issued[name])
			report.Applied = min(report.Applied, report.Seq-1)
		}
		move, err := c.Beat(report)
		leaving := r.IntN(15) == 0
		if leaving {
			move, err = c.Leave(name, owner)
		}
		if err != nil {
			return err
		}
		clock.Set(now)
		fmt.Fprintf(&history, "\n%d leave %t %+v", now, leaving, report)
		next, want, ttl := move.Apply(rec, now, 1)
		got, err := store.Apply(t.Context(), "k", move, 1)
		if err != nil || got != want {
			return fmt.Errorf("%+v%s: got %+v, want %+v, error %v", config, &history, got, want, err) //nolint:errorlint // may be nil
		}
		switch {
		case leaving:
			s.left.Add(1)
		case !want.Allowed && want.Limit > 0:
			s.full.Add(1)
		case !want.Allowed:
			s.refused.Add(1)
		case config.AcknowledgedHandoff && report.Seq < issued[name]:
			s.stale.Add(1)
		case want.Remaining == 0:
			s.nothing.Add(1)
		default:
			s.granted.Add(1)
		}
		if want.Allowed && !leaving {
			if applied[name] = want.ResetAtMillis; now-last[name] > 2000 {
				s.revived.Add(1)
			}
			last[name] = now
		}
		if ttl > 0 {
			rec = next
		}
		if err := sameRecord(t, store, move, rec); err != nil {
			return fmt.Errorf("%+v%s: %w", config, &history, err)
		}
		now = max(0, step(r, now, time.Second))
	}
	return nil
}

func sameRecord(t *testing.T, store *redisstore.Store, move throttlekit.Transition, rec throttlekit.Record) error {
	t.Helper()
	loaded, _, err := store.Load(t.Context(), "k", move)
	if err != nil {
		return err
	}
	got, err := move.Encode(loaded)
	if err != nil {
		return err
	}
	want, err := move.Encode(rec)
	if err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("the record is %s, want %s, error %v", got, want, err) //nolint:errorlint // may be nil
	}
	return nil
}

// fleet is a ceiling on a key of the shared server, as its nodes and those of other makes see it.
type fleet struct {
	store *redisstore.Store
	clock *throttlekit.ManualClock
	conn  *redistest.Conn
	key   string
	of    *concurrency.Ceiling
}

func newFleet(t *testing.T, config concurrency.CeilingConfig) fleet {
	t.Helper()
	clock := throttlekit.NewManualClock(base)
	key := concurrency.CeilingKey(concurrency.DefaultCeilingPrefix, freshPrefix())
	store := sharedClientStore(t, shared, redisstore.Config{Clock: clock, Timeout: patient})
	return fleet{store: store, clock: clock, conn: dial(t, shared), key: key, of: ceilingOf(t, config)}
}

// beat is one of a node with a limit of 10.
func (f fleet) beat(t *testing.T, node, owner string, inFlight int, seq, applied int64) (throttlekit.Decision, error) {
	t.Helper()
	move, err := f.of.Beat(concurrency.Report{
		Node: node, Owner: owner, Limit: 10, InFlight: inFlight, TTL: time.Minute, Seq: seq, Applied: applied,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f.store.Apply(t.Context(), f.key, move, 1)
}

func (f fleet) share(t *testing.T, node, owner string, inFlight int, seq, applied int64, want concurrency.Share) {
	t.Helper()
	d, err := f.beat(t, node, owner, inFlight, seq, applied)
	if got := concurrency.ShareOf(d); err != nil || !d.Allowed || got != want {
		t.Errorf("%s, beat %d: got %+v of %+v, want %+v, error %v", node, seq, got, d, want, err)
	}
}

func (f fleet) holds(t *testing.T, want ...string) {
	t.Helper()
	var pairs []string
	for pair := range slices.Chunk(texts(do(t, f.conn, "HGETALL", f.key)), 2) {
		pairs = append(pairs, pair[0]+"="+pair[1])
	}
	slices.Sort(pairs)
	slices.Sort(want)
	if !slices.Equal(pairs, want) {
		t.Errorf("the hash holds %q, want %q", pairs, want)
	}
}

func (f fleet) lives(t *testing.T, most int64) {
	t.Helper()
	if ttl, ok := do(t, f.conn, "PTTL", f.key).(int64); !ok || ttl > most || ttl < most-30_000 {
		t.Errorf("the key lives for %d ms, want about %d", ttl, most)
	}
}

func TestHeartbeatLayout(t *testing.T) {
	t.Parallel()
	f := newFleet(t, concurrency.CeilingConfig{})
	if !strings.HasPrefix(f.key, "tk:fedconc:") {
		t.Errorf("the key is %s", f.key)
	}
	f.share(t, "a", "", 0, 1, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1})
	f.holds(t, fmt.Sprintf("a=10 0 %d 10", int64(base+60_000)))
	f.lives(t, 60_000)
	f.clock.Advance(time.Second)
	f.share(t, "b", "host#1#x", 0, 1, -1, concurrency.Share{Ceiling: 10, Nodes: 2})
	f.share(t, "a", "", 9, 2, 0, concurrency.Share{Slots: 5, Ceiling: 10, Nodes: 2})
	f.share(t, "b", "host#1#x", 0, 2, 0, concurrency.Share{Slots: 1, Ceiling: 10, Nodes: 2})
	later := int64(base + 61_000)
	f.holds(t, fmt.Sprintf("a=10 9 %d 5", later), fmt.Sprintf("b=10 0 %d 1", later), "owner/1/b/host#1#x=0 0 0 0")

	leave, err := f.of.Leave("b", "host#2#y")
	if err != nil {
		t.Fatal(err)
	}
	if d, err := f.store.Apply(t.Context(), f.key, leave, 1); err != nil || d.Allowed || d.RetryAfterMillis != 60_001 {
		t.Errorf("another process left for b: %+v, %v", d, err)
	}
	if leave, err = f.of.Leave("b", "host#1#x"); err != nil {
		t.Fatal(err)
	}
	if d, err := f.store.Apply(t.Context(), f.key, leave, 1); err != nil || !d.Allowed {
		t.Errorf("b has not left: %+v, %v", d, err)
	}
	f.holds(t, fmt.Sprintf("a=10 9 %d 5", later))
	f.clock.Advance(61 * time.Second) // a is dead
	f.share(t, "c", "", 0, 1, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1})
	f.holds(t, fmt.Sprintf("c=10 0 %d 10", int64(base+122_000)))
}

// TestHeartbeatOwners has two processes use one name, with the record on a server.
func TestHeartbeatOwners(t *testing.T) {
	t.Parallel()
	f := newFleet(t, concurrency.CeilingConfig{AcknowledgedHandoff: true})
	f.share(t, "a", "first", 0, 1, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 1})
	f.clock.Advance(time.Second)
	before := fmt.Sprint(do(t, f.conn, "HGETALL", f.key))
	d, err := f.beat(t, "a", "second", 0, 7, -1)
	if want := (throttlekit.Decision{RetryAfterMillis: 59_001}); err != nil || d != want {
		t.Errorf("a second process got %+v, %v, want %+v", d, err, want)
	}
	if after := fmt.Sprint(do(t, f.conn, "HGETALL", f.key)); after != before {
		t.Errorf("a refusal changed %s to %s", before, after)
	}
	move, err := f.of.Leave("a", "")
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := f.store.Load(t.Context(), f.key, move)
	if owner := f.of.OwnerOf(rec, "a"); err != nil || owner != "first" {
		t.Errorf("the owner is %q, error %v", owner, err)
	}
	f.clock.Advance(time.Minute)
	f.share(t, "a", "second", 0, 8, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 8})
	f.holds(t, fmt.Sprintf("a=10 0 %d 10 8 8 10", int64(base+121_000)), "owner/1/a/second=0 0 0 0")
	if d, err = f.beat(t, "a", "first", 0, 2, 1); err != nil || d.Allowed {
		t.Errorf("the first process got %+v, %v, after it was replaced", d, err)
	}
	f.clock.Advance(time.Hour)
	f.share(t, "b", "third", 0, 1, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 1})
	f.holds(t, fmt.Sprintf("b=10 0 %d 10 1 1 10", int64(base+61_000+3_660_000)), "owner/1/b/third=0 0 0 0") // nothing of a is left
}

// TestHeartbeatBesideOthers shares records with nodes of another make, which know nothing of
// owners and stamp the time until which they count by their own clocks.
func TestHeartbeatBesideOthers(t *testing.T) {
	t.Parallel()
	until := int64(base + 5_000)
	t.Run("four numbers", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, concurrency.CeilingConfig{})
		do(t, f.conn, "HSET", f.key, "js-1", fmt.Sprintf("8 3 %d 8", until), "js-2", fmt.Sprintf("20 1 %d 0", int64(base-1)))
		f.share(t, "go", "p", 2, 1, -1, concurrency.Share{Slots: 0, Ceiling: 8, Nodes: 2}) // js-2 is dead
		f.holds(t, fmt.Sprintf("js-1=8 3 %d 8", until), fmt.Sprintf("go=10 2 %d 0", int64(base+60_000)), "owner/2/go/p=0 0 0 0")
		do(t, f.conn, "HSET", f.key, "js-1", fmt.Sprintf("8 3 %d 4", until)) // it has beaten,
		do(t, f.conn, "HDEL", f.key, "owner/2/go/p")                         // and removed what it took for a dead node
		f.share(t, "go", "p", 2, 2, -1, concurrency.Share{Slots: 4, Ceiling: 8, Nodes: 2})
		f.holds(t, fmt.Sprintf("js-1=8 3 %d 4", until), fmt.Sprintf("go=10 2 %d 4", int64(base+60_000)), "owner/2/go/p=0 0 0 0")
		f.clock.Advance(5 * time.Second)
		f.share(t, "go", "p", 2, 3, -1, concurrency.Share{Slots: 4, Ceiling: 8, Nodes: 2}) // its last millisecond
		f.clock.Advance(time.Millisecond)
		f.share(t, "go", "p", 2, 4, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1})
	})
	t.Run("seven numbers", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t, concurrency.CeilingConfig{AcknowledgedHandoff: true})
		do(t, f.conn, "HSET", f.key, "js-1", fmt.Sprintf("8 1 %d 4 2 9 8", until)) // it may still go by 8
		f.share(t, "go", "p", 0, 1, -1, concurrency.Share{Slots: 0, Ceiling: 8, Nodes: 2})
		do(t, f.conn, "HSET", f.key, "js-1", fmt.Sprintf("8 1 %d 4 2 10 4", until))
		f.share(t, "go", "p", 0, 2, 0, concurrency.Share{Slots: 4, Ceiling: 8, Nodes: 2, Generation: 2})
		f.holds(t, fmt.Sprintf("js-1=8 1 %d 4 2 10 4", until), fmt.Sprintf("go=10 0 %d 4 2 2 4", int64(base+60_000)), "owner/2/go/p=0 0 0 0")
	})
	t.Run("what is no owner", func(t *testing.T) {
		t.Parallel()
		for _, field := range []string{"owner/1/axy", "owner/2/a/y", "owner/x/a/y", "owner/1", "owner/9999999999999999999999/a/y"} {
			f := newFleet(t, concurrency.CeilingConfig{})
			do(t, f.conn, "HSET", f.key, "a", fmt.Sprintf("8 3 %d 8", until), field, "0 0 0 0")
			f.share(t, "a", "p", 2, 1, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1}) // nobody owns a
			f.holds(t, fmt.Sprintf("a=10 2 %d 10", int64(base+60_000)), "owner/1/a/p=0 0 0 0")
			do(t, f.conn, "HSET", f.key, field, fmt.Sprintf("4 0 %d 0", until)) // and this is a node
			f.share(t, "a", "p", 2, 2, -1, concurrency.Share{Slots: 2, Ceiling: 4, Nodes: 2})
		}
	})
	t.Run("what is no record", func(t *testing.T) {
		t.Parallel()
		for _, value := range []string{
			"", "8", "8 3 9", "8 3 9 8 1", "8 3 9 8 1 2", "8 3 9 8 1 2 3 4", "8 3 x 8", "8 -3 9 8", "8 3 9.5 8", "8  3 9 8", " 8 3 9 8", "8 3 9 8 ",
			"8 3 1e9 8", "8 3 100000000000000 8", "0x8 3 9 8", "8 3 99999999999999999999999999999999 8", "null",
		} {
			f := newFleet(t, concurrency.CeilingConfig{})
			do(t, f.conn, "HSET", f.key, "js-1", value)
			_, err := f.beat(t, "go", "p", 0, 1, -1)
			refused(t, value, err, "CORRUPT")
			f.holds(t, "js-1="+value)
			move, err := f.of.Leave("go", "p")
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = f.store.Load(t.Context(), f.key, move)
			refused(t, "load of "+value, err, "corrupt")
		}
		f := newFleet(t, concurrency.CeilingConfig{})
		do(t, f.conn, "SET", f.key, "text")
		_, err := f.beat(t, "go", "p", 0, 1, -1)
		refused(t, "a beat on a text", err, "another kind of limit")
	})
}

// refused wants the error of a record that is none, which says so.
func refused(t *testing.T, what string, err error, says string) {
	t.Helper()
	if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), says) {
		t.Errorf("%q: %v", what, err)
	}
}

// TestHeartbeatEvicted loses the whole record, as after a restart without persistence.
func TestHeartbeatEvicted(t *testing.T) {
	t.Parallel()
	f := newFleet(t, concurrency.CeilingConfig{AcknowledgedHandoff: true})
	f.share(t, "a", "p", 0, 1, -1, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 1})
	f.share(t, "b", "q", 0, 1, -1, concurrency.Share{Ceiling: 10, Nodes: 2})
	do(t, f.conn, "DEL", f.key)
	// Who comes first gets no more than what others say that they use, once they have said it.
	f.share(t, "b", "q", 0, 2, 0, concurrency.Share{Slots: 10, Ceiling: 10, Nodes: 1, Generation: 2})
	f.share(t, "a", "p", 7, 2, 1, concurrency.Share{Ceiling: 10, Nodes: 2})
	f.share(t, "b", "q", 0, 3, 2, concurrency.Share{Slots: 3, Ceiling: 10, Nodes: 2, Generation: 3})
	f.share(t, "a", "p", 3, 3, 0, concurrency.Share{Ceiling: 10, Nodes: 2}) // b may still go by 10
	f.share(t, "b", "q", 3, 4, 3, concurrency.Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 4})
	f.share(t, "b", "q", 3, 5, 4, concurrency.Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 4})
	f.share(t, "a", "p", 3, 4, 0, concurrency.Share{Slots: 5, Ceiling: 10, Nodes: 2, Generation: 4})
}

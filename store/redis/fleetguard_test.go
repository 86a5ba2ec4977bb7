package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// protected is a backend that counts by itself what is in flight.
type protected struct{ inFlight, most, served atomic.Int64 }

func (p *protected) enter() {
	p.served.Add(1)
	n := p.inFlight.Add(1)
	for {
		most := p.most.Load()
		if n <= most || p.most.CompareAndSwap(most, n) {
			return
		}
	}
}

func (p *protected) leave() { p.inFlight.Add(-1) }

// A fleet's times. Requests take up to 20 ms, and the margin is 450 ms, for machines that are busy.
const (
	fleetBeat  = slow * 100 * time.Millisecond
	fleetTTL   = 10 * fleetBeat
	fleetLimit = 12
)

// party is a fleet in front of one backend.
type party struct {
	key     string
	ceiling *concurrency.Ceiling
	limit   int
	backend protected
	joined  atomic.Int64
}

func newParty(t *testing.T, limit int, config concurrency.CeilingConfig) *party {
	t.Helper()
	config.AcknowledgedHandoff = true
	return &party{key: concurrency.CeilingKey(freshPrefix(), "backend"), ceiling: ceilingOf(t, config), limit: limit}
}

// check is what holds after each test: the backend was as full as it must have been, and never more than full.
func (p *party) check(t *testing.T, least int64) {
	t.Helper()
	if most := p.backend.most.Load(); most < least || most > int64(p.limit) {
		t.Errorf("at most %d were in flight at the backend, want at least %d and no more than %d", most, least, p.limit)
	}
	t.Logf("%d requests, at most %d in flight", p.backend.served.Load(), p.backend.most.Load())
}

// attendant is a node of a party.
type attendant struct {
	*concurrency.FleetGuard

	party  *party
	fences atomic.Int64
	mu     sync.Mutex
	errs   []error
}

// join makes a node. Its clock shows a time of its own, and is fast or slow by a little less than may be.
func (p *party) join(t *testing.T, store throttlekit.Store, node string, change func(*concurrency.FleetConfig)) *attendant {
	t.Helper()
	n := p.joined.Add(1)
	start, offset, pace := time.Now(), time.Duration(n)*time.Hour, 1+0.0009*float64(n%3-1)
	a := &attendant{party: p}
	config := concurrency.FleetConfig{
		Local: concurrency.Config{
			MinLimit: p.limit, MaxLimit: p.limit, Queue: 1000,
			Elapsed: func() time.Duration { return offset + time.Duration(float64(time.Since(start))*pace) },
		},
		Ceiling: p.ceiling, Store: store, Key: p.key, Node: node, Heartbeat: fleetBeat, TTL: fleetTTL, Eager: true,
		OnFence: func() { a.fences.Add(1) },
		OnError: func(err error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.errs = append(a.errs, err)
		},
	}
	if change != nil {
		change(&config)
	}
	guard, err := concurrency.NewFleetGuard(config)
	if err != nil {
		t.Fatal(err)
	}
	a.FleetGuard = guard
	t.Cleanup(func() {
		_ = guard.Close()
		if got := guard.Stats(); got.InFlight != 0 || got.Waiting != 0 {
			t.Errorf("%s: %+v at the end", node, got)
		}
	})
	return a
}

// load has callers ask for permits and use them until stop is called, which waits for them.
func (a *attendant) load(t *testing.T, callers int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			r := rand.New(rand.NewPCG(*seed, uint64(caller)))
			for {
				permit, err := a.AcquirePriority(ctx, concurrency.Priority(r.IntN(3)-1))
				if err != nil {
					return
				}
				if permit.Allowed {
					a.party.backend.enter()
					wait(t, time.Duration(r.Int64N(int64(20*time.Millisecond))))
					a.party.backend.leave()
					permit.Release()
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// until waits for something to become true.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for start := time.Now(); !holds(); wait(t, 2*time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("never: %s", what)
		}
	}
}

// have waits until nodes have shares that they may use.
func have(t *testing.T, want int, nodes ...*attendant) {
	t.Helper()
	until(t, fmt.Sprintf("%d nodes have %d slots each", len(nodes), want), func() bool {
		for _, n := range nodes {
			if got := n.Stats(); got.Share != want || got.Fenced {
				return false
			}
		}
		return true
	})
}

// serve waits until the backend has served so many more requests.
func (p *party) serve(t *testing.T, more int64) {
	t.Helper()
	goal := p.backend.served.Load() + more
	until(t, "the fleet serves", func() bool { return p.backend.served.Load() >= goal })
}

// apart is a store of its own behind a proxy.
func apart(t *testing.T, server *redistest.Server, prefix string) (throttlekit.Store, *redistest.Proxy) {
	t.Helper()
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	return open(t, "redis://"+proxy.Addr, redisstore.Config{Prefix: prefix, Timeout: fleetBeat}), proxy
}

func TestFleetGrows(t *testing.T) {
	t.Parallel()
	store := open(t, shared.URL(), redisstore.Config{})
	p := newParty(t, fleetLimit, concurrency.CeilingConfig{})
	var nodes []*attendant
	for i, share := range []int{12, 6, 4} {
		nodes = append(nodes, p.join(t, store, fmt.Sprint("n", i), nil))
		nodes[i].load(t, 20)
		have(t, share, nodes...)
		p.serve(t, 100)
	}
	for i, share := range []int{6, 12} {
		_ = nodes[i].Close()
		have(t, share, nodes[i+1:]...)
		p.serve(t, 100)
	}
	p.check(t, fleetLimit)
}

// TestFleetByDemand has one node that is busy and two that are not.
func TestFleetByDemand(t *testing.T) {
	t.Parallel()
	store := open(t, shared.URL(), redisstore.Config{})
	p := newParty(t, fleetLimit, concurrency.CeilingConfig{Allocation: concurrency.DemandProportional})
	hot := p.join(t, store, "hot", nil)
	idle := []*attendant{p.join(t, store, "idle-0", nil), p.join(t, store, "idle-1", nil)}
	stop := hot.load(t, 40)
	have(t, 1, idle...)
	have(t, fleetLimit-2, hot)
	for _, n := range idle { // who is idle may begin
		until(t, "an idle node gets a permit", func() bool {
			permit := n.TryAcquire()
			permit.Cancel()
			return permit.Allowed
		})
	}
	stop()
	idle[0].load(t, 40) // the others' turn
	have(t, fleetLimit-2, idle[0])
	have(t, 1, hot, idle[1])
	p.check(t, fleetLimit-2)
}

// TestFleetNodeKilled kills a node that has slots in use: it is silent, and nobody is told.
func TestFleetNodeKilled(t *testing.T) {
	t.Parallel()
	short(t)
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
	line, proxy := apart(t, shared, prefix)
	p := newParty(t, fleetLimit, concurrency.CeilingConfig{})
	nodes := []*attendant{p.join(t, store, "a", nil), p.join(t, store, "b", nil)}
	victim := p.join(t, line, "c", nil)
	for _, n := range nodes {
		n.load(t, 20)
	}
	have(t, 4, append(nodes, victim)...)
	var held []concurrency.Permit
	for range 4 {
		held = append(held, victim.TryAcquire())
		p.backend.enter()
	}
	until(t, "the store knows", func() bool { return victim.Beat(t.Context()) == nil })
	proxy.Freeze()
	for range held { // its requests end with it
		p.backend.leave()
	}
	conn := dial(t, shared)
	until(t, "the beat that was on its way has ended", func() bool { return victim.Beat(t.Context()) != nil })
	record, _ := do(t, conn, "HGET", prefix+":"+p.key, "c").(string)
	var limit, inFlight, expires int64
	if _, err := fmt.Sscan(record, &limit, &inFlight, &expires); err != nil || limit != fleetLimit || inFlight != 4 {
		t.Fatalf("the record of the node is %q, %v", record, err)
	}
	until(t, "the others have more", func() bool { return nodes[0].Stats().Share > 4 || nodes[1].Stats().Share > 4 })
	late := millisOf(t, conn) - expires
	if late <= 0 || victim.fences.Load() != 1 {
		t.Errorf("given away %d ms before it may be; the node was fenced %d times", -late, victim.fences.Load())
	}
	have(t, 6, nodes...)
	t.Logf("given away %d ms after the TTL, all of it after %d ms; a beat is %v", late, millisOf(t, conn)-expires, fleetBeat)
	p.serve(t, 200)
	for _, permit := range held {
		permit.Cancel()
	}
	p.check(t, fleetLimit)
}

// TestFleetPartition cuts one of three nodes off under load, twice: for long enough to lose its place, while others
// come and go, and again. What it sent in the meantime arrives when the partition ends.
func TestFleetPartition(t *testing.T) {
	t.Parallel()
	short(t)
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
	line, proxy := apart(t, shared, prefix)
	p := newParty(t, fleetLimit, concurrency.CeilingConfig{})
	nodes := []*attendant{p.join(t, store, "a", nil), p.join(t, store, "b", nil)}
	cutOff := p.join(t, line, "c", nil)
	all := []*attendant{nodes[0], nodes[1], cutOff}
	for _, n := range all {
		n.load(t, 20)
	}
	for round := range int64(2) {
		have(t, 4, all...)
		p.serve(t, 100)
		proxy.Freeze()
		until(t, "the others have more", func() bool { return nodes[0].Stats().Share > 4 || nodes[1].Stats().Share > 4 })
		if cutOff.fences.Load() != round+1 || !cutOff.Stats().Fenced || cutOff.TryAcquire().Allowed {
			t.Errorf("its share was given away before the node was fenced: %+v, %d times", cutOff.Stats(), cutOff.fences.Load())
		}
		have(t, 6, nodes...)
		for i := range 2 { // generations pass
			guest := p.join(t, store, fmt.Sprint("guest-", round, i), nil)
			have(t, 4, nodes[0], nodes[1], guest)
			if err := guest.Close(); err != nil {
				t.Error(err)
			}
			have(t, 6, nodes...)
		}
		p.serve(t, 200)
		proxy.Thaw()
	}
	have(t, 4, all...)
	if cutOff.Stats().Fenced || cutOff.fences.Load() != 2 {
		t.Errorf("%+v, fenced %d times", cutOff.Stats(), cutOff.fences.Load())
	}
	p.serve(t, 200)
	p.check(t, fleetLimit)
}

// TestFleetStoreFails ends the server, with its data and without, and freezes it. Guards that are closed in an outage
// fence themselves, and serve again when it is over.
func TestFleetStoreFails(t *testing.T) {
	t.Parallel()
	short(t)
	for name, fault := range map[string]struct {
		persist bool
		begin   func(*redistest.Server) error
		end     func(context.Context, *redistest.Server) error
	}{
		"killed": {
			true, (*redistest.Server).Kill,
			func(ctx context.Context, s *redistest.Server) error { return s.Restart(ctx, false) },
		},
		"killed and emptied": {
			false, (*redistest.Server).Kill,
			func(ctx context.Context, s *redistest.Server) error { return s.Restart(ctx, true) },
		},
		"frozen": {
			false, (*redistest.Server).Freeze,
			func(_ context.Context, s *redistest.Server) error { return s.Thaw() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, redistest.Options{Persist: fault.persist})
			prefix := freshPrefix()
			p := newParty(t, fleetLimit, concurrency.CeilingConfig{})
			var nodes []*attendant
			for i := range 3 {
				store := open(t, server.URL(), redisstore.Config{Prefix: prefix, Timeout: fleetBeat})
				nodes = append(nodes, p.join(t, store, fmt.Sprint("n", i), nil))
				nodes[i].load(t, 20)
			}
			have(t, 4, nodes...)
			p.serve(t, 100)
			if err := fault.begin(server); err != nil {
				t.Fatal(err)
			}
			until(t, "all are fenced, and nothing is in flight", func() bool {
				for _, n := range nodes {
					if !n.Stats().Fenced || n.TryAcquire().Allowed {
						return false
					}
				}
				return p.backend.inFlight.Load() == 0
			})
			served := p.backend.served.Load()
			wait(t, fleetTTL)
			if now := p.backend.served.Load(); now != served {
				t.Errorf("%d were served without a store", now-served)
			}
			for i, n := range nodes {
				n.mu.Lock()
				err := errors.Join(n.errs...)
				n.mu.Unlock()
				if !errors.Is(err, throttlekit.ErrStoreUnavailable) || n.fences.Load() != 1 {
					t.Errorf("node %d: fenced %d times, %v", i, n.fences.Load(), err)
				}
			}
			if err := fault.end(t.Context(), server); err != nil {
				t.Fatal(err)
			}
			have(t, 4, nodes...)
			p.serve(t, 200)
			p.check(t, fleetLimit)
		})
	}
}

// TestFleetWithoutStore is a fleet whose nodes go by their own limits in an outage, and come together after it.
func TestFleetWithoutStore(t *testing.T) {
	t.Parallel()
	short(t)
	server := start(t, redistest.Options{})
	p := newParty(t, fleetLimit, concurrency.CeilingConfig{})
	prefix := freshPrefix()
	var nodes []*attendant
	for i := range 3 {
		store := open(t, server.URL(), redisstore.Config{Prefix: prefix, Timeout: fleetBeat})
		nodes = append(nodes, p.join(t, store, fmt.Sprint("n", i), func(c *concurrency.FleetConfig) { c.Outage = concurrency.LocalOnly }))
	}
	have(t, 4, nodes...)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.load(t, 20)
	}
	have(t, fleetLimit, nodes...)
	until(t, "each goes by its own limit", func() bool { return p.backend.most.Load() > 2*fleetLimit })
	if err := server.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	have(t, 4, nodes...)
	until(t, "they have come together", func() bool { return p.backend.inFlight.Load() <= fleetLimit })
	p.backend.most.Store(0)
	p.serve(t, 1000)
	p.check(t, fleetLimit)
	for i, n := range nodes {
		if n.fences.Load() != 0 {
			t.Errorf("node %d was fenced", i)
		}
	}
}

// TestFleetNodeIDsThatCollide has two processes with one id.
func TestFleetNodeIDsThatCollide(t *testing.T) {
	t.Parallel()
	store := open(t, shared.URL(), redisstore.Config{})
	p := newParty(t, fleetLimit, concurrency.CeilingConfig{})
	owned := func(owner string) func(*concurrency.FleetConfig) {
		return func(c *concurrency.FleetConfig) { c.Owner = owner }
	}
	first := p.join(t, store, "web-1", owned("host-a#17#x"))
	have(t, fleetLimit, first)
	other := p.join(t, store, "web-1", owned("host-b#23#y"))
	err := other.Beat(t.Context())
	if !errors.Is(err, concurrency.ErrNodeTaken) {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{`"web-1"`, `"host-a#17#x"`, `"host-b#23#y"`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	if other.TryAcquire().Allowed {
		t.Error("admitted under the id of another")
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	have(t, fleetLimit, other)
}

// TestFleetOfMany has 64 callers on each of 16 nodes, on lines that are cut and frozen at random.
func TestFleetOfMany(t *testing.T) {
	t.Parallel()
	short(t)
	const limit, lines = 100, 4
	prefix := freshPrefix()
	p := newParty(t, limit, concurrency.CeilingConfig{})
	var stores []throttlekit.Store
	var proxies []*redistest.Proxy
	for range lines {
		store, proxy := apart(t, shared, prefix)
		stores, proxies = append(stores, store), append(proxies, proxy)
	}
	var nodes []*attendant
	for i := range 16 {
		nodes = append(nodes, p.join(t, stores[i%lines], fmt.Sprintf("n%02d", i), nil))
		nodes[i].load(t, 64)
	}
	all := func() int {
		sum := 0
		for _, n := range nodes {
			sum += n.Stats().Share
		}
		return sum
	}
	until(t, "all slots are given out", func() bool { return all() == limit })
	r := rand.New(rand.NewPCG(*seed, 16))
	for range 8 {
		proxy := proxies[r.IntN(lines-1)] // one is left alone
		if r.IntN(2) == 0 {
			proxy.Cut()
		} else {
			proxy.Freeze()
		}
		wait(t, time.Duration(r.Int64N(int64(fleetTTL))))
		proxy.Thaw()
	}
	until(t, "all slots are given out again", func() bool { return all() == limit })
	for i, n := range nodes {
		if share := n.Stats().Share; share != limit/16 && share != limit/16+1 {
			until(t, fmt.Sprintf("node %d has its part", i), func() bool { return n.Stats().Share >= limit/16 })
		}
	}
	p.serve(t, 500)
	p.check(t, limit)
	var fences int64
	for _, n := range nodes {
		fences += n.fences.Load()
	}
	t.Logf("fenced %d times", fences)
}

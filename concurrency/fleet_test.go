package concurrency

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

const fleetKey = "tk:fedconc:test"

// bubble is the clock of a store in the time of a synctest bubble.
type bubble struct{}

func (bubble) NowMillis() int64 { return time.Now().UnixMilli() }

func newBubbleStore(tb testing.TB) throttlekit.Store {
	tb.Helper()
	s, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: bubble{}})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// line is what stands between a node and its store. It counts, delays, loses and refuses.
type line struct {
	throttlekit.Store

	mu       sync.Mutex
	down     error                              // what calls fail with, if not nil
	way      func() (there, back time.Duration) // how long a call and its answer take; nil for no time
	beats    []time.Time
	leaves   int
	underWay int
	most     int // calls under way at once
	ghosts   sync.WaitGroup
}

var errDown = fmt.Errorf("%w: unplugged", throttlekit.ErrStoreUnavailable)

func (l *line) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	l.mu.Lock()
	if h := t.(heartbeat); h.leave {
		l.leaves++
	} else {
		l.beats = append(l.beats, time.Now())
	}
	l.underWay++
	l.most = max(l.most, l.underWay)
	down, way := l.down, l.way
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.underWay--
	}()
	if down != nil {
		return throttlekit.Decision{}, down
	}
	if way == nil {
		return l.Store.Apply(ctx, key, t, cost)
	}
	type answer struct {
		d   throttlekit.Decision
		err error
	}
	answers := make(chan answer, 1)
	there, back := way()
	l.ghosts.Go(func() { // a call arrives, however long its caller has gone
		<-time.After(there)
		d, err := l.Store.Apply(context.WithoutCancel(ctx), key, t, cost)
		<-time.After(back)
		answers <- answer{d, err}
	})
	select {
	case a := <-answers:
		return a.d, a.err
	case <-ctx.Done():
		return throttlekit.Decision{}, ctx.Err()
	}
}

func (l *line) set(down error, way func() (there, back time.Duration)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down, l.way = down, way
}

// counts is what went over a line.
type counts struct {
	beats        []time.Time
	leaves, most int
}

func (l *line) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{slices.Clone(l.beats), l.leaves, l.most}
}

func (l *line) count() int { return len(l.counts().beats) }

func takes(there, back time.Duration) func() (there, back time.Duration) {
	return func() (time.Duration, time.Duration) { return there, back }
}

func newTestCeiling(tb testing.TB, config CeilingConfig) *Ceiling {
	tb.Helper()
	c, err := NewCeiling(config)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// fixed is a local guard whose limit stays what it is.
func fixed(limit int) Config { return Config{MinLimit: limit, MaxLimit: limit} }

// testNode is a guard in a fleet, with a line of its own to the store.
type testNode struct {
	*FleetGuard

	line *line
}

// join makes a node and lets its first beat be answered, if that takes no time.
func join(tb testing.TB, store throttlekit.Store, node string, limit int, change func(*FleetConfig)) testNode {
	tb.Helper()
	l := &line{Store: store}
	config := FleetConfig{Local: fixed(limit), Store: l, Key: fleetKey, Node: node}
	config.Local.Queue = 100
	if change != nil {
		change(&config)
	}
	if config.Ceiling == nil {
		config.Ceiling = newTestCeiling(tb, CeilingConfig{})
	}
	f, err := NewFleetGuard(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = f.Close()
		l.ghosts.Wait()
	})
	synctest.Wait()
	return testNode{f, l}
}

// step beats and returns the share.
func (n testNode) step(t *testing.T) int {
	t.Helper()
	if err := n.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n.Stats().Share
}

// take acquires permits, and fails if there are not exactly as many.
func take(t *testing.T, g interface{ TryAcquire() Permit }, want int) []Permit {
	t.Helper()
	var all []Permit
	for {
		p := g.TryAcquire()
		if !p.Allowed {
			break
		}
		all = append(all, p)
	}
	if len(all) != want {
		t.Fatalf("got %d permits, want %d", len(all), want)
	}
	return all
}

func end(permits []Permit) {
	for _, p := range permits {
		p.Cancel()
	}
}

// notes are what happened, written by any goroutine.
type notes[T any] struct {
	mu  sync.Mutex
	all []T
}

func (n *notes[T]) add(x T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

func (n *notes[T]) read() []T {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// after lets time pass until a moment since start, and everything happen that happens by then.
func after(start time.Time, d time.Duration) {
	<-time.After(time.Until(start.Add(d)))
	synctest.Wait()
}

func handoff(tb testing.TB) func(*FleetConfig) {
	tb.Helper()
	return func(c *FleetConfig) { c.Ceiling = newTestCeiling(tb, CeilingConfig{AcknowledgedHandoff: true}) }
}

func TestSharesOfTwo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		a := join(t, store, "a", 10, nil)
		held := take(t, a, 10)
		if got := a.Stats(); got.Share != 10 || got.Ceiling != 10 || got.Nodes != 1 || got.Limit != 10 || got.InFlight != 10 || got.Fenced {
			t.Errorf("%+v", got)
		}
		end(held[9:])
		a.step(t)
		b := join(t, store, "b", 10, nil)
		take(t, b, 0) // a goes by 10
		if got := a.step(t); got != 5 {
			t.Errorf("a has %d", got)
		}
		if got := b.step(t); got != 1 {
			t.Errorf("b has %d while a has 9 in flight", got)
		}
		take(t, b, 1)
		take(t, a, 0) // 9 are in flight here
		end(held[:9])
		take(t, a, 5)
		if got := []int{a.step(t), b.step(t)}; !slices.Equal(got, []int{5, 5}) {
			t.Errorf("%v", got)
		}
		take(t, b, 4)
	})
}

func TestHandoffWaitsForTheAcknowledgement(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		a := join(t, store, "a", 6, handoff(t))
		b := join(t, store, "b", 6, handoff(t))
		var got []int
		for _, n := range []testNode{a, b, a, b} {
			got = append(got, n.step(t))
		}
		if want := []int{3, 0, 3, 3}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestLeaving(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		a, b := join(t, store, "a", 6, handoff(t)), join(t, store, "b", 6, handoff(t))
		end(take(t, a, 6))
		waits := make(chan error, 1)
		take(t, b, 0)
		go func() { waits <- second(b.Acquire(t.Context())) }()
		synctest.Wait()
		for range 3 {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-waits; !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("%v", err)
		}
		if got := a.step(t); got != 6 || a.Stats().Nodes != 1 {
			t.Errorf("%d slots, %d nodes", got, a.Stats().Nodes)
		}
		beats := b.line.count()
		for _, beat := range []func(context.Context) error{b.Beat, b.beat} {
			if err := beat(t.Context()); !errors.Is(err, throttlekit.ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		<-time.After(time.Minute)
		if b.line.counts().leaves != 1 || b.line.count() != beats {
			t.Errorf("%d leaves, %d beats after Close", b.line.counts().leaves, b.line.count()-beats)
		}
		if got := b.Stats(); got.Share != 0 || b.TryAcquire().Allowed {
			t.Errorf("%+v", got)
		}
		if a.Stats().Nodes != 1 {
			t.Error("who left has come back")
		}
		if err := a.Close(); err != nil || a.Stats().Share != 0 || a.TryAcquire().Allowed {
			t.Errorf("%+v, %v", a.Stats(), err)
		}
	})
}

func second(_ Permit, err error) error { return err }

// TestLeavingWithPermitsOut keeps the slots that are in use until the TTL has passed.
func TestLeavingWithPermitsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		store := newBubbleStore(t)
		a := join(t, store, "a", 6, handoff(t))
		held := take(t, a, 6)
		after(start, 900*ms)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		b := join(t, store, "b", 6, handoff(t))
		if got := b.Stats().Share; got != 0 {
			t.Errorf("b has %d", got)
		}
		a.line.set(errors.New("nobody is asked"), nil)
		end(held)
		if got := a.Stats(); got.InFlight != 0 || a.line.counts().leaves != 0 {
			t.Errorf("%+v, %d leaves", got, a.line.counts().leaves)
		}
		after(start, 2900*ms) // the TTL counts from the goodbye
		if got := b.step(t); got != 0 {
			t.Errorf("b has %d", got)
		}
		after(start, 2901*ms)
		if got := b.step(t); got != 6 {
			t.Errorf("b has %d", got)
		}
	})
}

// TestLeavingDuringABeat must not join again.
func TestLeavingDuringABeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		a := join(t, store, "a", 6, nil)
		a.line.set(nil, takes(100*ms, 100*ms))
		beat := make(chan error, 2)
		for range 2 {
			go func() { beat <- a.Beat(t.Context()) }()
		}
		synctest.Wait()
		a.line.set(nil, nil) // what is sent now overtakes the beat
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if first, other := <-beat, <-beat; errors.Is(first, throttlekit.ErrClosed) == errors.Is(other, throttlekit.ErrClosed) {
			t.Errorf("%v and %v, want one to have been sent", first, other)
		}
		if got := join(t, store, "b", 6, nil).Stats(); got.Nodes != 1 || got.Share != 6 {
			t.Errorf("%+v", got)
		}
	})
}

func TestNodeIDsThatCollide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		named := func(owner string, errs *notes[error]) func(*FleetConfig) {
			return func(c *FleetConfig) {
				c.Owner = owner
				c.OnError = errs.add
			}
		}
		var firsts, seconds notes[error]
		first := join(t, store, "n1", 6, named("host-a#1", &firsts))
		second := join(t, store, "n1", 6, named("host-b#2", &seconds))
		refused := errors.Join(seconds.read()...)
		if !errors.Is(refused, ErrNodeTaken) {
			t.Fatalf("%v", refused)
		}
		for _, part := range []string{`"n1"`, `"host-a#1"`, `"host-b#2"`} {
			if !strings.Contains(refused.Error(), part) {
				t.Errorf("%q does not name %s", refused, part)
			}
		}
		take(t, second, 0)
		<-time.After(10 * time.Second)
		end(take(t, first, 6))
		take(t, second, 0)
		if all := firsts.read(); len(all) != 0 {
			t.Errorf("%v", all)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		<-time.After(1100 * ms)
		end(take(t, second, 6))

		third := join(t, store, "n1", 6, nil) // goes without ever having been a member
		if err := third.Close(); err != nil {
			t.Error(err)
		}
		<-time.After(10 * time.Second)
		end(take(t, second, 6))
	})
}

func TestAFleetThatIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		one := func(c *FleetConfig) { c.Ceiling = newTestCeiling(t, CeilingConfig{MaxNodes: 1}) }
		join(t, store, "a", 6, one)
		b := join(t, store, "b", 6, one)
		if err := b.Beat(t.Context()); !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), "1 nodes") {
			t.Errorf("%v", err)
		}
		take(t, b, 0)
	})
}

// TestAShareThatGrows serves who waits, in order, and one that shrinks takes no permit back.
func TestAShareThatGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBubbleStore(t)
		a, b := join(t, store, "a", 8, nil), join(t, store, "b", 8, nil)
		held := take(t, a, 8)
		var order []string
		for i, priority := range []Priority{Low, Normal, High, Normal} {
			wait(t.Context(), b.guard, priority, func(p Permit, err error) {
				if err != nil || !p.Allowed {
					t.Errorf("%+v, %v", p, err)
				}
				order = append(order, fmt.Sprint(priority, i))
			})
		}
		if got := a.step(t); got != 4 || a.Stats().InFlight != 8 || a.TryAcquire().Allowed {
			t.Errorf("a has %d, %+v", got, a.Stats())
		}
		var want []string
		for i, next := range []string{"1 2", "0 1", "0 3", "-1 0"} {
			held[i].Release()
			a.step(t)
			b.step(t)
			synctest.Wait()
			want = append(want, next)
			if !slices.Equal(order, want) || b.Stats().Waiting != 3-i {
				t.Fatalf("served %v, want %v", order, want)
			}
		}
	})
}

func TestFleetConfigsThatAreRefused(t *testing.T) {
	t.Parallel()
	good := func() FleetConfig {
		return FleetConfig{Ceiling: newTestCeiling(t, CeilingConfig{}), Store: newBubbleStore(t), Key: "k", Node: "n"}
	}
	for field, change := range map[string]func(*FleetConfig){
		"ceiling":      func(c *FleetConfig) { c.Ceiling = nil },
		"store":        func(c *FleetConfig) { c.Store = nil },
		"key":          func(c *FleetConfig) { c.Key = "" },
		"nodeId":       func(c *FleetConfig) { c.Node = "" },
		"owner":        func(c *FleetConfig) { c.Owner = "\xff" },
		"heartbeat":    func(c *FleetConfig) { c.Heartbeat, c.TTL, c.FenceMargin = time.Microsecond, time.Second, ms },
		"ttl":          func(c *FleetConfig) { c.TTL = time.Second },
		"outage":       func(c *FleetConfig) { c.Outage = "open" },
		"minHeartbeat": func(c *FleetConfig) { c.MinHeartbeat = 2 * time.Second },
		"timeout":      func(c *FleetConfig) { c.Timeout = 2 * time.Second },
		"fenceMargin":  func(c *FleetConfig) { c.FenceMargin = 997 * ms },
		"minLimit":     func(c *FleetConfig) { c.Local.MinLimit = -1 },
	} {
		config := good()
		change(&config)
		f, err := NewFleetGuard(config)
		if err == nil {
			_ = f.Close()
		}
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), field+" must") {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, change := range map[string]func(*FleetConfig){
		"ttl":          func(c *FleetConfig) { c.TTL = 25 * time.Hour },
		"minHeartbeat": func(c *FleetConfig) { c.MinHeartbeat = -1 },
		"fenceMargin":  func(c *FleetConfig) { c.Outage, c.FenceMargin = LocalOnly, ms },
	} {
		config := good()
		change(&config)
		if _, err := NewFleetGuard(config); err == nil || !strings.Contains(err.Error(), field+" must") {
			t.Errorf("%s: %v", field, err)
		}
	}
	_, err := NewFleetGuard(FleetConfig{Heartbeat: -1, Local: Config{MinLimit: -1}, Timeout: -1})
	for _, field := range []string{"ceiling", "store", "key", "nodeId", "heartbeat", "timeout", "minLimit"} {
		if err == nil || !strings.Contains(err.Error(), field+" must") {
			t.Errorf("%s is missing from %v", field, err)
		}
	}
	config, err := good().complete()
	if err != nil || config.TTL != 2*time.Second || config.FenceMargin != 500*ms || config.MinHeartbeat != 100*ms || config.Timeout != time.Second {
		t.Errorf("%+v, %v", config, err)
	}
	if again, _ := good().complete(); again.Owner == config.Owner || len(again.Owner) < 10 {
		t.Errorf("owners %q and %q", again.Owner, config.Owner)
	}
}

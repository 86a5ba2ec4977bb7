package fair

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// slow is an escrow on a store that the test holds up. Before its end the test must let all calls pass.
func slow(tb testing.TB, l *lab, limit float64) (*gatedStore, *FederatedEscrow) {
	tb.Helper()
	g := newGated(l.store)
	return g, l.federated(tb, FederatedConfig{
		Region: "eu", Pool: newPool(tb, PoolConfig{Limit: limit}), Store: g, Timeout: time.Minute,
	})
}

// begin starts a check and returns where its answer will be.
func begin(ctx context.Context, c checker, tenant string, cost float64) <-chan result {
	out := make(chan result, 1)
	go func() {
		d, err := c.CheckN(ctx, tenant, cost)
		out <- result{d, err}
	}()
	return out
}

type result struct {
	throttlekit.Decision

	err error
}

// queued waits until n checks wait for a tank.
func queued(tb testing.TB, t *tank, n int) {
	tb.Helper()
	for range 10_000 {
		t.mu.Lock()
		waiting := len(t.queue)
		t.mu.Unlock()
		if waiting == n {
			return
		}
		select {
		case <-tb.Context().Done():
		case <-time.After(time.Millisecond):
		}
	}
	tb.Fatalf("it never came to %d checks that wait", n)
}

// TestOneCallServesAllWhoWait has a hundred checks wait for two calls.
func TestOneCallServesAllWhoWait(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g, f := slow(t, l, 500)
	defer close(g.pass)
	first := begin(t.Context(), f, "a", 3)
	<-g.entered
	rest := make([]<-chan result, 99)
	for i := range rest {
		rest[i] = begin(t.Context(), f, strconv.Itoa(i), 2)
	}
	queued(t, f.tank, 100)
	g.pass <- nil
	if d := <-first; d.err != nil || !d.Allowed {
		t.Fatalf("the first got %+v", d)
	}
	<-g.entered
	g.pass <- nil
	for i, r := range rest {
		if d := <-r; d.err != nil || !d.Allowed {
			t.Errorf("check %d got %+v", i, d)
		}
	}
	if n := g.count(); n != 2 {
		t.Errorf("%d calls for 100 checks, want 2", n)
	}
}

// TestDecidedWithoutTheStore checks that budget which is there serves at once while a call is under way.
func TestDecidedWithoutTheStore(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g := newGated(l.store)
	defer close(g.pass)
	e := l.escrow(t, EscrowConfig{Limit: 30, Store: g, Quantum: 10, Timeout: time.Minute})
	first := begin(t.Context(), e, "a", 1)
	<-g.entered
	g.pass <- nil
	<-first
	long := begin(t.Context(), e, "a", 15)
	<-g.entered
	for i := range 9 {
		if d := check(t, e, "a", 1); !d.Allowed || d.Remaining != int64(8-i) {
			t.Errorf("got %+v while a call is under way", d)
		}
	}
	if d := check(t, e, "a", 25); d.Allowed || d.RetryAfterMillis != 1000 {
		t.Errorf("what can never fit waits for nothing: %+v", d)
	}
	g.pass <- nil // brings 10, of which the long one needs 15
	<-g.entered
	g.pass <- nil
	if d := <-long; d.err != nil || !d.Allowed {
		t.Errorf("got %+v", d)
	}
	if n := g.count(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

// TestACallerThatLeaves ends its own waiting only: the call goes on for the others, and what
// it brings is credited.
func TestACallerThatLeaves(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g, f := slow(t, l, 10)
	defer close(g.pass)
	leaving, leave := context.WithCancel(t.Context())
	first := begin(leaving, f, "a", 4)
	<-g.entered
	second := begin(t.Context(), f, "b", 1)
	queued(t, f.tank, 2)
	leave()
	if d := <-first; !errors.Is(d.err, context.Canceled) || errors.Is(d.err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("the one that left got %+v", d)
	}
	g.pass <- nil
	if d := <-second; d.err != nil || !d.Allowed {
		t.Errorf("the one that stayed got %+v", d)
	}
	if s := f.Stats(); s.TotalUsed != 1 || s.EffectiveLimit != 4 {
		t.Errorf("got %+v, want the grant of 4 and the 1 of the second", s)
	}
}

// TestADeadlineOfTheCallerIsNotTheStoresFault and comes up as it is, before a check waits and while it does.
func TestADeadlineOfTheCallerIsNotTheStoresFault(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g, f := slow(t, l, 10)
	defer close(g.pass)
	hurried, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for range 2 {
		if _, err := f.Check(hurried, "a"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("got %v", err)
		}
	}
	<-g.entered
	g.pass <- nil
}

// TestACallEndsAtItsTimeout and is the store's fault then.
func TestACallEndsAtItsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := throttlekit.NewManualClock(base)
		store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		l := &lab{clock: clock, store: store}
		f := l.federated(t, FederatedConfig{Region: "eu", Pool: newPool(t, PoolConfig{Limit: 5}), Store: newGated(store)})
		begun := time.Now()
		_, err = f.Check(t.Context(), "a")
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || time.Since(begun) != defaultTimeout {
			t.Errorf("got %v after %v", err, time.Since(begun))
		}
	})
}

// TestAFailureReachesAllWhoWait and is forgotten by the next check.
func TestAFailureReachesAllWhoWait(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g, f := slow(t, l, 10)
	defer close(g.pass)
	var all []<-chan result
	for i := range 5 {
		all = append(all, begin(t.Context(), f, strconv.Itoa(i), 1))
	}
	<-g.entered
	queued(t, f.tank, 5)
	broken := errors.New("broken")
	g.pass <- broken
	for _, r := range all {
		if d := <-r; !errors.Is(d.err, broken) {
			t.Errorf("got %+v", d)
		}
	}
	next := begin(t.Context(), f, "a", 1)
	<-g.entered
	g.pass <- nil
	if d := <-next; d.err != nil || !d.Allowed {
		t.Errorf("got %+v after the failure", d)
	}
}

// TestALateLeaseServesItsWindowOnly has a window end while a lease is under way, before or
// after the store has decided: the lease serves whom it was for, in its own window.
func TestALateLeaseServesItsWindowOnly(t *testing.T) {
	t.Parallel()
	t.Run("before the roll", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		g := newGated(l.store)
		defer close(g.pass)
		g.after = true
		e := l.escrow(t, EscrowConfig{Limit: 10, Store: g, Quantum: 10, Timeout: time.Minute})
		rollDuring(t, l, g, e, base+1000)
		second := begin(t.Context(), e, "a", 10)
		<-g.entered
		g.pass <- nil
		if d := <-second; d.err != nil || !d.Allowed || d.ResetAtMillis != base+2000 {
			t.Errorf("got %+v, want the whole new window", d)
		}
		if s := e.Stats(); s.EffectiveLimit != 10 || s.WindowStartMillis != base+1000 {
			t.Errorf("the old lease was credited to the new window: %+v", s)
		}
	})
	t.Run("after the roll", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		g := newGated(l.store)
		defer close(g.pass)
		e := l.escrow(t, EscrowConfig{Limit: 10, Store: g, Quantum: 10, Timeout: time.Minute})
		rollDuring(t, l, g, e, base+2000)
		// The call took as long as the window has left, so that only the store can say whether it still lasts.
		second := begin(t.Context(), e, "a", 9)
		<-g.entered
		g.pass <- nil
		if d := <-second; d.err != nil || !d.Allowed || d.ResetAtMillis != base+2000 {
			t.Errorf("got %+v, want an allow from the first lease", d)
		}
	})
}

// rollDuring has a window end while a lease is under way, which must be for the window that ends at want.
func rollDuring(t *testing.T, l *lab, g *gatedStore, e *Escrow, want int64) {
	t.Helper()
	first := begin(t.Context(), e, "a", 1)
	<-g.entered
	l.clock.Advance(time.Second)
	g.pass <- nil
	if d := <-first; d.err != nil || !d.Allowed || d.ResetAtMillis != want {
		t.Fatalf("got %+v, want an allow of the window that ends at %d", d, want)
	}
}

// TestCloseEndsWaiting answers checks that wait, and leaves no goroutine.
func TestCloseEndsWaiting(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g, f := slow(t, l, 10)
	defer close(g.pass)
	waiting := begin(t.Context(), f, "a", 1)
	<-g.entered
	var closing sync.WaitGroup
	closing.Go(func() { _ = f.Close() })
	if d := <-waiting; !errors.Is(d.err, throttlekit.ErrClosed) {
		t.Errorf("got %+v, want ErrClosed", d)
	}
	g.pass <- nil
	<-g.entered // what the call brought is given back
	g.pass <- nil
	closing.Wait()
	if _, err := f.Check(t.Context(), "a"); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if n := g.count(); n != 2 {
		t.Errorf("%d calls, want the lease and its return", n)
	}
}

// TestCloseHoldsNobodyUp has a store that is silent when it is given units back.
func TestCloseHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g := newGated(l.store)
	defer close(g.pass)
	e := l.escrow(t, EscrowConfig{Limit: 30, Store: g, Quantum: 10, Timeout: time.Hour})
	first := begin(t.Context(), e, "a", 1)
	<-g.entered
	g.pass <- nil
	<-first
	var closing sync.WaitGroup
	closing.Go(func() { _ = e.Close() })
	<-g.entered
	select {
	case d := <-begin(t.Context(), e, "a", 1):
		if !errors.Is(d.err, throttlekit.ErrClosed) {
			t.Errorf("got %+v, want ErrClosed", d)
		}
	case <-time.After(10 * time.Second):
		t.Error("a check waits until the store has taken back what was leased")
	}
	g.pass <- nil
	closing.Wait()
	if s := e.Stats(); s.EffectiveLimit != 1 {
		t.Errorf("got %+v, want the 1 that was used", s)
	}
	if d := check(t, l.escrow(t, EscrowConfig{Limit: 30, Store: l.store, Quantum: 1}), "b", 29); !d.Allowed {
		t.Errorf("got %+v, want all but the 1 that was used", d)
	}
}

// fineClock is a clock that shows milliseconds and runs in microseconds, with a monotonic one that loses ppm of them.
type fineClock struct{ micros, ppm int64 }

func (c *fineClock) NowMillis() int64 { return base + c.micros/1000 }

func (c *fineClock) monotonic() time.Duration {
	return time.Duration(c.micros)*time.Microsecond - time.Duration(c.micros*c.ppm/1000)
}

// TestLeasesEndBeforeTheirWindow has the store round its time down, and the clock of whoever
// has leased run slower than the store's. In the next window the units of the last are worth nothing.
func TestLeasesEndBeforeTheirWindow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		leased, asked int64 // in microseconds
		ppm           int64
	}{
		"rounding": {leased: 900, asked: 60_000_500},
		"drift":    {asked: 60_000_000, ppm: throttlekit.Drift},
		"both":     {leased: 999, asked: 60_000_000, ppm: throttlekit.Drift},
	} {
		for kind, start := range map[string]func(*lab, *fineClock) func(i int) checker{
			"shared": func(l *lab, clock *fineClock) func(i int) checker {
				return func(int) checker {
					e, err := NewEscrow(EscrowConfig{
						Limit: 100, Window: time.Minute, Store: l.store, Quantum: 100, Monotonic: clock.monotonic,
					})
					if err != nil {
						t.Fatal(err)
					}
					return e
				}
			},
			"federated": func(l *lab, clock *fineClock) func(i int) checker {
				p := newPool(t, PoolConfig{Limit: 100, Window: time.Minute})
				return func(i int) checker {
					return l.federated(t, FederatedConfig{Region: strconv.Itoa(i), Pool: p, Monotonic: clock.monotonic})
				}
			},
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				clock := &fineClock{micros: tt.leased, ppm: tt.ppm}
				store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = store.Close() })
				region := start(&lab{store: store}, clock)
				old, other := region(0), region(1)
				check(t, old, "x", 1)
				check(t, old, "y", 1)
				check(t, old, "y", 30)
				check(t, old, "y", 10) // leases more than is used, for x has a claim
				clock.micros = tt.asked
				if got := drain(t, ask{other, "z", 1}, ask{old, "x", 1}); got["z"]+got["x"] > 100 {
					t.Errorf("got %v in the next window, want 100 at most", got)
				}
			})
		}
	}
}

// TestTheEndOfAWindow is reported as the store says it, and costs a check two calls at most in the
// last millisecond, in which only the store knows whether the window lasts.
func TestTheEndOfAWindow(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	g := newGated(l.store)
	close(g.pass)
	config := FederatedConfig{Region: "eu", Pool: newPool(t, PoolConfig{Limit: 10}), Store: g}
	f := l.federated(t, config)
	for i := range int64(9) {
		l.clock.Set(base + 111*i)
		if d := check(t, f, "a", 1); !d.Allowed {
			t.Errorf("got %+v at %d", d, 111*i)
		}
	}
	l.clock.Set(base + 997)
	if d := check(t, f, "a", 11); d.Allowed || d.RetryAfterMillis != 3 {
		t.Errorf("got %+v, want to wait for 3 ms", d)
	}
	l.clock.Set(base + 999)
	before := g.count()
	if d := check(t, f, "a", 1); !d.Allowed || d.ResetAtMillis != base+1000 {
		t.Errorf("got %+v, want the last unit of the window", d)
	}
	if n := g.count() - before; n > 2 {
		t.Errorf("%d calls for one check", n)
	}
}

// TestConcurrentEverything is for the race detector: checks, resets, statistics, callers
// that leave and windows that roll.
func TestConcurrentEverything(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p := newPool(t, PoolConfig{Limit: 100})
	limiters := []interface {
		checker
		Reset(tenant string)
		Stats() Stats
	}{
		l.escrow(t, EscrowConfig{Limit: 100, MaxTenants: 4}),
		l.escrow(t, EscrowConfig{Limit: 100, MaxTenants: 4, Store: l.store, Quantum: 3}),
		l.federated(t, FederatedConfig{Region: "eu", Pool: p, MaxTenants: 4}),
		l.federated(t, FederatedConfig{Region: "us", Pool: p, MaxTenants: 4}),
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 300 {
				c := limiters[(worker+i)%len(limiters)]
				ctx, cancel := context.WithCancel(t.Context())
				if i%10 == 0 {
					cancel()
				}
				if _, err := c.CheckN(ctx, strconv.Itoa(i%7), float64(1+i%3)); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
				switch i % 25 {
				case 0:
					c.Reset(strconv.Itoa(i % 7))
				case 1:
					if s := c.Stats(); s.TotalUsed > s.EffectiveLimit || s.EffectiveLimit > s.Limit {
						t.Errorf("got %+v", s)
					}
				case 2:
					l.clock.Advance(40 * time.Millisecond)
				}
			}
		})
	}
	group.Wait()
}

func TestRecordsAsText(t *testing.T) {
	t.Parallel()
	p := newPool(t, PoolConfig{Limit: 100})
	eu, err := p.Grant("eu", 0.1)
	if err != nil {
		t.Fatal(err)
	}
	us, err := p.Grant("u\ns", 3)
	if err != nil {
		t.Fatal(err)
	}
	var rec throttlekit.Record
	for i, move := range []throttlekit.Transition{eu, us, eu, us} {
		next, want, ttl := move.Apply(rec, base, float64(10*i+5))
		text, err := move.Encode(next)
		if err != nil {
			t.Fatal(err)
		}
		if rec, err = move.Decode(text); err != nil {
			t.Fatal(err)
		}
		again, got, _ := move.Apply(rec, base, 1)
		if got.Limit != want.Limit || ttl != 1000 || again.A != next.A {
			t.Errorf("%s: got %+v, want the total of %+v, ttl %d", text, got, want, ttl)
		}
	}
	if text, err := eu.Encode(rec); err != nil || string(text) != `{"ws":1699999980000,"regions":{"eu":{"w":0.1,"g":5},"u\ns":{"w":3,"g":35}}}` {
		t.Errorf("got %s, %v", text, err)
	}
	for _, text := range []string{
		"", "null", "{}", "5", `{"ws":1}{}`, `{"ws":1,"x":2}`, `{"ws":"1"}`, `{"ws":1,"regions":{"":{"w":1,"g":1}}}`,
		`{"ws":1,"regions":{"eu":null}}`, `{"ws":1,"regions":{"eu":{"w":-1,"g":1}}}`, `{"ws":1,"regions":{"eu":{"w":1,"g":-1}}}`,
	} {
		if _, err := eu.Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), "regionPool") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

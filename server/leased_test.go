package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/service"
)

// counted counts the requests for leases, and can hold them up.
type counted struct {
	*service.Service

	reserves atomic.Int64
	gate     chan struct{} // nil lets everything through
	lent     func()        // is called before the answer goes out, if not nil
}

func (c *counted) Reserve(ctx context.Context, policy, domain string, wants int64) (service.Grant, error) {
	c.reserves.Add(1)
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return service.Grant{}, ctx.Err()
		}
	}
	g, err := c.Service.Reserve(ctx, policy, domain, wants)
	if c.lent != nil {
		c.lent()
	}
	return g, err
}

// stopwatch is the monotonic clock of a client, which a test moves.
type stopwatch struct{ now atomic.Int64 }

func (s *stopwatch) elapsed() time.Duration  { return time.Duration(s.now.Load()) }
func (s *stopwatch) advance(d time.Duration) { s.now.Add(int64(d)) }

func connectTo(tb testing.TB, addr string, opts ...client.Option) *client.Client {
	tb.Helper()
	c := must(client.Dial(addr, append([]client.Option{client.WithTimeout(30 * time.Second)}, opts...)...))
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// leased is a limiter on the policy "fleet" that fetches when it is short, and its clock.
func leased(tb testing.TB, c *client.Client, batch int64, opts ...client.LeaseOption) (*client.Leased, *stopwatch) {
	tb.Helper()
	var watch stopwatch
	opts = append([]client.LeaseOption{client.WithElapsed(watch.elapsed), client.WithLowWater(0)}, opts...)
	l := must(c.Fleet().Leased("fleet", "", batch, opts...))
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	return l, &watch
}

// admits is how many of n checks a limiter admits.
func admits(tb testing.TB, l throttlekit.Checker, n int) (allowed int) {
	tb.Helper()
	for range n {
		d, err := l.Check(tb.Context(), "anybody")
		if err != nil {
			tb.Fatal(err)
		}
		if d.Allowed {
			allowed++
		}
	}
	return allowed
}

// However the clocks of a fleet run, no window of the store admits more than the limit. The clients know nothing of the
// store's time but how long leases last.
func TestLeasedKeepsTheLimitInEveryWindow(t *testing.T) {
	t.Parallel()
	const limit, windows, step = 100, 6, 7 * time.Second
	clock := throttlekit.NewManualClock(1_795_000_000_000)
	svc := lendingFrom(t, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})), limit)
	s, _ := serve(t, svc, local())
	var fleet [4]*client.Leased
	var watches [4]*stopwatch
	for i := range fleet {
		// Origins are far apart, and clocks run up to 500 ppm fast or slow.
		fleet[i], watches[i] = leased(t, connectTo(t, s.GRPCAddr().String()), int64(7+5*i))
		watches[i].advance(time.Duration(i) * 1000 * time.Hour)
	}
	admitted := map[int64]int{}
	for elapsed := time.Duration(0); elapsed < windows*time.Minute; elapsed += step {
		for i, l := range fleet {
			admitted[clock.NowMillis()/60_000] += admits(t, l, 9)
			watches[i].advance(step + time.Duration(i-2)*step/4000)
		}
		clock.Advance(step)
	}
	for window, n := range admitted {
		if n > limit {
			t.Errorf("window %d admitted %d, more than %d", window, n, limit)
		}
	}
	if len(admitted) < windows {
		t.Errorf("%d windows were seen, want %d", len(admitted), windows)
	}
	t.Logf("admitted by window: %v", admitted)
}

// A unit is spent up to the end of its window and not later: what a client holds at the roll is gone.
func TestLeasedEndsWithItsWindow(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(30_000)
	svc := &counted{Service: lendingFrom(t, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})), 100)}
	s, _ := serve(t, svc, local())
	l, watch := leased(t, connectTo(t, s.GRPCAddr().String()), 10)
	d, err := l.Check(t.Context(), "anybody")
	if want := (throttlekit.Decision{Allowed: true, Limit: 100, Remaining: 9, ResetAtMillis: 60_000}); d != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", d, err, want)
	}
	watch.advance(29_900 * time.Millisecond)
	if l.Held() != 9 || admits(t, l, 1) != 1 || svc.reserves.Load() != 1 {
		t.Errorf("%d units are held shortly before the end", l.Held())
	}
	watch.advance(99 * time.Millisecond)
	if l.Held() != 0 {
		t.Errorf("%d units are held at the end", l.Held())
	}
	clock.Advance(29_999 * time.Millisecond) // the store is still in the window, and lends for a millisecond
	if admits(t, l, 1) != 1 || l.Held() != 0 || svc.reserves.Load() != 2 {
		t.Errorf("held %d after %d requests", l.Held(), svc.reserves.Load())
	}
}

// An answer that comes after its window serves who asked, who was charged in that window, and nobody else. Units that
// were fetched ahead and come late are dropped.
func TestLeasedAnswersComeLate(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(59_000)
	svc := &counted{Service: lendingFrom(t, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})), 100)}
	s, _ := serve(t, svc, local())
	l, watch := leased(t, connectTo(t, s.GRPCAddr().String()), 10)
	ahead, aheadWatch := leased(t, connectTo(t, s.GRPCAddr().String()), 10, client.WithLowWater(10))
	svc.lent = func() {
		watch.advance(time.Minute)
		aheadWatch.advance(time.Minute)
	}
	for _, late := range []*client.Leased{l, ahead} {
		if d, err := late.CheckN(t.Context(), "", 3); err != nil || !d.Allowed || d.ResetAtMillis != 60_000 || late.Held() != 0 {
			t.Errorf("got %+v, %v, %d held", d, err, late.Held())
		}
	}
	if svc.reserves.Load() != 2 {
		t.Errorf("%d requests, want 2", svc.reserves.Load())
	}
}

func TestLeasedDenies(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	s, _ := serve(t, lending(t, clock), local())
	l, watch := leased(t, connectTo(t, s.GRPCAddr().String()), 3)
	check := func(cost int64, want throttlekit.Decision) {
		t.Helper()
		if d, err := l.CheckN(t.Context(), "", cost); d != want || err != nil {
			t.Errorf("cost %d: got %+v, %v, want %+v", cost, d, err, want)
		}
	}
	denied := throttlekit.Decision{Limit: 5, ResetAtMillis: 60_000, RetryAfterMillis: 60_000}
	check(2, throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 1, ResetAtMillis: 60_000})
	check(4, denied) // gets the 2 that are left, which with the 1 here are short
	check(3, throttlekit.Decision{Allowed: true, Limit: 5, ResetAtMillis: 60_000})
	check(1, denied)
	clock.Set(60_000)
	watch.advance(time.Minute)
	check(5, throttlekit.Decision{Allowed: true, Limit: 5, ResetAtMillis: 120_000})
	for _, cost := range []int64{0, -1, throttlekit.MaxSafe + 1} {
		if _, err := l.CheckN(t.Context(), "", cost); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("cost %d: got %v, want ErrInvalid", cost, err)
		}
	}
}

// However many wait, one request is under way, and its grant is credited once.
func TestLeasedAsksOnce(t *testing.T) {
	t.Parallel()
	const callers, limit = 64, 100
	svc := &counted{gate: make(chan struct{})}
	svc.Service = lendingFrom(t, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(0)})), limit)
	s, _ := serve(t, svc, local())
	l, _ := leased(t, connectTo(t, s.GRPCAddr().String()), 80)
	var allowed atomic.Int64
	var done, started sync.WaitGroup
	for range callers {
		started.Add(1)
		done.Go(func() {
			started.Done()
			if d, err := l.Check(t.Context(), "anybody"); err != nil {
				t.Error(err)
			} else if d.Allowed {
				allowed.Add(1)
			}
		})
	}
	started.Wait()
	if svc.reserves.Load() > 1 {
		t.Errorf("%d requests are under way, want one", svc.reserves.Load())
	}
	close(svc.gate)
	done.Wait()
	if allowed.Load() != callers || svc.reserves.Load() != 1 || l.Held() != 80-callers {
		t.Errorf("admitted %d with %d requests, %d held", allowed.Load(), svc.reserves.Load(), l.Held())
	}
	if got := admits(t, l, 2*limit); got != limit-callers {
		t.Errorf("admitted %d more, want %d", got, limit-callers)
	}
}

// The next batch is there before the last unit is spent.
func TestLeasedFetchesAhead(t *testing.T) {
	t.Parallel()
	svc := &counted{Service: lendingFrom(t, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(0)})), 1_000_000)}
	s, _ := serve(t, svc, local())
	l := must(connectTo(t, s.GRPCAddr().String()).Fleet().Leased("fleet", "", 100, client.WithLowWater(25)))
	if admits(t, l, 74) != 74 || svc.reserves.Load() != 1 {
		t.Errorf("%d requests for the first 74 units", svc.reserves.Load())
	}
	if admits(t, l, 1) != 1 {
		t.Error("the 75th was denied")
	}
	if err := l.Close(); err != nil { // waits for the request that is under way
		t.Error(err)
	}
	if svc.reserves.Load() != 2 {
		t.Errorf("%d requests, want the second one ahead of need", svc.reserves.Load())
	}
	if _, err := l.Check(t.Context(), ""); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v after Close, want ErrClosed", err)
	}
}

// What is held is spent through an outage until it ends; then the mode of the client answers. When the server is back,
// so are leases.
func TestLeasedThroughAnOutage(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	svc := lendingFrom(t, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})), 100)
	first, stop := serve(t, svc, Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: Off})
	addr := first.GRPCAddr().(*net.TCPAddr).String()
	limiters, watches := map[client.Unavailable]*client.Leased{}, map[client.Unavailable]*stopwatch{}
	clients := map[client.Unavailable]*client.Client{}
	modes := []client.Unavailable{client.ReturnError, client.FailOpen, client.FailClosed}
	for _, mode := range modes {
		clients[mode] = connectTo(t, addr, client.WithUnavailable(mode))
		limiters[mode], watches[mode] = leased(t, clients[mode], 10)
		if admits(t, limiters[mode], 1) != 1 {
			t.Fatal("denied")
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, mode := range modes {
		l, watch := limiters[mode], watches[mode]
		watch.advance(59 * time.Second)
		if admits(t, l, 5) != 5 || clients[mode].Degraded() != 0 {
			t.Errorf("mode %d: units that are held are not spent", mode)
		}
		watch.advance(time.Second) // the other 4 end here
		d, err := l.Check(t.Context(), "")
		if mode == client.ReturnError {
			if !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("got %+v, %v, want ErrUnavailable", d, err)
			}
			continue
		}
		if err != nil || d != (throttlekit.Decision{Allowed: mode == client.FailOpen}) || clients[mode].Degraded() != 1 {
			t.Errorf("mode %d: got %+v, %v, degraded %d", mode, d, err, clients[mode].Degraded())
		}
	}
	clock.Advance(time.Minute)
	serve(t, svc, Config{GRPCAddr: addr, HTTPAddr: Off})
	for began := time.Now(); ; {
		d, err := limiters[client.ReturnError].Check(t.Context(), "")
		if err == nil && d.Allowed {
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("still %+v, %v", d, err)
		}
	}
	if got := limiters[client.ReturnError].Held(); got != 9 {
		t.Errorf("%d units are held, want 9", got)
	}
}

// A service that hangs keeps a check no longer than the client's timeout, and the caller's own end is his own.
func TestLeasedFromAServiceThatHangs(t *testing.T) {
	t.Parallel()
	svc := &counted{Service: lending(t, throttlekit.NewManualClock(0)), gate: make(chan struct{})}
	s, _ := serve(t, svc, local())
	l, _ := leased(t, connectTo(t, s.GRPCAddr().String(), client.WithTimeout(50*time.Millisecond)), 1)
	if _, err := l.Check(t.Context(), ""); !errors.Is(err, client.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	endless := connectTo(t, s.GRPCAddr().String(), client.WithTimeout(0)) // has a bound all the same
	l, _ = leased(t, endless, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.Check(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	if _, err := l.Check(t.Context(), ""); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestFleetErrors(t *testing.T) {
	t.Parallel()
	cfg := local()
	cfg.FleetSecret = "s3cret"
	s, _ := serve(t, lending(t, throttlekit.NewManualClock(0)), cfg)
	for _, test := range []struct {
		opts   []client.Option
		policy string
		want   error
	}{
		{nil, "fleet", client.ErrUnauthenticated},
		{[]client.Option{client.WithFleetSecret("wrong")}, "fleet", client.ErrUnauthenticated},
		{[]client.Option{client.WithFleetSecret("s3cret")}, "plain", throttlekit.ErrPolicyNotFound},
		{[]client.Option{client.WithFleetSecret("s3cret"), client.WithUnavailable(client.FailOpen)}, "none", throttlekit.ErrPolicyNotFound},
		{[]client.Option{client.WithFleetSecret("s3cret")}, "fleet", nil},
	} {
		c := connectTo(t, s.GRPCAddr().String(), test.opts...)
		l := must(c.Fleet().Leased(test.policy, "", 2))
		if d, err := l.Check(t.Context(), ""); !errors.Is(err, test.want) || d.Allowed != (test.want == nil) || c.Degraded() != 0 {
			t.Errorf("%s: got %+v, %v, want %v", test.policy, d, err, test.want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	none, _ := serve(t, policies(t), local())
	l, _ := leased(t, connectTo(t, none.GRPCAddr().String()), 1)
	if _, err := l.Check(t.Context(), ""); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
}

// A leased check of many goroutines at once, and of one, against a check over the wire.
func BenchmarkLeased(b *testing.B) {
	svc := lendingFrom(b, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})), 1_000_000_000_000)
	s, _ := serve(b, svc, local())
	c := connectTo(b, s.GRPCAddr().String())
	l := must(c.Fleet().Leased("fleet", "", 1000))
	defer l.Close()
	atOnce := func(b *testing.B, check func(context.Context) error) {
		b.Helper()
		b.SetParallelism(4) // 8 goroutines on 2 processors
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := check(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	b.Run("leased", func(b *testing.B) {
		atOnce(b, func(ctx context.Context) error { _, err := l.Check(ctx, "k"); return err })
	})
	b.Run("unary", func(b *testing.B) {
		atOnce(b, func(ctx context.Context) error { _, err := c.Check(ctx, "plain", "k"); return err })
	})
}

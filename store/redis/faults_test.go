package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// crowd checks one limit from many goroutines for as long as it is told to, and keeps the books.
type crowd struct {
	admitted, denied, failed atomic.Int64
	longest                  atomic.Int64 // time that a call took, in nanoseconds
	foreign                  atomic.Pointer[error]
	pause                    time.Duration // between the calls of one caller
	stop                     context.CancelFunc
	group                    sync.WaitGroup
}

func gather(t *testing.T, callers int, pause time.Duration, call func(i int) (throttlekit.Decision, error)) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{stop: cancel, pause: pause}
	for i := range callers {
		c.group.Go(func() {
			for ctx.Err() == nil {
				c.one(func() (throttlekit.Decision, error) { return call(i) })
				wait(t, c.pause)
			}
		})
	}
	t.Cleanup(c.leave)
	return c
}

func (c *crowd) leave() {
	c.stop()
	c.group.Wait()
}

func (c *crowd) one(call func() (throttlekit.Decision, error)) {
	start := time.Now()
	d, err := call()
	took := int64(time.Since(start))
	for {
		longest := c.longest.Load()
		if took <= longest || c.longest.CompareAndSwap(longest, took) {
			break
		}
	}
	switch {
	case err != nil:
		c.failed.Add(1)
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			c.foreign.Store(&err)
		}
	case d.Allowed:
		c.admitted.Add(1)
	default:
		c.denied.Add(1)
	}
}

// check is what holds for every fault: errors are the store's, and nobody waited much longer than the deadline.
func (c *crowd) check(t *testing.T, deadline time.Duration) {
	t.Helper()
	if err := c.foreign.Load(); err != nil {
		t.Errorf("an error that is not the store's: %v", *err)
	}
	// The machine may be busy: what is held against a caller is a wait of another order.
	if longest := time.Duration(c.longest.Load()); longest > deadline+slow*750*time.Millisecond {
		t.Errorf("a call took %v, its deadline was %v", longest, deadline)
	}
	t.Logf("%d admitted, %d denied, %d failed; longest call %v",
		c.admitted.Load(), c.denied.Load(), c.failed.Load(), time.Duration(c.longest.Load()).Round(time.Millisecond))
}

// recovers waits until a store answers again.
func recovers(t *testing.T, call func() error) {
	t.Helper()
	start := time.Now()
	var err error
	for time.Since(start) < 20*time.Second {
		if err = call(); err == nil {
			t.Logf("answers again after %v", time.Since(start).Round(time.Millisecond))
			return
		}
		wait(t, 10*time.Millisecond)
	}
	t.Fatalf("does not recover: %v", err)
}

func short(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
}

const usualDeadline = 250 * time.Millisecond

// yearly is a limit that does not refill while a test runs.
func yearly(limit float64) throttlekit.Strategy {
	return throttlekit.Quota{Limit: limit, Cadence: throttlekit.Fixed, Period: 8760 * time.Hour, Anchor: time.Now().UnixMilli() - 1000}
}

func TestKilledAndRestarted(t *testing.T) {
	t.Parallel()
	short(t)
	server := start(t, redistest.Options{Persist: true})
	store := open(t, server.URL(), redisstore.Config{Timeout: usualDeadline})
	rule := ruleOf(t, yearly(3000))
	call := func(int) (throttlekit.Decision, error) { return store.Apply(t.Context(), "k", rule, 1) }
	crowd := gather(t, 16, 0, call)
	wait(t, 300*time.Millisecond)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	wait(t, 300*time.Millisecond)
	if err := server.Restart(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	recovers(t, func() error { return second(call(0)) })
	wait(t, time.Second)
	crowd.leave()
	crowd.check(t, usualDeadline)
	rec, now, err := store.Load(t.Context(), "k", rule)
	if err != nil {
		t.Fatal(err)
	}
	charged := 3000 - rule.Peek(rec, now).Remaining
	if admitted := crowd.admitted.Load(); admitted > charged || admitted > 3000 || crowd.failed.Load() == 0 {
		t.Errorf("admitted %d, charged %d, failed %d", admitted, charged, crowd.failed.Load())
	}
	t.Logf("charged %d; the difference was charged by calls that got no answer", charged)
}

func TestRestartedEmpty(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	store := open(t, server.URL(), redisstore.Config{Timeout: usualDeadline})
	rule := ruleOf(t, yearly(5))
	for range 7 {
		_ = second(store.Apply(t.Context(), "k", rule, 1))
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := second(store.Apply(t.Context(), "k", rule, 1)); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("while the server was down: %v", err)
	}
	if err := server.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	var d throttlekit.Decision
	recovers(t, func() (err error) { d, err = store.Apply(t.Context(), "k", rule, 1); return err })
	if d.Remaining != 4 {
		t.Errorf("on an empty server: %+v", d)
	}
}

// TestStartsBeforeItsServer makes a store while its server is down.
func TestStartsBeforeItsServer(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	store := open(t, server.URL(), redisstore.Config{Timeout: usualDeadline})
	rule := ruleOf(t, yearly(5))
	for range 3 {
		if err := second(store.Apply(t.Context(), "k", rule, 1)); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("while the server was down: %v", err)
		}
	}
	if err := server.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	recovers(t, func() error { return second(store.Apply(t.Context(), "k", rule, 1)) })
}

// TestFrozen stops the process of a server under load. The large crowd is more than the queues of
// rueidis hold, which is where its callers would wait for as long as the server stands still.
func TestFrozen(t *testing.T) {
	t.Parallel()
	short(t)
	for _, callers := range []int{1, 64, 2000} {
		t.Run(strconv.Itoa(callers), func(t *testing.T) {
			t.Parallel()
			if callers > 64 && slow > 1 {
				t.Skip("with the race detector, the crowd alone is more than the machine can serve by its deadline")
			}
			server := start(t, redistest.Options{})
			store := open(t, server.URL(), redisstore.Config{Timeout: usualDeadline})
			rule := ruleOf(t, yearly(500))
			call := func(int) (throttlekit.Decision, error) { return store.Apply(t.Context(), "k", rule, 1) }
			recovers(t, func() error { return second(call(0)) })
			crowd := gather(t, callers, time.Duration(callers)*50*time.Microsecond, call) // so that all together are no more than it can serve
			wait(t, 200*time.Millisecond)
			if err := server.Freeze(); err != nil {
				t.Fatal(err)
			}
			wait(t, 5*time.Second)
			if err := server.Thaw(); err != nil {
				t.Fatal(err)
			}
			recovers(t, func() error { return second(call(0)) })
			wait(t, 300*time.Millisecond)
			crowd.leave()
			crowd.check(t, usualDeadline)
			if n := crowd.admitted.Load(); n > 500 || crowd.failed.Load() == 0 {
				t.Errorf("admitted %d of 500", n)
			}
		})
	}
}

// TestFlushedUnderLoad has 200 callers meet a server that keeps forgetting its scripts.
func TestFlushedUnderLoad(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	t.Cleanup(flushAllTheTime(t, server))
	store := open(t, server.URL(), redisstore.Config{})
	for round := range 20 {
		for _, rule := range []throttlekit.Transition{ruleOf(t, yearly(50)), tally{limit: 50, ttl: 1e6}, transitionOf(throttlekit.SlidingWindowLog{Limit: 50, Window: time.Hour})} {
			var c crowd
			for range 200 {
				c.group.Go(func() {
					c.one(func() (throttlekit.Decision, error) {
						return store.Apply(t.Context(), fmt.Sprint(round, rule.Name()), rule, 1)
					})
				})
			}
			c.group.Wait()
			if c.admitted.Load() != 50 || c.denied.Load() != 150 {
				t.Errorf("%s: admitted %d of 50, %d failed", rule.Name(), c.admitted.Load(), c.failed.Load())
			}
		}
	}
}

// TestRepliesLost resets connections after the server has run a script and before its reply has
// arrived: the caller gets an error, and no script may run twice.
func TestRepliesLost(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	prefix := freshPrefix()
	// One connection, so that it is a script's reply that is lost and not the greeting of another connection.
	store, err := redisstore.Connect(
		rueidis.ClientOption{InitAddress: []string{proxy.Addr}, PipelineMultiplex: -1, ForceSingleClient: true},
		redisstore.Config{Prefix: prefix, Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	rule := ruleOf(t, yearly(1e6))
	all := []throttlekit.Op{{Key: "k", Transition: rule, Cost: 1}}
	conn := dial(t, server)
	if err := second(store.Apply(t.Context(), "warm", rule, 1)); err != nil { // connects, and loads the script
		t.Fatal(err)
	}
	if err := second(store.Batch(t.Context(), []throttlekit.Op{{Key: "warm", Transition: rule, Cost: 1}}, throttlekit.CommitAll)); err != nil {
		t.Fatal(err)
	}
	for i, call := range []func() error{
		func() error { return second(store.Apply(t.Context(), "k", rule, 1)) },
		func() error { return second(store.Batch(t.Context(), all, throttlekit.CommitEach)) },
		func() error { return second(store.Batch(t.Context(), all, throttlekit.CommitAll)) },
	} {
		for range 10 {
			if err := second(store.Apply(t.Context(), "warm", rule, 1)); err != nil { // there is a connection again
				t.Fatal(err)
			}
			proxy.LoseReplies(1)
			if err := call(); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
				t.Errorf("call %d: got %v", i, err)
			}
		}
		if count := do(t, conn, "HGET", prefix+":k", "c"); count != strconv.Itoa(10*(i+1)) {
			t.Errorf("call %d: %v units were charged, want %d", i, count, 10*(i+1))
		}
	}
}

// TestConnectionsCut resets all connections again and again under load.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	prefix := freshPrefix()
	store := open(t, "redis://"+proxy.Addr, redisstore.Config{Prefix: prefix, Timeout: usualDeadline})
	rule := ruleOf(t, yearly(1e9))
	var calls atomic.Int64
	call := func(int) (throttlekit.Decision, error) {
		calls.Add(1)
		return store.Apply(t.Context(), "k", rule, 1)
	}
	crowd := gather(t, 32, 0, call)
	for range 20 {
		wait(t, 20*time.Millisecond)
		proxy.Cut()
	}
	crowd.leave()
	recovers(t, func() error { return second(store.Apply(t.Context(), "other", rule, 1)) })
	crowd.check(t, usualDeadline)
	var charged int64
	if _, err := fmt.Sscan(do(t, dial(t, server), "HGET", prefix+":k", "c").(string), &charged); err != nil {
		t.Fatal(err)
	}
	if charged < crowd.admitted.Load() || charged > calls.Load() {
		t.Errorf("%d calls, %d admitted, %d charged", calls.Load(), crowd.admitted.Load(), charged)
	}
	t.Logf("%d calls, %d charged", calls.Load(), charged)
}

// TestExactUnderConcurrency is the limit of every strategy under 200 callers of two processes' worth of stores.
func TestExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	for _, strategy := range []throttlekit.Strategy{
		throttlekit.GCRA{Limit: 1, Period: 8760 * time.Hour, Burst: 50},
		throttlekit.TokenBucket{Capacity: 50, RefillPerSec: 1e-6},
		throttlekit.FixedWindow{Limit: 50, Window: 87600 * time.Hour},
		throttlekit.SlidingWindow{Limit: 50, Window: 8760 * time.Hour},
		throttlekit.SlidingWindowLog{Limit: 50, Window: time.Hour},
		throttlekit.Quota{Limit: 50, Cadence: throttlekit.CalendarMonth},
	} {
		prefix := freshPrefix()
		stores := []*redisstore.Store{
			open(t, shared.URL(), redisstore.Config{Prefix: prefix}), open(t, shared.URL(), redisstore.Config{Prefix: prefix}),
		}
		rule := ruleOf(t, strategy)
		var c crowd
		for i := range 200 {
			c.group.Go(func() {
				c.one(func() (throttlekit.Decision, error) { return stores[i%2].Apply(t.Context(), "k", rule, 1) })
			})
		}
		c.group.Wait()
		if c.admitted.Load() != 50 || c.denied.Load() != 150 {
			t.Errorf("%T: admitted %d of 50, %d failed", strategy, c.admitted.Load(), c.failed.Load())
		}
	}
}

// TestNothingIsLeftOver counts goroutines after a store has been through everything. It is not parallel.
func TestNothingIsLeftOver(t *testing.T) {
	server, err := redistest.Start(t.Context(), redistest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	before := goleak.IgnoreCurrent()
	store, err := redisstore.Open(server.URL(), redisstore.Config{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	rule := ruleOf(t, yearly(50))
	crowd := gather(t, 600, 0, func(int) (throttlekit.Decision, error) { return store.Apply(t.Context(), "k", rule, 1) })
	wait(t, 100*time.Millisecond)
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	wait(t, 300*time.Millisecond)
	crowd.leave()
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	recovers(t, func() error { return second(store.Apply(t.Context(), "k", rule, 1)) })
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, before)

	never, err := redisstore.Open("redis://"+silence(t), redisstore.Config{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := second(never.Apply(t.Context(), "k", rule, 1)); err == nil {
		t.Error("a silent server has answered")
	}
	if err := never.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, before)
}

// nothingLeft waits for goroutines of rueidis that sleep for up to a second before they look at a Cluster.
func nothingLeft(t *testing.T, before goleak.Option) {
	t.Helper()
	var err error
	for start := time.Now(); time.Since(start) < 5*time.Second; {
		if err = goleak.Find(before); err == nil {
			return
		}
		wait(t, 50*time.Millisecond)
	}
	t.Error(err)
}

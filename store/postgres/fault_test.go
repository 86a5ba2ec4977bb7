package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
	"github.com/throttlekit/throttlekit-go/store/postgres/pgtest"
)

// load is callers that check without pause, and what became of their checks.
type load struct {
	store    throttlekit.Store
	rule     throttlekit.Rule
	deadline time.Duration

	stop              context.CancelFunc
	running           sync.WaitGroup
	allowed, answered atomic.Int64
	failed, late      atomic.Int64
	slowest           atomic.Int64 // nanoseconds
	mu                sync.Mutex
	strange           map[string]int // errors that do not match ErrStoreUnavailable
}

// start lets n callers loose on one key. Each call has the deadline, by its context or by
// the store's default.
func (l *load) start(ctx context.Context, n int, key string) {
	ctx, l.stop = context.WithCancel(ctx)
	l.strange = make(map[string]int)
	for range n {
		l.running.Go(func() {
			for ctx.Err() == nil {
				l.call(context.WithoutCancel(ctx), key)
			}
		})
	}
}

func (l *load) call(ctx context.Context, key string) {
	began := time.Now()
	d, err := l.store.Apply(ctx, key, l.rule, 1)
	took := time.Since(began)
	for {
		slowest := l.slowest.Load()
		if int64(took) <= slowest || l.slowest.CompareAndSwap(slowest, int64(took)) {
			break
		}
	}
	if took > l.deadline+grace {
		l.late.Add(1)
	}
	switch {
	case err == nil:
		l.answered.Add(1)
		if d.Allowed {
			l.allowed.Add(1)
		}
	case errors.Is(err, throttlekit.ErrStoreUnavailable):
		l.failed.Add(1)
	default:
		l.mu.Lock()
		l.strange[err.Error()]++
		l.mu.Unlock()
	}
}

// grace is what a busy machine may add to a deadline.
const grace = 700 * time.Millisecond

// end stops the callers and reports.
func (l *load) end(t *testing.T, what string) {
	t.Helper()
	l.stop()
	l.running.Wait()
	t.Logf("%s: %d answered, %d of them allowed, %d failed, slowest answer %v",
		what, l.answered.Load(), l.allowed.Load(), l.failed.Load(), time.Duration(l.slowest.Load()).Round(time.Millisecond))
	if n := l.late.Load(); n > 0 {
		t.Errorf("%s: %d calls were answered after their deadline", what, n)
	}
	for text, n := range l.strange {
		t.Errorf("%s: %d times: %s", what, n, text)
	}
}

// await waits until the store answers again, and says how long that took.
func await(t *testing.T, store throttlekit.Store, r throttlekit.Rule) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		_, err := store.Apply(t.Context(), "await", r, 1)
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("no recovery: %v", err)
		}
	}
}

// faultConfig is that of stores in fault tests: real deadlines, and no sweep.
func faultConfig(deadline time.Duration) pgstore.Config {
	return pgstore.Config{Timeout: deadline, SweepInterval: -1}
}

// TestFaults breaks a server of its own, in ways that follow each other.
func TestFaults(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	victim, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := victim.Stop(); err != nil {
			t.Error(err)
		}
	}()
	t.Run("Down at first", func(t *testing.T) { downAtFirst(t, victim) })
	t.Run("Killed and restarted", func(t *testing.T) { killedUnderLoad(t, victim) })
	t.Run("Frozen", func(t *testing.T) { frozenUnderLoad(t, victim) })
	t.Run("Cut connections", func(t *testing.T) { cutConnections(t, victim) })
	t.Run("Shut down while closing", func(t *testing.T) { closeWhileFrozen(t, victim) })
}

// downAtFirst: a store is made while the server is down, fails quickly, and works once it is up.
func downAtFirst(t *testing.T, victim *pgtest.Server) {
	t.Helper()
	if err := victim.Shutdown(); err != nil {
		t.Fatal(err)
	}
	store, err := pgstore.Open("postgres://postgres:hush-hush@"+victim.Addr()+"/postgres", pgstore.Config{Prefix: "prod", SweepInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, r := range []throttlekit.Rule{rule(t, slow), rule(t, rolls)} {
		_, err := store.Apply(t.Context(), "k", r, 1)
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(fmt.Sprint(err), `PostgreSQL table throttlekit, prefix "prod"`) ||
			strings.Contains(fmt.Sprint(err), "hush") {
			t.Errorf("%v, want that the store is unavailable, with its table and prefix and without the password", err)
		}
	}
	if err := victim.Restart(); err != nil {
		t.Fatal(err)
	}
	t.Logf("recovered after %v", await(t, store, rule(t, slow)))
}

// killedUnderLoad: every process of the server is killed under load, then it is started again.
func killedUnderLoad(t *testing.T, victim *pgtest.Server) {
	t.Helper()
	const limit, callers = 3000, 24
	pool := newPool(t, victim, "pool_max_conns=12")
	store := newStore(t, pool, faultConfig(250*time.Millisecond))
	r := rule(t, throttlekit.FixedWindow{Limit: limit, Window: 10_000 * time.Hour})
	await(t, store, r)
	l := &load{store: store, rule: r, deadline: 250 * time.Millisecond}
	l.start(t.Context(), callers, "killed")
	for l.allowed.Load() < 300 {
		time.Sleep(time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
	}
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	before := l.failed.Load()
	for l.failed.Load() < before+100 {
		time.Sleep(time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
	}
	if err := victim.Restart(); err != nil {
		t.Fatal(err)
	}
	recovered := await(t, store, r)
	l.end(t, fmt.Sprintf("killed, recovered %v after the restart", recovered.Round(time.Millisecond)))
	finish(t, store, l, "killed", limit)
	idle(t, pool)
}

// finish spends what the load has left. No more than the limit was ever admitted; what is
// missing was charged for calls that failed without knowing whether they were.
func finish(t *testing.T, store throttlekit.Store, l *load, key string, limit int64) {
	t.Helper()
	admitted := l.allowed.Load()
	for {
		d, err := store.Apply(t.Context(), key, l.rule, 1)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Allowed {
			break
		}
		admitted++
	}
	if admitted > limit || admitted < limit-l.failed.Load() {
		t.Errorf("%d were admitted in all, want at most %d and at least as many but for %d failures", admitted, limit, l.failed.Load())
	}
}

// idle makes sure that no connection of a pool is still in use.
func idle(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for range 200 {
		if pool.Stat().AcquiredConns() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the pool tells nobody
	}
	t.Errorf("%d connections are still in use", pool.Stat().AcquiredConns())
}

// frozenUnderLoad: every process of the server stops for five seconds.
func frozenUnderLoad(t *testing.T, victim *pgtest.Server) {
	t.Helper()
	const limit, callers = 2000, 24
	pool := newPool(t, victim, "pool_max_conns=12")
	store := newStore(t, pool, faultConfig(200*time.Millisecond))
	r := rule(t, throttlekit.GCRA{Limit: limit, Period: 10_000 * time.Hour})
	await(t, store, r)
	l := &load{store: store, rule: r, deadline: 200 * time.Millisecond}
	l.start(t.Context(), callers, "frozen")
	for l.allowed.Load() < 300 {
		time.Sleep(time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
	}
	if err := victim.Freeze(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second) //nolint:forbidigo // this is what is tested
	if err := victim.Thaw(); err != nil {
		t.Fatal(err)
	}
	recovered := await(t, store, r)
	l.end(t, fmt.Sprintf("frozen for 5 s, recovered %v after", recovered.Round(time.Millisecond)))
	if l.failed.Load() == 0 {
		t.Error("nobody noticed")
	}
	finish(t, store, l, "frozen", limit)
	idle(t, pool)
}

// cutter is a proxy that cuts all its connections when it is told to.
type cutter struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, target: target, open: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.cut()
		running.Wait()
	})
	return c
}

func (c *cutter) serve(client net.Conn) {
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		client.Close()
		return
	}
	c.mu.Lock()
	c.open[client], c.open[server] = true, true
	c.mu.Unlock()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			pair[0].Close()
			pair[1].Close()
		})
	}
	both.Wait()
	c.mu.Lock()
	delete(c.open, client)
	delete(c.open, server)
	c.mu.Unlock()
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not an orderly end
		}
		conn.Close()
	}
}

// cutConnections: connections are reset in the middle of requests, over and over. Each
// call is charged at most once: a count that only grows lies between the calls that were
// answered and all calls.
func cutConnections(t *testing.T, victim *pgtest.Server) {
	t.Helper()
	proxy := newCutter(t, victim.Addr())
	pool, err := pgxpool.New(t.Context(), "postgres://postgres@"+proxy.listener.Addr().String()+"/postgres?pool_max_conns=8")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	table := newTable()
	config := faultConfig(time.Second)
	config.Table = table
	store := newStore(t, pool, config)
	for _, s := range []throttlekit.Strategy{
		throttlekit.FixedWindow{Limit: 1e9, Window: 10_000 * time.Hour}, throttlekit.Quota{Limit: 1e9, Cadence: throttlekit.Fixed, Period: 10_000 * time.Hour},
	} {
		r := rule(t, s)
		await(t, store, r)
		l := &load{store: store, rule: r, deadline: time.Second}
		l.start(t.Context(), 8, r.Name())
		for range 25 {
			time.Sleep(60 * time.Millisecond) //nolint:forbidigo // the load goes on meanwhile
			proxy.cut()
		}
		l.end(t, r.Name()+" while connections were cut 25 times")
		rec, _, err := newStore(t, newPool(t, victim), config).Load(t.Context(), r.Name(), r)
		if err != nil {
			t.Fatal(err)
		}
		if count := int64(rec.B); count < l.allowed.Load() || count > l.allowed.Load()+l.failed.Load() {
			t.Errorf("%d charges for %d answers and %d failures", count, l.allowed.Load(), l.failed.Load())
		}
		if l.failed.Load() == 0 {
			t.Error("nobody noticed")
		}
	}
}

// closeWhileFrozen: Close does not wait for a server that does not answer, and neither it
// nor anything else is left over.
func closeWhileFrozen(t *testing.T, victim *pgtest.Server) {
	t.Helper()
	store, err := pgstore.Open(victim.URL(), pgstore.Config{SweepInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	await(t, store, rule(t, slow))
	if err := victim.Freeze(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = store.Apply(t.Context(), "k", rule(t, slow), 1)
	if !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("a frozen server answers %v", err)
	}
	if err := errors.Join(store.Close(), store.Close()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := victim.Thaw(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Apply(t.Context(), "k", rule(t, slow), 1); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestRefusals: what a server refuses is told clearly.
func TestRefusals(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	exec(t, pool, `CREATE ROLE `+pgtest.Locked+` LOGIN PASSWORD 'right'`)
	base := "@" + server.Addr()
	for url, want := range map[string]string{
		"postgres://" + pgtest.Locked + ":wr0ng-s3cret" + base + "/postgres":                     "password authentication failed",
		"postgres://postgres:wr0ng-s3cret" + base + "/nowhere":                                   `database "nowhere" does not exist`,
		"postgres://nobody:wr0ng-s3cret" + base + "/postgres":                                    `role "nobody" does not exist`,
		"postgres://postgres:wr0ng-s3cret" + base + "/postgres?default_transaction_read_only=on": "read-only transaction",
		"postgres://postgres:wr0ng-s3cret@127.0.0.1:1/postgres":                                  "refused",
		"host=127.0.0.1 port=1 user=postgres password=wr0ng-s3cret dbname=postgres":              "refused",
		"postgres://postgres:wr0ng-s3cret" + base + "/postgres?sslmode=require":                  "TLS",
	} {
		store, err := pgstore.Open(url, pgstore.Config{Table: "limits", Prefix: "prod", Timeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []throttlekit.Strategy{slow, rolls} {
			_, err := store.Apply(t.Context(), "k", rule(t, s), 1)
			text := fmt.Sprint(err)
			if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(text, want) ||
				!strings.Contains(text, `PostgreSQL table limits, prefix "prod"`) || strings.Contains(text, "s3cret") {
				t.Errorf("%q, want %q, table and prefix, and no password", text, want)
			}
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

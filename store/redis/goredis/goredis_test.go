package goredis_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/store/redis/goredis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
	"github.com/throttlekit/throttlekit-go/storetest"
	"github.com/throttlekit/throttlekit-go/vectors"
)

const (
	base    = 1_700_000_000_000
	patient = 10 * time.Second
	far     = 24 * time.Hour
)

var shared *redistest.Server

func TestMain(m *testing.M) {
	server, err := redistest.Start(context.Background(), redistest.Options{})
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	shared = server
	code := m.Run()
	if err := server.Close(); err != nil && code == 0 {
		code = 1
	}
	os.Exit(code)
}

var prefixes atomic.Int64

func freshPrefix() string { return "goredis" + strconv.FormatInt(prefixes.Add(1), 10) }

// lend is a store on a client that the test closes.
func lend(tb testing.TB, client redis.UniversalClient, config goredis.Config) *goredis.Store {
	tb.Helper()
	if config.Timeout == 0 {
		config.Timeout = patient
	}
	store, err := goredis.New(client, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := errors.Join(store.Close(), client.Close()); err != nil && !errors.Is(err, redis.ErrClosed) {
			tb.Error(err)
		}
	})
	return store
}

func start(tb testing.TB, options redistest.Options) *redistest.Server {
	tb.Helper()
	server, err := redistest.Start(tb.Context(), options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = server.Close() })
	return server
}

func rule(tb testing.TB, strategy throttlekit.Strategy) throttlekit.Rule {
	tb.Helper()
	r, err := strategy.Rule()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func window(limit float64) throttlekit.Strategy {
	return throttlekit.FixedWindow{Limit: limit, Window: 87600 * time.Hour}
}

func second[T any](_ T, err error) error { return err }

func TestStore(t *testing.T) {
	for name, own := range map[string]bool{"ManualClock": true, "ServerClock": false} {
		for heeding, heeds := range map[string]bool{"heeding contexts": true, "not heeding": false} {
			t.Run(name+" "+heeding, func(t *testing.T) {
				options := &redis.Options{Addr: shared.Addr, ContextTimeoutEnabled: heeds}
				one, two := redis.NewClient(options), redis.NewClient(options)
				for _, client := range []*redis.Client{one, two} {
					if err := client.Ping(t.Context()).Err(); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = client.Close() })
				}
				storetest.Run(t, func(t *testing.T) storetest.Harness {
					t.Helper()
					h := storetest.Harness{}
					config := goredis.Config{Prefix: freshPrefix(), Timeout: patient}
					if own {
						h.Clock, h.RealExpiry = throttlekit.NewManualClock(base), true
						config.Clock, config.TTLFloor = h.Clock, far
					}
					var err, peerErr error
					h.Store, err = goredis.New(one, config)
					h.Peer, peerErr = goredis.New(two, config)
					if err != nil || peerErr != nil {
						t.Fatal(err, peerErr)
					}
					return h
				})
			})
		}
	}
}

func TestReferenceTimelines(t *testing.T) {
	t.Parallel()
	file, err := os.Open("../../../vectors/reference-timelines.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	document, err := vectors.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	clock := throttlekit.NewManualClock(base)
	store := lend(t, redis.NewClient(&redis.Options{Addr: shared.Addr}), goredis.Config{Clock: clock, TTLFloor: far})
	report, err := vectors.Replay(t.Context(), document, vectors.Store(store, clock, freshPrefix()))
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	t.Log(report)
}

// TestRepliesLost has connections break between a script and its reply, with a client that sends
// commands again by default.
func TestRepliesLost(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	prefix := freshPrefix()
	for name, heeds := range map[string]bool{"heeding": true, "not": false} {
		client := redis.NewClient(&redis.Options{Addr: proxy.Addr, PoolSize: 1, MaxRetries: 5, ContextTimeoutEnabled: heeds})
		store := lend(t, client, goredis.Config{Prefix: prefix})
		r := rule(t, window(1e6))
		all := []throttlekit.Op{{Key: name, Transition: r, Cost: 1}}
		warm := []throttlekit.Op{{Key: "warm", Transition: r, Cost: 1}}
		if err := second(store.Batch(t.Context(), warm, throttlekit.CommitAll)); err != nil {
			t.Fatal(err)
		}
		for i, call := range []func() error{
			func() error { return second(store.Apply(t.Context(), name, r, 1)) },
			func() error { return second(store.Batch(t.Context(), all, throttlekit.CommitEach)) },
			func() error { return second(store.Batch(t.Context(), all, throttlekit.CommitAll)) },
		} {
			for range 10 {
				// There are connections again, that of pipelines among them.
				if err := errors.Join(second(store.Apply(t.Context(), "warm", r, 1)), second(store.Batch(t.Context(), warm, throttlekit.CommitEach))); err != nil {
					t.Fatal(err)
				}
				proxy.LoseReplies(1)
				if err := call(); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
					t.Errorf("%s, call %d: got %v", name, i, err)
				}
			}
			count, err := server.Do(t.Context(), "HGET", prefix+":"+name, "c")
			if err != nil || count != strconv.Itoa(10*(i+1)) {
				t.Errorf("%s, call %d: %v units were charged, want %d; %v", name, i, count, 10*(i+1), err)
			}
		}
	}
}

// TestFrozen wants answers by the deadline, also of a client that would wait for seconds.
func TestFrozen(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const deadline = 250 * time.Millisecond
	server := start(t, redistest.Options{})
	for name, heeds := range map[string]bool{"heeding": true, "not heeding": false} {
		store := lend(t, redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: heeds}), goredis.Config{Timeout: deadline})
		r := rule(t, window(50))
		if err := second(store.Apply(t.Context(), name, r, 1)); err != nil {
			t.Fatal(err)
		}
		if err := server.Freeze(); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 700 {
			group.Go(func() {
				begun := time.Now()
				err := second(store.Apply(t.Context(), name, r, 1))
				if took := time.Since(begun); took > deadline+2*time.Second || !errors.Is(err, throttlekit.ErrStoreUnavailable) {
					t.Errorf("%s: after %v: %v", name, took, err)
				}
			})
		}
		group.Wait()
		if err := server.Thaw(); err != nil {
			t.Fatal(err)
		}
		for begun := time.Now(); second(store.Apply(t.Context(), "other", r, 1)) != nil; <-time.After(10 * time.Millisecond) {
			if time.Since(begun) > 10*time.Second {
				t.Fatalf("%s: does not recover", name)
			}
		}
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	cluster, err := redistest.StartCluster(t.Context(), 3, false, redistest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	spread(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{cluster.Primaries[0].Addr}}))
}

func TestRing(t *testing.T) {
	t.Parallel()
	addrs := map[string]string{}
	for i := range 3 {
		addrs[strconv.Itoa(i)] = start(t, redistest.Options{}).Addr
	}
	spread(t, redis.NewRing(&redis.RingOptions{Addrs: addrs}))
}

// spread uses a client that spreads keys over servers.
func spread(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	store := lend(t, client, goredis.Config{})
	r := rule(t, window(5))
	var ops []throttlekit.Op
	for i := range 300 {
		ops = append(ops, throttlekit.Op{Key: fmt.Sprint("k", i%100), Transition: r, Cost: 1})
	}
	decisions, err := store.Batch(t.Context(), ops, throttlekit.CommitEach)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range decisions {
		if d.Remaining != int64(4-i/100) {
			t.Errorf("op %d: %+v", i, d)
		}
	}
	together := []throttlekit.Op{{Key: "user:{7}", Transition: r, Cost: 1}, {Key: "address:{7}", Transition: r, Cost: 1}}
	if d, err := store.Batch(t.Context(), together, throttlekit.CommitAll); err != nil || d[1].Remaining != 4 {
		t.Errorf("%+v, %v", d, err)
	}
	apart := []throttlekit.Op{{Key: "user:7", Transition: r, Cost: 1}, {Key: "address:7", Transition: r, Cost: 1}}
	if _, err := store.Batch(t.Context(), apart, throttlekit.CommitAll); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if err := store.Reset(t.Context(), "k1"); err != nil {
		t.Error(err)
	}
	if d, err := store.Apply(t.Context(), "k1", r, 1); err != nil || d.Remaining != 4 {
		t.Errorf("after Reset: %+v, %v", d, err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	const secret = "open-sesame"
	locked := start(t, redistest.Options{Password: secret})
	silentAddr := "127.0.0.1:1"
	r := rule(t, window(5))
	for _, test := range []struct {
		name, says string
		options    redis.Options
	}{
		{"unreachable", "check that the server runs", redis.Options{Addr: silentAddr}},
		{"no password", "wants a password", redis.Options{Addr: locked.Addr}},
		{"wrong password", "password is wrong", redis.Options{Addr: locked.Addr, Password: secret + "x"}},
		{"wrong database", "no database of that number", redis.Options{Addr: shared.Addr, DB: 99}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			store := lend(t, redis.NewClient(&test.options), goredis.Config{Prefix: "shop"})
			err := second(store.Apply(t.Context(), "user:42", r, 1))
			if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), test.says) ||
				!strings.Contains(err.Error(), `"shop"`) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "user:42") {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, client := range []redis.UniversalClient{nil, (*redis.Client)(nil)} {
		if _, err := goredis.New(client, goredis.Config{}); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Error(err)
		}
	}
	closed := redis.NewClient(&redis.Options{Addr: shared.Addr})
	store := lend(t, closed, goredis.Config{})
	_ = closed.Close()
	if err := second(store.Apply(t.Context(), "k", r, 1)); !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := second(store.Apply(ctx, "k", r, 1)); !errors.Is(err, context.Canceled) || errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Error(err)
	}
}

// TestScriptsFlushed has 200 callers meet a server that keeps forgetting its scripts.
func TestScriptsFlushed(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	store := lend(t, redis.NewClient(&redis.Options{Addr: server.Addr}), goredis.Config{})
	r := rule(t, window(50))
	var admitted atomic.Int64
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			if i%20 == 0 {
				if err := server.FlushScripts(t.Context()); err != nil {
					t.Error(err)
				}
			}
			d, err := store.Apply(t.Context(), "k", r, 1)
			if err != nil {
				t.Error(err)
			} else if d.Allowed {
				admitted.Add(1)
			}
		})
	}
	group.Wait()
	if n := admitted.Load(); n != 50 {
		t.Errorf("admitted %d of 50", n)
	}
}

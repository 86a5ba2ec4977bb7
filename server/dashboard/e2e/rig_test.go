package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/dashboard"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// policies has one of each that some view is about.
const policies = `
version: 1
limiters:
  api: { strategy: gcra, limit: 30000, period: 1m, burst: 200 }
  login: { strategy: slidingWindowLog, limit: 5, period: 15m, failMode: closed }
  search: { strategy: tokenBucket, capacity: 60, refillPerSec: 40 }
  exports: { strategy: quota, limit: 500, resetCadence: calendar-day }
  tenants:
    fairEscrow: { limit: 6000, window: 1m, unit: requests, weights: { acme: 3, globex: 2, initech: 1 } }
  tokens:
    tokenBudget: { budget: 50000, window: 1m }
  checkout:
    strategy: gcra
    limit: 16
    period: 1s
    burst: 8
    concurrency: { minLimit: 8, maxLimit: 16, initialLimit: 12 }
  reports:
    concurrency: { minLimit: 4, maxLimit: 16 }
  edge:
    strategy: gcra
    limit: 600
    period: 1s
    burst: 600
    twoTier: { mode: leased, batch: 50 }
  fleet:
    strategy: fixedWindow
    limit: 20000
    period: 1m
    federated: { batch: 50 }
`

// rig is a service, a hub that watches it, and a server with its dashboard.
type rig struct {
	tb  testing.TB
	svc *service.Service
	hub *monitor.Hub
	url string

	addr string
	stop func()
}

// start serves on an address. It ends with the test, or when it is stopped.
func start(tb testing.TB, addr string, config dashboard.Config) *rig {
	tb.Helper()
	hub, err := monitor.New(monitor.Config{Node: "10.0.0.7:50051", Backend: "memory"})
	must(tb, err)
	svc := build(tb, policies, hub)
	must(tb, hub.Attach(svc))
	config.Source = hub
	board, err := dashboard.New(config)
	must(tb, err)

	// The same timeouts as those of the HTTP door, shorter: a stream must outlive them.
	server := &http.Server{
		Handler: board, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
	}
	server.RegisterOnShutdown(board.Close)
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", addr)
	must(tb, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	r := &rig{tb: tb, svc: svc, hub: hub, addr: listener.Addr().String(), url: "http://" + listener.Addr().String() + "/"}
	r.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			tb.Errorf("shutdown: %v", err)
		}
		<-served
	})
	tb.Cleanup(r.stop)
	return r
}

// build makes a service that a hub watches. It lasts as long as the test.
func build(tb testing.TB, text string, hub *monitor.Hub) *service.Service {
	tb.Helper()
	file, err := policy.Parse("e2e.yaml", []byte(text))
	must(tb, err)
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	must(tb, err)
	built, err := file.Build(policy.Env{Store: store})
	must(tb, err)
	svc, err := service.New(service.Config{Policies: built, Taps: []service.Tap{hub}})
	must(tb, err)
	tb.Cleanup(func() {
		must(tb, svc.Close())
		must(tb, store.Close())
	})
	return svc
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// deny denies a key of policy "login", once it has had its five.
func (r *rig) deny(key string) {
	r.tb.Helper()
	for range 100 {
		d, err := r.svc.Check(r.tb.Context(), "login", key, 1)
		must(r.tb, err)
		if !d.Allowed {
			return
		}
	}
	r.tb.Fatal("nothing was denied")
}

// load is traffic of all kinds, by a few callers, until the context ends.
func (r *rig) load(ctx context.Context) {
	var callers sync.WaitGroup
	defer callers.Wait()
	every := func(d time.Duration, call func(i int) error) {
		callers.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if err := call(i); err != nil && ctx.Err() == nil {
					r.tb.Error(err)
					return
				}
			}
		})
	}
	check := func(name, key string, cost float64) error {
		_, err := r.svc.Check(ctx, name, key, cost)
		return err
	}
	began := time.Now()
	rush := func() bool { return int(time.Since(began).Seconds())%40 >= 24 } // traffic has tides
	customers := []string{"acme", "globex", "initech", "umbrella", "hooli", "stark"}
	every(2*time.Millisecond, func(int) error {
		n := 1
		if rush() {
			n = 3
		}
		for range n {
			if err := check("api", customers[min(rand.IntN(6), rand.IntN(6))]+":/v1/orders", 1); err != nil {
				return err
			}
		}
		return nil
	})
	every(60*time.Millisecond, func(int) error { return check("login", fmt.Sprintf("203.0.113.%d", rand.IntN(24)), 1) })
	every(9*time.Millisecond, func(int) error { return check("search", customers[min(rand.IntN(6), rand.IntN(6))], 1) })
	every(300*time.Millisecond, func(i int) error { return check("exports", customers[i%6], 1) })
	every(6*time.Millisecond, func(int) error { return check("tenants", customers[min(rand.IntN(6), rand.IntN(6))], 1) })
	every(2*time.Millisecond, func(int) error { return check("edge", "region-eu", 1) })
	every(40*time.Millisecond, func(int) error {
		n := 20 + rand.IntN(300)
		if rush() {
			n *= 4
		}
		_, err := r.svc.Debit(ctx, "tokens", "team-"+customers[min(rand.IntN(6), rand.IntN(6))], int64(n))
		return err
	})
	every(250*time.Millisecond, func(i int) error {
		wants := 40 + rand.IntN(40)
		if rush() {
			wants *= 3
		}
		_, err := r.svc.Reserve(ctx, "fleet", "gateway-"+strconv.Itoa(i%3), int64(wants))
		return err
	})
	admit := func(name string, takes func() time.Duration) func(int) error {
		return func(i int) error {
			a, err := r.svc.Admit(ctx, name, service.AdmitRequest{Key: customers[i%6], Cost: 1})
			if err != nil || !a.Allowed {
				return err
			}
			callers.Go(func() {
				select {
				case <-ctx.Done():
				case <-time.After(takes()):
				}
				r.svc.Release(a.Lease, false)
			})
			return nil
		}
	}
	every(9*time.Millisecond, admit("checkout", func() time.Duration {
		took := 90 + rand.IntN(60)
		if rush() {
			took += 120
		}
		return time.Duration(took) * time.Millisecond
	}))
	every(50*time.Millisecond, admit("reports", func() time.Duration { return time.Duration(150+rand.IntN(100)) * time.Millisecond }))
}

// flood has many denials a second, straight into the hub, until the context ends. It returns how many they were.
func (r *rig) flood(ctx context.Context) (n int64) {
	info := service.Info{Name: "login", Kind: "plain", Strategy: "slidingWindowLog", Limit: 5}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("flood-%d", i)
	}
	tap := r.hub.ForPolicy(info)
	for ctx.Err() == nil {
		at := time.Now()
		for i := range 1000 {
			tap.Decided(service.Event{
				Policy: info, Key: keys[i], Cost: 1, At: at, Elapsed: time.Microsecond,
				Decision: throttlekit.Decision{Limit: 5, RetryAfterMillis: 1000},
			})
		}
		n += 1000
	}
	return n
}

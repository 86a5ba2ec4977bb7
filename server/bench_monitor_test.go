package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

// BenchmarkMonitor is what being watched costs unary calls of 64 callers: calls per second with a hub in times of those without one
// ("x", the target is 0.97), and the 99th percentile of a call in times of that without readers ("p99x", the target is 1.1). The
// servers take turns, and medians count, so that whatever else the machine does meets both.
func BenchmarkMonitor(b *testing.B) {
	for _, test := range []struct {
		name    string
		readers int
		denied  bool
	}{{"hub", 0, false}, {"hub denied", 0, true}, {"100 slow readers", 100, false}, {"100 slow readers denied", 100, true}} {
		b.Run(test.name, func(b *testing.B) { compareWatched(b, test.readers, test.denied) })
	}
}

func compareWatched(b *testing.B, readers int, denied bool) {
	b.Helper()
	policy, key := "many", "user:1234"
	if denied {
		policy = "five"
	}
	var clients [2]throttlekitv1.RateLimiterClient
	for i := range clients {
		hub := must(monitor.New(monitor.Config{}))
		var taps []service.Tap
		if i == 1 || readers > 0 {
			taps = append(taps, hub)
		}
		svc := must(service.New(service.Config{
			Policies: []service.Policy{plain{"five", limiter(5)}, plain{"many", limiter(1e12)}}, Taps: taps,
		}))
		b.Cleanup(func() { _ = svc.Close() })
		cfg := local()
		cfg.HTTPAddr, cfg.Monitor, cfg.DrainTimeout = Off, hub, 50*time.Millisecond
		s, _ := serve(b, svc, cfg)
		clients[i] = throttlekitv1.NewRateLimiterClient(dial(b, s))
		for range readers * i {
			stream, err := throttlekitv1.NewMonitorClient(dial(b, s)).Watch(b.Context(), &throttlekitv1.WatchRequest{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := stream.Header(); err != nil { // the last that this reader reads
				b.Fatal(err)
			}
		}
	}
	ctx := context.WithoutCancel(b.Context())
	var rates, tails [2][]float64
	for b.Loop() {
		for i, c := range clients {
			rate, p99, err := turn(ctx, c, &throttlekitv1.CheckRequest{Policy: policy, Key: key})
			if err != nil {
				b.Fatal(err)
			}
			rates[i], tails[i] = append(rates[i], rate), append(tails[i], p99)
		}
	}
	median := func(values []float64) float64 {
		slices.Sort(values)
		return values[len(values)/2]
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rates[1]), "calls/s")
	b.ReportMetric(median(rates[1])/median(rates[0]), "x")
	b.ReportMetric(median(tails[1])/median(tails[0]), "p99x")
}

// turn makes some thousand calls from 64 callers.
func turn(ctx context.Context, c throttlekitv1.RateLimiterClient, req *throttlekitv1.CheckRequest) (rate, p99 float64, err error) {
	const each = 64
	var mu sync.Mutex
	var all sync.WaitGroup
	latencies := make([]time.Duration, 0, callers*each)
	began := time.Now()
	for range callers {
		all.Go(func() {
			own := make([]time.Duration, each)
			for i := range own {
				start := time.Now()
				if _, failed := c.Check(ctx, req); failed != nil {
					mu.Lock()
					err = fmt.Errorf("check: %w", failed)
					mu.Unlock()
					return
				}
				own[i] = time.Since(start)
			}
			mu.Lock()
			latencies = append(latencies, own...)
			mu.Unlock()
		})
	}
	all.Wait()
	took := time.Since(began)
	slices.Sort(latencies)
	if len(latencies) > 0 {
		p99 = float64(latencies[len(latencies)*99/100])
	}
	return float64(len(latencies)) / took.Seconds(), p99, err
}

package monitor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// gcra is a policy in memory that allows limit requests an hour.
type gcra struct {
	*throttlekit.Limiter

	info service.Info
}

func newGCRA(tb testing.TB, name string, limit float64) gcra {
	tb.Helper()
	l, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: limit, Period: time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	return gcra{l, service.Info{Name: name, Kind: "plain", Strategy: "gcra", Limit: int64(limit)}}
}

func (g gcra) Info() service.Info { return g.info }

func (g gcra) Check(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return g.CheckN(ctx, key, cost)
}

// BenchmarkCheck is what a check in memory costs with a hub, in ns and, as "x", in times of what it costs without one: the target
// is 1.25. Both take turns of a few milliseconds, and the medians count, so that whatever else the machine does meets both.
func BenchmarkCheck(b *testing.B) {
	for _, limit := range []struct {
		name string
		of   float64
	}{{"allowed", 1e12}, {"denied", 1}} {
		for _, keys := range []int{1, 1024} {
			for _, callers := range []int{1, 2} {
				for _, watchers := range []int{0, 100} {
					name := fmt.Sprintf("%s/keys=%d/callers=%d/watchers=%d", limit.name, keys, callers, watchers)
					b.Run(name, func(b *testing.B) { compare(b, limit.of, keys, callers, watchers) })
				}
			}
		}
	}
}

func compare(b *testing.B, limit float64, keyCount, callers, watchers int) {
	b.Helper()
	h, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	for range watchers {
		s, err := h.Watch("")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.Close)
	}
	keys := make([]string, keyCount)
	for i := range keys {
		keys[i] = "user:" + strconv.Itoa(10_000+i)
	}
	clock := throttlekit.NewCoarseClock() // as servers have it
	b.Cleanup(func() { _ = clock.Close() })
	var services [2]*service.Service
	for i, taps := range [][]service.Tap{nil, {h}} {
		s, err := service.New(service.Config{Policies: []service.Policy{newGCRA(b, "p", limit)}, Taps: taps, Clock: clock})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		services[i] = s
	}
	ctx := context.WithoutCancel(b.Context())
	const turn = 20_000
	run := func(s *service.Service, n int) float64 {
		start := time.Now()
		var all sync.WaitGroup
		for c := range callers {
			all.Go(func() {
				for i := range n {
					if _, err := s.Check(ctx, "p", keys[(i+c*keyCount/2)%keyCount], 1); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		return float64(time.Since(start)) / float64(n*callers)
	}
	var took [2][]float64
	for b.Loop() {
		for i, s := range services {
			took[i] = append(took[i], run(s, turn))
		}
	}
	for _, t := range took {
		slices.Sort(t)
	}
	off, on := took[0][len(took[0])/2], took[1][len(took[1])/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(off, "ns/off")
	b.ReportMetric(on, "ns/on")
	b.ReportMetric(on/off, "x")
}

// BenchmarkDecided is what the hub takes of it.
func BenchmarkDecided(b *testing.B) {
	h, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	info := service.Info{Name: "p", Kind: "plain", Strategy: "gcra"}
	for _, tap := range []struct {
		service.Tap

		name string
	}{{h, "hub"}, {h.ForPolicy(info), "policy"}} {
		for _, allowed := range []bool{true, false} {
			e := service.Event{
				Policy: info, Key: "user:12345", Cost: 1,
				Decision: throttlekit.Decision{Allowed: allowed, Limit: 5}, At: time.UnixMilli(1_795_000_000_000),
			}
			b.Run(fmt.Sprintf("%s/allowed=%v", tap.name, allowed), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tap.Decided(e)
				}
			})
		}
	}
}

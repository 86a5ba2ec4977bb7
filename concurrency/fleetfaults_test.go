package concurrency

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// backend counts by itself what is in flight.
type backend struct{ inFlight, most, total atomic.Int64 }

func (b *backend) enter() {
	b.total.Add(1)
	n := b.inFlight.Add(1)
	for {
		most := b.most.Load()
		if n <= most || b.most.CompareAndSwap(most, n) {
			return
		}
	}
}

// TestFleetsUnderFaults lets lines delay, lose and refuse beats, executes some of them long after they
// were given up, and kills and starts nodes. Requests are shorter than the margin. The rules as they
// are keep the ceiling; without the fence, or without handoff, some run exceeds it.
func TestFleetsUnderFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*FleetConfig)
		ceiling CeilingConfig
		keeps   bool
	}{
		"equal split": {func(*FleetConfig) {}, CeilingConfig{AcknowledgedHandoff: true}, true},
		"eager":       {func(c *FleetConfig) { c.Eager = true }, CeilingConfig{AcknowledgedHandoff: true}, true},
		"demand":      {func(c *FleetConfig) { c.Eager = true }, CeilingConfig{AcknowledgedHandoff: true, Allocation: DemandProportional}, true},
		"no handoff":  {func(c *FleetConfig) { c.Eager = true }, CeilingConfig{}, false},
		"no fence":    {func(c *FleetConfig) { c.NoFence, c.TTL = true, 1200*ms }, CeilingConfig{AcknowledgedHandoff: true}, false},
		"local-only":  {func(c *FleetConfig) { c.Outage = LocalOnly }, CeilingConfig{AcknowledgedHandoff: true}, false},
		"thin margin": {func(c *FleetConfig) { c.FenceMargin = ms }, CeilingConfig{AcknowledgedHandoff: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const limit = 7
			var worst, total int64
			seeds := uint64(200)
			if testing.Short() {
				seeds = 30
			}
			for seed := range seeds {
				most, n := faults(t, seed, limit, c.ceiling, c.change)
				worst, total = max(worst, most), total+n
				if c.keeps && most > limit {
					t.Fatalf("seed %d: %d in flight of %d", seed, most, limit)
				}
			}
			if worst < limit || !c.keeps && worst == limit {
				t.Errorf("at most %d in flight of %d shows nothing", worst, limit)
			}
			t.Logf("%d requests, at most %d in flight of %d", total, worst, limit)
		})
	}
}

// faults runs one fleet for a while, and returns the most that were in flight and how many requests there were.
func faults(t *testing.T, seed uint64, limit int, rules CeilingConfig, change func(*FleetConfig)) (most, total int64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var b backend
		start := time.Now()
		store := newBubbleStore(t)
		var work sync.WaitGroup
		for i := range 4 {
			work.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				for life := 0; time.Since(start) < 20*time.Second; life++ {
					<-time.After(time.Duration(r.Int64N(int64(3 * time.Second))))
					node := join(t, store, fmt.Sprint("n", i), limit, func(c *FleetConfig) {
						c.Ceiling = newTestCeiling(t, rules)
						change(c)
					})
					live(t, r, node, &b, time.Duration(r.Int64N(int64(8*time.Second))))
				}
			})
		}
		work.Wait()
		most, total = b.most.Load(), b.total.Load()
	})
	return most, total
}

// live is the life of one node, under a load that changes.
func live(t *testing.T, r *rand.Rand, node testNode, b *backend, lasts time.Duration) {
	t.Helper()
	moods := []func(){
		func() { node.line.set(nil, nil) },
		func() { node.line.set(errDown, nil) },
		func() { node.line.set(nil, takes(time.Hour, 0)) },
		func() { node.line.set(nil, takes(0, time.Hour)) },
		func() {
			there, back := time.Duration(r.Int64N(int64(time.Second))), time.Duration(r.Int64N(int64(time.Second)))
			node.line.set(nil, takes(there, back))
		},
		func() { // executed after it was given up
			node.line.set(nil, takes(time.Duration(r.Int64N(int64(3*time.Second))), 0))
		},
	}
	var requests sync.WaitGroup
	for began := time.Now(); time.Since(began) < lasts; {
		if r.IntN(20) == 0 {
			moods[max(0, r.IntN(2*len(moods))-len(moods))]()
		}
		for range r.IntN(4) {
			p := node.TryAcquire()
			if !p.Allowed {
				break
			}
			b.enter()
			takes := time.Duration(r.Int64N(int64(490 * ms)))
			requests.Go(func() {
				<-time.After(takes)
				b.inFlight.Add(-1)
				p.Cancel()
			})
		}
		<-time.After(time.Duration(r.Int64N(int64(100 * ms))))
	}
	if r.IntN(2) == 0 { // dies: its beats end, and nobody is told
		node.line.set(errDown, nil)
		_ = node.Close()
		requests.Wait()
		return
	}
	_ = node.Close()
	requests.Wait()
}

package concurrency

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/internal/monotonic"
)

// BenchmarkYardstick is what a permit is measured against: a lock taken and given back, and two
// readings of the clock. Acquiring and releasing one may take twice as long, which is what the
// second lock and all that is learned are paid with.
func BenchmarkYardstick(b *testing.B) {
	var mu sync.Mutex
	var passed time.Duration
	for b.Loop() {
		now := monotonic.Elapsed()
		mu.Lock()
		passed -= now
		mu.Unlock()
		passed += monotonic.Elapsed()
	}
	if passed < 0 {
		b.Fatal("the clock goes backwards")
	}
}

func BenchmarkPermit(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(string(algorithm), func(b *testing.B) {
			g := newTestGuard(b, Config{Algorithm: algorithm})
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				p, err := g.Acquire(ctx)
				if err != nil || !p.Allowed {
					b.Fatal(p, err)
				}
				p.Release()
			}
		})
	}
}

func BenchmarkRefused(b *testing.B) {
	g := newTestGuard(b, Config{MinLimit: 1, MaxLimit: 1})
	g.TryAcquire()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if p, err := g.Acquire(ctx); err != nil || p.Allowed {
			b.Fatal(p, err)
		}
	}
}

func BenchmarkPermitParallel(b *testing.B) {
	g := newTestGuard(b, Config{InitialLimit: 512})
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if p, err := g.Acquire(ctx); err == nil {
				p.Release()
			}
		}
	})
}

// BenchmarkFleetPermit compares a permit of a fleet's guard with one of a guard by itself: it may
// cost at most a fifth more.
func BenchmarkFleetPermit(b *testing.B) {
	for name, g := range map[string]interface{ TryAcquire() Permit }{
		"local": newTestGuard(b, Config{}),
		"fleet": newBenchmarkFleet(b, FleetConfig{}),
		"eager": newBenchmarkFleet(b, FleetConfig{Eager: true}),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p := g.TryAcquire()
				if !p.Allowed {
					b.Fatal(p)
				}
				p.Release()
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if p := g.TryAcquire(); p.Allowed {
						p.Release()
					}
				}
			})
		})
	}
}

// BenchmarkBeat is a beat that finds nothing new, on a store in memory.
func BenchmarkBeat(b *testing.B) {
	f := newBenchmarkFleet(b, FleetConfig{})
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Beat(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func newBenchmarkFleet(tb testing.TB, config FleetConfig) *FleetGuard {
	tb.Helper()
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	config.Ceiling = newTestCeiling(tb, CeilingConfig{AcknowledgedHandoff: true})
	config.Store, config.Key, config.Node = store, fleetKey, "n"
	f, err := NewFleetGuard(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := f.Beat(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return f
}

// TestPermitsDoNotAllocate holds what the benchmarks show.
func TestPermitsDoNotAllocate(t *testing.T) {
	local := Config{Recalibration: &Recalibration{Interval: time.Nanosecond}}
	ctx := t.Context()
	for name, g := range map[string]interface {
		Acquire(context.Context) (Permit, error)
	}{
		"guard": newTestGuard(t, local),
		"fleet": newBenchmarkFleet(t, FleetConfig{Local: local, Heartbeat: time.Hour}), // beats do allocate
	} {
		n := testing.AllocsPerRun(1000, func() {
			p, _ := g.Acquire(ctx)
			p.Release()
		})
		if n != 0 {
			t.Errorf("a permit of a %s allocates %v times", name, n)
		}
	}
}

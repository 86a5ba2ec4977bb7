package concurrency

import (
	"sync"
	"testing"
	"time"

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

// TestPermitsDoNotAllocate holds what the benchmarks show.
func TestPermitsDoNotAllocate(t *testing.T) {
	g := newTestGuard(t, Config{Recalibration: &Recalibration{Interval: time.Nanosecond}})
	ctx := t.Context()
	n := testing.AllocsPerRun(1000, func() {
		p, _ := g.Acquire(ctx)
		p.Release()
	})
	if n != 0 {
		t.Errorf("a permit allocates %v times", n)
	}
}

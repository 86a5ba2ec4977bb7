package service

import (
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
)

const benchmarkedLeases = 100_000

// heldLeases is a full table of a guard's leases, swept by hand only. Every few of them end together.
type heldLeases struct {
	*leases

	guard *concurrency.Guard
	now   time.Duration
}

// together is how many leases end together: as many as one hold of the lock ends.
const together = sweepChunk - 1

func benchmarkLeases(b *testing.B) *heldLeases {
	b.Helper()
	guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: benchmarkedLeases, MaxLimit: benchmarkedLeases})
	if err != nil {
		b.Fatal(err)
	}
	h := &heldLeases{guard: guard}
	h.leases = newLeases(time.Hour, func() time.Duration { return h.now })
	b.Cleanup(h.close)
	h.fill(b)
	return h
}

// fill grants leases for all slots.
func (h *heldLeases) fill(b *testing.B) {
	b.Helper()
	for n := 1; ; n++ {
		permit := h.guard.TryAcquire()
		if !permit.Allowed {
			return
		}
		if _, ok := h.grant(&held{}, permit); !ok {
			b.Fatal("the table is closed")
		}
		if n%together == 0 {
			h.now++
		}
	}
}

// BenchmarkSweep is a sweep of 100,000 leases of which none has ended, as many have as one hold of
// the lock ends, or all have.
func BenchmarkSweep(b *testing.B) {
	b.Run("none", func(b *testing.B) {
		h := benchmarkLeases(b)
		b.ReportAllocs()
		for b.Loop() {
			h.sweep()
		}
		if held, _ := h.count(); held != benchmarkedLeases {
			b.Fatalf("%d are left", held)
		}
	})
	b.Run("chunk", func(b *testing.B) {
		h := benchmarkLeases(b)
		for b.Loop() {
			h.now = h.slab[h.oldest].deadline
			h.sweep()
			b.StopTimer()
			if held, _ := h.count(); held != benchmarkedLeases-together {
				b.Fatalf("%d are left", held)
			}
			h.fill(b)
			b.StartTimer()
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			h := benchmarkLeases(b)
			h.now = 2 * time.Hour
			b.StartTimer()
			h.sweep()
			if held, reclaimed := h.count(); held != 0 || reclaimed != benchmarkedLeases {
				b.Fatalf("%d are left, %d were reclaimed", held, reclaimed)
			}
		}
	})
}

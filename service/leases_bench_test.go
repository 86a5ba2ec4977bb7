package service

import (
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
)

const benchmarkedLeases = 100_000

// benchmarkLeases is a table of many leases, whose clock is at now, and which is swept by hand only.
func benchmarkLeases(b *testing.B, now *time.Duration) *leases {
	b.Helper()
	guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: benchmarkedLeases, MaxLimit: benchmarkedLeases})
	if err != nil {
		b.Fatal(err)
	}
	l := newLeases(time.Hour, func() time.Duration { return *now })
	b.Cleanup(l.close)
	for range benchmarkedLeases {
		permit := guard.TryAcquire()
		if _, ok := l.grant(permit); !permit.Allowed || !ok {
			b.Fatal("there is no slot, or the table is closed")
		}
	}
	return l
}

// BenchmarkSweep is a sweep of 100,000 leases of which none has ended, or all have.
func BenchmarkSweep(b *testing.B) {
	b.Run("none", func(b *testing.B) {
		var now time.Duration
		l := benchmarkLeases(b, &now)
		b.ReportAllocs()
		for b.Loop() {
			l.sweep()
		}
		if held, _ := l.count(); held != benchmarkedLeases {
			b.Fatalf("%d are left", held)
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			var now time.Duration
			l := benchmarkLeases(b, &now)
			now = time.Hour
			b.StartTimer()
			l.sweep()
			if held, reclaimed := l.count(); held != 0 || reclaimed != benchmarkedLeases {
				b.Fatalf("%d are left, %d were reclaimed", held, reclaimed)
			}
		}
	})
}

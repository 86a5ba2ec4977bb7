package fair

import (
	"strconv"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// BenchmarkEscrow checks on an escrow of one process: one tenant, and a thousand in turn;
// with a limit that is never reached, with one that is used up, and with tenants beyond their guarantees.
func BenchmarkEscrow(b *testing.B) {
	for _, tenants := range []int{1, 1000} {
		for name, limit := range map[string]float64{"admitted": throttlekit.MaxSafe, "used up": 1000, "beyond": 1500} {
			b.Run(name+"/"+strconv.Itoa(tenants), func(b *testing.B) {
				names := make([]string, tenants)
				for i := range names {
					names[i] = "tenant-" + strconv.Itoa(i)
				}
				e, err := NewEscrow(EscrowConfig{Limit: limit, Window: time.Hour, Clock: throttlekit.NewManualClock(base)})
				if err != nil {
					b.Fatal(err)
				}
				ctx := b.Context()
				for _, name := range names {
					if _, err := e.Check(ctx, name); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					if _, err := e.Check(ctx, names[i%tenants]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkFederated(b *testing.B) {
	l := newLab(b)
	f := l.federated(b, FederatedConfig{Region: "eu", Pool: newPool(b, PoolConfig{Limit: throttlekit.MaxSafe})})
	ctx := b.Context()
	if _, err := f.CheckN(ctx, "tenant", 1<<40); err != nil {
		b.Fatal(err)
	}
	f.tank.budget = throttlekit.MaxSafe
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Check(ctx, "tenant"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestChecksDoNotAllocate holds what the benchmarks show.
func TestChecksDoNotAllocate(t *testing.T) {
	l := newLab(t)
	e := l.escrow(t, EscrowConfig{Limit: 100_000})
	f := l.federated(t, FederatedConfig{Region: "eu", Pool: newPool(t, PoolConfig{Limit: 100_000})})
	f.tank.budget, f.tank.until = 100_000, time.Hour
	ctx := t.Context()
	for _, c := range []checker{e, f} {
		if n := testing.AllocsPerRun(1000, func() { _, _ = c.Check(ctx, "tenant") }); n != 0 {
			t.Errorf("%T allocates %v times for a check", c, n)
		}
	}
}

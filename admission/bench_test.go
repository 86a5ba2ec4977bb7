package admission

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// forms are the admitters that are measured, on a store in memory, with limits that do not bind.
func forms(tb testing.TB) []struct {
	name      string
	admitter  *Admitter
	yardstick func() // what is asked of guard and store, without the admitter
} {
	tb.Helper()
	guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: 512})
	if err != nil {
		tb.Fatal(err)
	}
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	rate := &Limit{Strategy: throttlekit.GCRA{Limit: 1e12, Period: time.Second}, Prefix: "rate"}
	cost := &Limit{Strategy: throttlekit.TokenBucket{Capacity: 1e12, RefillPerSec: 1e12}, Prefix: "cost"}
	bare := &Limit{Strategy: rate.Strategy}
	rateRule, errR := rate.Strategy.Rule()
	costRule, errC := cost.Strategy.Rule()
	if errR != nil || errC != nil {
		tb.Fatal(errR, errC)
	}
	price := newPrice(tb, PriceConfig{Duals: &Duals{Rate: 0.5, Cost: 0.1, Concurrency: 0.1}})
	ctx := tb.Context()
	all := newAdmitter(tb, Config{Guard: guard, Store: store, Rate: rate, Cost: cost, Price: price})
	both := func() {
		ops := []throttlekit.Op{
			{Key: rate.Prefix + ":" + key, Transition: rateRule, Cost: 1},
			{Key: cost.Prefix + ":" + key, Transition: costRule, Cost: 1},
		}
		_, _ = all.store.Batch(ctx, ops, throttlekit.CommitAll) // a store of which no more is known
	}
	permit := func() concurrency.Permit {
		p, _ := guard.Acquire(ctx)
		return p
	}
	return []struct {
		name      string
		admitter  *Admitter
		yardstick func()
	}{
		{"guard", newAdmitter(tb, Config{Guard: guard}), func() { permit().Release() }},
		{"rate", newAdmitter(tb, Config{Store: store, Rate: bare}), func() { _, _ = all.store.Apply(ctx, key, rateRule, 1) }},
		{"guard+rate", newAdmitter(tb, Config{Guard: guard, Store: store, Rate: bare}), func() {
			p := permit()
			_, _ = all.store.Apply(ctx, key, rateRule, 1)
			p.Release()
		}},
		{"rate+cost", newAdmitter(tb, Config{Store: store, Rate: rate, Cost: cost}), both},
		{"all", all, func() {
			p := permit()
			both()
			p.Release()
		}},
	}
}

const key = "tenant-4711"

func BenchmarkAdmit(b *testing.B) {
	for _, form := range forms(b) {
		b.Run(form.name+"/yardstick", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				form.yardstick()
			}
		})
		b.Run(form.name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				adm, err := form.admitter.Admit(ctx, Request{Key: key})
				if err != nil || !adm.Allowed {
					b.Fatal(adm, err)
				}
				adm.Release()
			}
		})
	}
}

func BenchmarkAdmitParallel(b *testing.B) {
	for _, form := range forms(b) {
		b.Run(form.name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if adm, err := form.admitter.Admit(ctx, Request{Key: key}); err == nil {
						adm.Release()
					}
				}
			})
		})
	}
}

// TestAdmitAllocatesNoMore than guard and store do by themselves.
func TestAdmitAllocatesNoMore(t *testing.T) {
	for _, form := range forms(t) {
		want := testing.AllocsPerRun(500, form.yardstick)
		ctx := t.Context()
		got := testing.AllocsPerRun(500, func() {
			adm, _ := form.admitter.Admit(ctx, Request{Key: key})
			adm.Release()
		})
		if got > want {
			t.Errorf("%s: %v allocations, %v without the admitter", form.name, got, want)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	p := newPrice(b, PriceConfig{Duals: &Duals{Rate: 0.5, Cost: 0.1, Concurrency: 0.1}})
	b.ReportAllocs()
	for b.Loop() {
		if !p.admits(1, 1, 1) {
			b.Fatal("refused")
		}
	}
}

// BenchmarkSolve has as many types as there may be.
func BenchmarkSolve(b *testing.B) {
	for name, concurrency := range map[string]bool{"2 axes": false, "3 axes": true} {
		w := someWorkload(rand.New(rand.NewPCG(35, 5)), MaxTypes, concurrency)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := w.Solve(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

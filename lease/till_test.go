package lease_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

// Whatever happens at the same time, every unit that was lent is spent once, held, or was lost on purpose: requests of
// many sizes, refills ahead of need, looks at what is held, and the end.
func TestUnitsAreNeitherLostNorMade(t *testing.T) {
	t.Parallel()
	for _, lowWater := range []int64{0, 30, 1000} {
		var lent atomic.Int64
		source := &lender{lend: func(_ context.Context, _, wants int64) (lease.Grant, error) {
			lent.Add(wants)
			return lease.Grant{Units: wants, Limit: 7, Lasts: time.Hour, ResetsIn: time.Hour, ResetAtMillis: 5}, nil
		}}
		h, err := lease.NewHolder(lease.HolderConfig{Source: source, Batch: 100, LowWater: lowWater})
		if err != nil {
			t.Fatal(err)
		}
		var spent atomic.Int64
		var work, watch sync.WaitGroup
		var over atomic.Bool
		watch.Go(func() {
			for !over.Load() {
				if h.Held() < 0 {
					t.Error("less than nothing is held")
				}
			}
		})
		for i := range 8 {
			work.Go(func() {
				dice := rand.New(rand.NewPCG(uint64(i), 1))
				for range 10_000 {
					cost := float64(dice.IntN(9) + 1)
					d, err := h.CheckN(t.Context(), cost)
					if err != nil || !d.Allowed || d.Limit != 7 || d.Remaining < 0 || d.ResetAtMillis != 5 {
						t.Errorf("got %+v, %v", d, err)
						return
					}
					spent.Add(int64(cost))
				}
			})
		}
		work.Wait()
		over.Store(true)
		watch.Wait()
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if lent.Load() != spent.Load()+source.returned.Load() {
			t.Errorf("low water %d: %d units were lent, %d spent and %d returned", lowWater, lent.Load(), spent.Load(), source.returned.Load())
		}
		if _, err := h.Check(t.Context()); err == nil {
			t.Error("a closed holder admits")
		}
	}
}

// Units that are taken without the lock end when the others do, and a check that finds them ended asks for new ones.
func TestTillEndsInTime(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	asked := 0
	source := &lender{lend: func(_ context.Context, _, wants int64) (lease.Grant, error) {
		asked++
		return lease.Grant{Units: wants, Lasts: time.Second, ResetsIn: time.Second}, nil
	}}
	h, err := lease.NewHolder(lease.HolderConfig{
		Source: source, Limit: 9, Batch: 100,
		Elapsed: func() time.Duration { return time.Duration(clock.NowMillis()) * time.Millisecond },
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(remaining int64, times int) {
		t.Helper()
		if d, err := h.Check(t.Context()); err != nil || !d.Allowed || d.Remaining != remaining || asked != times {
			t.Errorf("at %d: got %+v, %v after %d requests, want %d remaining after %d", clock.NowMillis(), d, err, asked, remaining, times)
		}
	}
	check(99, 1)
	check(98, 1) // opens the till
	check(97, 1)
	if got := h.Held(); got != 97 {
		t.Errorf("%v are held, want 97", got)
	}
	check(96, 1)
	check(95, 1)
	clock.Set(997) // a drift of 500 ppm and a millisecond are taken off
	check(94, 1)
	clock.Set(998)
	check(99, 2)
	check(98, 2)
	clock.Set(1997)
	if got := h.Held(); got != 0 {
		t.Errorf("%v are held, want none", got)
	}
}

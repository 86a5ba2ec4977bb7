package lease_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

func (w *world) coordinator(t *testing.T, limit float64) *lease.Coordinator {
	t.Helper()
	c, err := lease.NewCoordinator(lease.CoordinatorConfig{Strategy: second(limit), Store: w.store})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) federated(t *testing.T, config lease.FederatedConfig) *lease.Federated {
	t.Helper()
	if config.Elapsed == nil {
		config.Elapsed = w.elapsed
	}
	f, err := lease.NewFederated(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// The steps are those of the specification's server.md §2.6.
func TestCoordinatorLendsTheBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, err := lease.NewCoordinator(lease.CoordinatorConfig{
		Strategy: throttlekit.FixedWindow{Limit: 5, Window: time.Minute}, Store: w.store,
	})
	if err != nil {
		t.Fatal(err)
	}
	lend := func(at, wants, units, reset int64, resetsIn time.Duration) {
		t.Helper()
		w.clock.Set(at)
		g, err := c.Lease(t.Context(), "d", 1, wants)
		if err != nil || g.Units != units {
			t.Fatalf("%+v, %v, want %d units", g, err, units)
		}
		if units > 0 && (g.ResetAtMillis != reset || g.ResetsIn != resetsIn || g.Lasts != resetsIn) {
			t.Errorf("%+v, want reset %d in %v", g, reset, resetsIn)
		}
		if want := (throttlekit.Decision{Limit: 5, ResetAtMillis: reset, RetryAfterMillis: resetsIn.Milliseconds()}); units == 0 && g.Denial != want {
			t.Errorf("denial %+v, want %+v", g.Denial, want)
		}
	}
	lend(0, 3, 3, 60_000, time.Minute)
	lend(20_000, 3, 2, 60_000, 40*time.Second)
	lend(20_000, 1, 0, 60_000, 40*time.Second)
	lend(60_000, 9_007_199_254_740_991, 5, 120_000, time.Minute)

	if err := c.Return(t.Context(), "d", 3, 60_000); err != nil {
		t.Fatal(err)
	}
	lend(60_000, 1, 0, 120_000, time.Minute) // units of a window that is over do not come back
	if err := c.Return(t.Context(), "d", 3, 120_000); err != nil {
		t.Fatal(err)
	}
	lend(119_999, 5, 3, 120_000, time.Millisecond)
	w.clock.Set(30_000)
	lend(30_000, 5, 0, 120_000, 90*time.Second) // windows only roll forward

	for _, wants := range []int64{0, -1, throttlekit.MaxSafe + 1} {
		if _, err := c.Lease(t.Context(), "d", 1, wants); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("wants %d: %v", wants, err)
		}
	}
	for _, units := range []int64{0, -1, 6} {
		if err := c.Return(t.Context(), "d", units, 120_000); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("returning %d: %v", units, err)
		}
	}
}

func TestWhatCanBeFederated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		strategy throttlekit.Strategy
		err      error
		want     string
	}{
		{second(5), nil, ""},
		{throttlekit.SlidingWindow{Limit: 5.5, Window: time.Second}, nil, ""},
		{throttlekit.Quota{Limit: 5, Cadence: throttlekit.Fixed, Period: time.Second}, nil, ""},
		{throttlekit.Quota{Limit: 5, Cadence: throttlekit.Rolling, Period: time.Second}, nil, ""},
		{throttlekit.Quota{Limit: 5, Cadence: throttlekit.CalendarDay}, throttlekit.ErrUnsupported, "strategy quota cannot be federated"},
		{throttlekit.GCRA{Limit: 5, Period: time.Second}, throttlekit.ErrUnsupported, "strategy gcra cannot be federated"},
		{throttlekit.TokenBucket{Capacity: 5, RefillPerSec: 1}, throttlekit.ErrUnsupported, "cannot be federated"},
		{throttlekit.SlidingWindowLog{Limit: 5, Window: time.Second}, throttlekit.ErrUnsupported, "cannot be federated"},
		{second(0.5), throttlekit.ErrInvalid, "limit must be at least one whole unit"},
		{second(-1), throttlekit.ErrInvalid, "limit must be"},
		{nil, throttlekit.ErrInvalid, "strategy must be given"},
	} {
		coordinator, err := lease.NewCoordinator(lease.CoordinatorConfig{Strategy: c.strategy, Store: w.store})
		switch {
		case c.err == nil:
			if err != nil || coordinator.Limit() != 5 || coordinator.Window() != time.Second {
				t.Errorf("%+v: %v", c.strategy, err)
			}
		case !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want):
			t.Errorf("%+v: %v, want %q", c.strategy, err, c.want)
		}
	}
}

// Ten checks at once on a cold key and a budget of 16: the reference's logic admits 160.
func TestFleetsAdmitTheBudgetOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.federated(t, lease.FederatedConfig{Coordinator: w.coordinator(t, 16), Batch: 16})
	var admitted atomic.Int64
	var work sync.WaitGroup
	for range 10 {
		work.Go(func() {
			for range 20 {
				d, err := f.Check(t.Context(), "k")
				if err != nil {
					t.Error(err)
				}
				if d.Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	work.Wait()
	if got := admitted.Load(); got != 16 {
		t.Errorf("admitted %d of 16", got)
	}
}

func TestFleetOfAnySizeKeepsToTheLimit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 10))
		w := newWorld(t)
		c := w.coordinator(t, 50)
		regions := []*throttlekit.MemoryStore{}
		for range 2 {
			offset := random.Int64N(20_000) - 10_000
			store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: shifted{w.clock, offset}})
			if err != nil {
				t.Fatal(err)
			}
			regions = append(regions, store)
		}
		w.clock.Set(1_000_000)
		var members []*lease.Federated
		for i := range 1 + random.IntN(8) {
			offset := time.Duration(random.Int64N(int64(20 * time.Second)))
			config := lease.FederatedConfig{
				Coordinator: c, Batch: 1 + random.Int64N(10), LowWater: random.Int64N(3), RegionalBatch: 1 + random.Int64N(30),
				Elapsed: func() time.Duration { return w.elapsed() + offset },
			}
			if random.IntN(2) == 0 {
				config.Regional = regions[i%2]
			}
			members = append(members, w.federated(t, config))
		}
		window, admitted, windows, most := int64(0), 0, 0, 0
		for range 4000 {
			if random.IntN(2) == 0 {
				w.clock.Advance(time.Duration(random.Int64N(12)) * time.Millisecond)
			}
			if now := w.clock.NowMillis() / 1000; now != window {
				window, admitted, windows = now, 0, windows+1
			}
			cost := 1 + random.IntN(2)
			if check(t, members[random.IntN(len(members))], "k", float64(cost)).Allowed {
				admitted += cost
			}
			if most = max(most, admitted); admitted > 50 {
				t.Fatalf("seed %d: %d admitted in window %d", seed, admitted, window)
			}
		}
		if most < 30 {
			t.Errorf("seed %d: at most %d of 50 were ever used", seed, most)
		}
		for _, store := range regions {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// shifted is a clock that is wrong by a constant.
type shifted struct {
	clock  throttlekit.Clock
	millis int64
}

func (s shifted) NowMillis() int64 { return s.clock.NowMillis() + s.millis }

var errDown = fmt.Errorf("%w: refused", throttlekit.ErrStoreUnavailable)

func TestFailClosedServesWhatIsHeldAndAsksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.federated(t, lease.FederatedConfig{Coordinator: w.coordinator(t, 100), Batch: 8})
	check(t, f, "k", 1)
	w.store.fail(errDown, false)
	for i := range 7 {
		if d := check(t, f, "k", 1); !d.Allowed {
			t.Fatalf("held unit %d: %+v", i, d)
		}
	}
	before := w.store.applied.Load()
	for range 10 {
		if d := check(t, f, "k", 1); d.Allowed || d.Limit != 100 || d.RetryAfterMillis < 1 || d.RetryAfterMillis > 1000 {
			t.Fatalf("without a coordinator: %+v", d)
		}
	}
	if calls := w.store.applied.Load() - before; calls != 10 || f.Outages() != 10 {
		t.Errorf("%d calls and %d outages, want 10 of either", calls, f.Outages())
	}
	w.store.fail(nil, false)
	if d := check(t, f, "k", 1); !d.Allowed {
		t.Errorf("with it again: %+v", d)
	}
}

// The times are those of the specification's §7.18.
func TestRegionalOnlyLeavesTheCoordinatorAlone(t *testing.T) {
	t.Parallel()
	w, region := newWorld(t), newWorld(t)
	minute, err := lease.NewCoordinator(lease.CoordinatorConfig{
		Strategy: throttlekit.FixedWindow{Limit: 1000, Window: time.Minute}, Store: w.store,
	})
	if err != nil {
		t.Fatal(err)
	}
	config := lease.FederatedConfig{
		Coordinator: minute, Batch: 2, Regional: region.store, RegionalBatch: 10, OnOutage: lease.RegionalOnly,
	}
	a, b := w.federated(t, config), w.federated(t, config)
	check(t, a, "k", 1) // leases 10, of which 8 lie in the region
	w.store.fail(errDown, false)
	admitted := 0
	for i := range 30 {
		if check(t, []*lease.Federated{a, b}[i%2], "k", 1).Allowed {
			admitted++
		}
	}
	if admitted != 9 {
		t.Errorf("%d more admitted in the outage, want the 9 that the region has", admitted)
	}
	at := func(millis, calls int64) {
		t.Helper()
		w.clock.Set(millis)
		before := w.store.applied.Load()
		for range 50 {
			if check(t, a, "k", 1).Allowed {
				t.Error("admitted more than the region had")
			}
		}
		if got := w.store.applied.Load() - before; got != calls {
			t.Errorf("%d calls at %d, want %d", got, millis, calls)
		}
	}
	at(0, 0)
	at(4000, 0)
	at(5500, 1)
	at(9500, 0)
	at(10_600, 1)
	w.store.fail(nil, false)
	w.clock.Set(20_000)
	if d := check(t, a, "k", 1); !d.Allowed {
		t.Errorf("after the outage: %+v", d)
	}
}

// A grant that was charged and lost on the way is lost: nothing is admitted for it, and
// nothing twice.
func TestLostGrantsAdmitNothing(t *testing.T) {
	t.Parallel()
	w, region := newWorld(t), newWorld(t)
	f := w.federated(t, lease.FederatedConfig{Coordinator: w.coordinator(t, 40), Batch: 4, Regional: region.store, RegionalBatch: 10})
	random := rand.New(rand.NewPCG(11, 11))
	admitted := 0
	for range 300 {
		for _, s := range []*countingStore{w.store, region.store} {
			switch random.IntN(4) {
			case 0:
				s.fail(errDown, true)
			case 1:
				s.fail(errDown, false)
			default:
				s.fail(nil, false)
			}
		}
		if check(t, f, "k", 1).Allowed {
			admitted++
		}
	}
	if admitted > 40 || admitted < 5 {
		t.Errorf("admitted %d of 40", admitted)
	}
	w.store.fail(nil, false)
	region.store.fail(nil, false)
}

// A coordinator that answers after its window ended has lent nothing to later requests.
func TestSlowCoordinatorAcrossAWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f, err := lease.NewFederated(lease.FederatedConfig{Coordinator: w.coordinator(t, 10), Batch: 10, Elapsed: w.elapsed})
		if err != nil {
			t.Fatal(err)
		}
		release := w.store.hold()
		done := make(chan throttlekit.Decision)
		go func() {
			d, _ := f.Check(t.Context(), "k")
			done <- d
		}()
		synctest.Wait()
		w.clock.Set(400)
		release()
		if d := <-done; !d.Allowed {
			t.Errorf("who asked: %+v", d)
		}
		w.clock.Set(1000)
		before := w.store.applied.Load()
		if d := check(t, f, "k", 1); !d.Allowed || w.store.applied.Load() == before {
			t.Errorf("the next window was served from the last one: %+v", d)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFederatedRefusesBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.coordinator(t, 10)
	for _, bad := range []struct {
		config lease.FederatedConfig
		want   string
	}{
		{lease.FederatedConfig{}, "coordinator must be given"},
		{lease.FederatedConfig{Coordinator: c, Batch: -1}, "batch must be an integer from 1"},
		{lease.FederatedConfig{Coordinator: c, RegionalBatch: -1}, "regionalBatch must be an integer from 1"},
		{lease.FederatedConfig{Coordinator: c, LowWater: -1}, "lowWater must not be negative"},
		{lease.FederatedConfig{Coordinator: c, MaxKeys: -1}, "maxKeys must not be negative"},
		{lease.FederatedConfig{Coordinator: c, ProbeInterval: time.Microsecond}, "probeInterval must be at least 1ms"},
		{lease.FederatedConfig{Coordinator: c, OnOutage: "open"}, "onOutage must be fail-closed or regional-only"},
		{lease.FederatedConfig{Coordinator: c, OnOutage: lease.RegionalOnly}, "onOutage must not be regional-only without a regional store"},
	} {
		if _, err := lease.NewFederated(bad.config); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v, want %q", err, bad.want)
		}
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	got, err := lease.Partition(10, []string{"us", "eu", "ap"})
	if err != nil || got["us"] != 4 || got["eu"] != 3 || got["ap"] != 3 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []struct {
		limit   int64
		regions []string
		want    string
	}{
		{1, nil, "regions must not be empty"},
		{1, []string{"a", "b"}, "limit must be an integer from 2"},
		{5, []string{"a", "b", "a"}, "regions[2] must be unique"},
	} {
		if _, err := lease.Partition(bad.limit, bad.regions); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%v, want %q", err, bad.want)
		}
	}
}

// A request that cannot be served takes nothing from others.
func TestDearRequestsDrainNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.coordinator(t, 1000)
	a := w.federated(t, lease.FederatedConfig{Coordinator: c, Batch: 400})
	b := w.federated(t, lease.FederatedConfig{Coordinator: c, Batch: 1})
	check(t, a, "k", 400)
	for _, cost := range []float64{1001, 700} {
		if d := check(t, a, "k", cost); d.Allowed || d.Remaining != 600 {
			t.Errorf("%v of 600: %+v", cost, d)
		}
	}
	if d := check(t, b, "k", 600); !d.Allowed {
		t.Errorf("what nobody has used: %+v", d)
	}
}

// An escrow says whose units it holds.
func TestCoordinatorsDoNotShareEscrows(t *testing.T) {
	t.Parallel()
	w, region := newWorld(t), newWorld(t)
	admitted := 0
	for _, limit := range []float64{1000, 10} {
		c, err := lease.NewCoordinator(lease.CoordinatorConfig{
			Strategy: second(limit), Store: w.store, Prefix: strconv.Itoa(int(limit)),
		})
		if err != nil {
			t.Fatal(err)
		}
		f := w.federated(t, lease.FederatedConfig{Coordinator: c, Batch: 10, RegionalBatch: 500, Regional: region.store})
		admitted = 0
		for range 100 {
			if check(t, f, "k", 1).Allowed {
				admitted++
			}
		}
	}
	if admitted != 10 {
		t.Errorf("a budget of 10 admitted %d", admitted)
	}
}

package lease_test

import (
	"errors"
	"math/rand/v2"
	"slices"
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

// The figures are those of the specification's §1: four nodes, batches of 10, a limit of 100.
func TestWhatOneWindowAdmits(t *testing.T) {
	t.Parallel()
	for coupled, want := range map[bool]int{false: 136, true: 100} {
		w := newWorld(t)
		var nodes []*lease.TwoTier
		for range 4 {
			nodes = append(nodes, w.twoTier(t, lease.TwoTierConfig{Strategy: second(100), Batch: 10, WindowCoupled: coupled}))
		}
		for _, node := range nodes {
			check(t, node, "k", 1)
		}
		w.clock.Set(1000)
		admitted := 0
		for i := range 1000 {
			if check(t, nodes[i%4], "k", 1).Allowed {
				admitted++
			}
		}
		if admitted != want {
			t.Errorf("windowCoupled %v: admitted %d, want %d", coupled, admitted, want)
		}
	}
}

// A lease takes what is left, so nothing strands at the end of a window.
func TestNothingStrands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.twoTier(t, lease.TwoTierConfig{Strategy: second(25), Batch: 10, WindowCoupled: true})
	admitted := 0
	var last throttlekit.Decision
	for range 30 {
		if last = check(t, a, "k", 1); last.Allowed {
			admitted++
		}
	}
	if admitted != 25 || w.store.applied.Load() != 3+5 {
		t.Errorf("admitted %d of 25 in %d round trips, want 3 and one for each of 5 denials", admitted, w.store.applied.Load())
	}
	if want := (throttlekit.Decision{Limit: 25, ResetAtMillis: 1000, RetryAfterMillis: 1000}); last != want {
		t.Errorf("denied with %+v, want %+v", last, want)
	}
	// What is left is not taken if the request does not fit into it.
	w.clock.Set(1000)
	check(t, a, "k", 23)
	if d := check(t, a, "k", 5); d.Allowed || d.Remaining != 2 {
		t.Errorf("5 of 2 units: %+v", d)
	}
	if d := check(t, a, "k", 2); !d.Allowed {
		t.Errorf("2 of 2 units: %+v", d)
	}
}

// The coupled two-tier limiter is a spender that reserves what its store lends. The steps
// keep away from the last milliseconds of a window, which the limiter gives up for drift.
func TestTwoTierIsASpender(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		w, other := newWorld(t), newWorld(t)
		two := w.twoTier(t, lease.TwoTierConfig{Strategy: second(20), Batch: 5, WindowCoupled: true})
		rule, err := second(20).Rule()
		if err != nil {
			t.Fatal(err)
		}
		s := spender(t, lease.SpenderConfig{Limit: 20, TTLMillis: 1000})
		random := rand.New(rand.NewPCG(seed, 7))
		now := int64(0)
		for step := range 80 {
			if now += random.Int64N(150); now%1000 > 990 {
				now += 20
			}
			cost := float64(1 + random.IntN(3))
			w.clock.Set(now)
			other.clock.Set(now)
			got := check(t, two, "k", cost)
			want, err := s.SpendOrRefresh(now, cost, func(wants float64) (float64, int64, *throttlekit.Decision, error) {
				least := wants - s.Credits(now)
				d, err := other.store.Apply(t.Context(), "k", throttlekit.UpTo(rule, least), max(5, least))
				if !d.Allowed {
					return 0, 0, &d, err
				}
				return float64(d.Remaining), d.ResetAtMillis, nil, err
			})
			if err != nil || got != want {
				t.Fatalf("seed %d step %d at %d, cost %v: %+v, a spender says %+v, %v", seed, step, now, cost, got, want, err)
			}
		}
	}
}

func TestIdleUnitsComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(1)})
		if err != nil {
			t.Fatal(err)
		}
		config := lease.TwoTierConfig{
			Strategy: throttlekit.FixedWindow{Limit: 10, Window: time.Hour}, Store: store, Batch: 10, WindowCoupled: true,
			ReturnIdleAfter: time.Minute,
		}
		idle, err := lease.NewTwoTier(config)
		if err != nil {
			t.Fatal(err)
		}
		config.Batch = 1
		busy, err := lease.NewTwoTier(config)
		if err != nil {
			t.Fatal(err)
		}
		check(t, idle, "k", 1)
		if d := check(t, busy, "k", 1); d.Allowed {
			t.Errorf("the idle one holds everything: %+v", d)
		}
		wait(t, 3*time.Minute)
		admitted := 0
		for range 12 {
			if check(t, busy, "k", 1).Allowed {
				admitted++
			}
		}
		if admitted != 9 {
			t.Errorf("%d of 9 units came back", admitted)
		}
		check(t, busy, "k", 1)
		for _, l := range []*lease.TwoTier{idle, busy} {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseGivesUnitsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.twoTier(t, lease.TwoTierConfig{Strategy: second(100), Batch: 10, WindowCoupled: true})
	for i := range 5 {
		check(t, a, strconv.Itoa(i), 1)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	rule, err := second(100).Rule()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		rec, now, err := w.store.Load(t.Context(), strconv.Itoa(i), rule)
		if err != nil || rule.Peek(rec, now).Remaining != 99 {
			t.Errorf("key %d: %+v, %v, want the 1 that was spent", i, rec, err)
		}
	}
	if _, err := a.Check(t.Context(), "new"); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("a new key after Close: %v", err)
	}
	if _, err := a.Check(t.Context(), "1"); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("an old key after Close: %v", err)
	}
}

func TestCachedDenials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.twoTier(t, lease.TwoTierConfig{Strategy: second(3), Mode: lease.CachedDeny, MaxKeys: 2})
	check(t, l, "k", 2)
	w.clock.Set(400)
	first := check(t, l, "k", 2)
	calls := w.store.applied.Load()
	w.clock.Set(500)
	if d := check(t, l, "k", 3); d.Allowed || d.RetryAfterMillis != 500 || d.Remaining != 0 || d.ResetAtMillis != first.ResetAtMillis {
		t.Errorf("a dearer request: %+v after %+v", d, first)
	}
	if got := w.store.applied.Load(); got != calls {
		t.Errorf("%d round trips for what was known", got-calls)
	}
	if d := check(t, l, "k", 1); !d.Allowed {
		t.Errorf("a cheaper request: %+v", d)
	}
	w.clock.Set(1000)
	if d := check(t, l, "k", 3); !d.Allowed {
		t.Errorf("in the next window: %+v", d)
	}
	check(t, l, "k", 1)
	if err := l.Reset(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if d := check(t, l, "k", 1); !d.Allowed {
		t.Errorf("after Reset: %+v", d)
	}
	for i := range 100 { // the bound holds, and nothing breaks
		check(t, l, strconv.Itoa(i), 3)
		check(t, l, strconv.Itoa(i), 1)
	}
}

// Whatever N nodes do with time-coupled leases, uses keep to the envelope of the strategy:
// their clocks differ by anything, answers take any time, and batches are used at any
// moment until they expire.
func TestTimeCoupledNodesKeepToTheEnvelope(t *testing.T) {
	t.Parallel()
	bucket := throttlekit.TokenBucket{Capacity: 60, RefillPerSec: 100}
	var leased, admitted int64
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 8))
		w := newWorld(t)
		w.clock.Set(1_000_000)
		var nodes []*lease.TwoTier
		for range 1 + random.IntN(8) {
			offset := time.Duration(random.Int64N(int64(20*time.Second))) - 10*time.Second
			nodes = append(nodes, w.twoTier(t, lease.TwoTierConfig{
				Strategy: bucket, Batch: 1 + random.Int64N(30), LowWater: random.Int64N(3), ExpireAfter: 300 * time.Millisecond,
				Elapsed: func() time.Duration { return w.elapsed() + offset },
			}))
		}
		level, last := 0.0, w.clock.NowMillis()
		for range 3000 {
			if random.IntN(3) == 0 {
				w.clock.Advance(time.Duration(random.Int64N(40)) * time.Millisecond)
			}
			now := w.clock.NowMillis()
			level, last = max(0, level-float64(now-last)*0.1), now
			if check(t, nodes[random.IntN(len(nodes))], "k", 1).Allowed {
				level++
				admitted++
			}
			if level > bucket.Capacity {
				t.Fatalf("seed %d at %d: %v units at once", seed, now, level)
			}
		}
		leased += w.store.applied.Load()
	}
	t.Logf("%d admitted in %d round trips", admitted, leased)
}

func TestTwoTierUnderTheRaceDetector(t *testing.T) {
	t.Parallel()
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(1)})
	if err != nil {
		t.Fatal(err)
	}
	const limit = 5000
	var admitted [10]atomic.Int64
	var work sync.WaitGroup
	for range 4 {
		l, err := lease.NewTwoTier(lease.TwoTierConfig{
			Strategy: throttlekit.FixedWindow{Limit: limit, Window: 24 * time.Hour}, Store: store, Batch: 64, LowWater: 8,
			WindowCoupled: true, ReturnIdleAfter: time.Millisecond, MaxKeys: 8 * 32,
		})
		if err != nil {
			t.Fatal(err)
		}
		var node sync.WaitGroup
		for g := range 8 {
			node.Go(func() {
				random := rand.New(rand.NewPCG(uint64(g), 3))
				for range 3000 {
					key := random.IntN(10)
					d, err := l.Check(t.Context(), strconv.Itoa(key))
					if err != nil {
						t.Error(err)
						return
					}
					if d.Allowed {
						admitted[key].Add(1)
					}
				}
			})
		}
		work.Go(func() {
			node.Wait()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	rule, err := throttlekit.FixedWindow{Limit: limit, Window: 24 * time.Hour}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	for key := range admitted {
		rec, now, err := store.Load(t.Context(), strconv.Itoa(key), rule)
		if err != nil {
			t.Fatal(err)
		}
		// Everything that was not spent came back, so the record tells what was.
		if charged := limit - rule.Peek(rec, now).Remaining; charged != admitted[key].Load() {
			t.Errorf("key %d: %d admitted, %d charged", key, admitted[key].Load(), charged)
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestEvictedKeysLoseUnitsAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.twoTier(t, lease.TwoTierConfig{Strategy: second(10), Batch: 5, WindowCoupled: true, MaxKeys: 32})
	for range 3 {
		for i := range 2000 {
			check(t, l, strconv.Itoa(i), 1)
		}
	}
	admitted := 0
	for range 20 {
		if check(t, l, "7", 1).Allowed {
			admitted++
		}
	}
	if admitted > 7 {
		t.Errorf("%d more admitted of 10, after 3", admitted)
	}
}

func TestCheckManyKeepsTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, mode := range lease.Modes() {
		l := w.twoTier(t, lease.TwoTierConfig{Strategy: second(3), Prefix: string(mode), Mode: mode, Batch: 2})
		check(t, l, "full", 3)
		keys := []string{"a", "full", "b", "full", "c"}
		d, err := l.CheckMany(t.Context(), keys, 1)
		if err != nil {
			t.Fatal(err)
		}
		var allowed []bool
		for _, d := range d {
			allowed = append(allowed, d.Allowed)
		}
		if !slices.Equal(allowed, []bool{true, false, true, false, true}) {
			t.Errorf("%s: %v", mode, allowed)
		}
		if _, err := l.CheckMany(t.Context(), keys, -1); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%s with a wrong cost: %v", mode, err)
		}
	}
}

func TestStoreErrorsPassThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, mode := range lease.Modes() {
		l := w.twoTier(t, lease.TwoTierConfig{Strategy: second(10), Prefix: string(mode), Mode: mode, Batch: 2})
		w.store.fail(throttlekit.ErrStoreUnavailable, false)
		if _, err := l.Check(t.Context(), "k"); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("%s: %v", mode, err)
		}
		w.store.fail(nil, false)
		if d := check(t, l, "k", 1); !d.Allowed {
			t.Errorf("%s afterwards: %+v", mode, d)
		}
		w.store.fail(throttlekit.ErrStoreUnavailable, true)
		if mode == lease.Leased {
			if d := check(t, l, "k", 1); !d.Allowed {
				t.Errorf("what is held outlives an outage: %+v", d)
			}
		}
		w.store.fail(nil, false)
	}
}

func TestTwoTierRefusesBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gcra := throttlekit.GCRA{Limit: 10, Period: time.Second}
	for _, c := range []struct {
		config lease.TwoTierConfig
		want   string
	}{
		{lease.TwoTierConfig{Strategy: gcra, Batch: 1}, "store must be given"},
		{lease.TwoTierConfig{Store: w.store, Batch: 1}, "strategy must be given"},
		{lease.TwoTierConfig{Store: w.store, Strategy: throttlekit.GCRA{}, Batch: 1}, "limit must be"},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra}, "lease.batch must be given, or lease.adaptive"},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Batch: -1}, "lease.batch must be an integer from 1"},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Batch: 1, LowWater: -1}, "lowWater must not be negative"},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Batch: 1, ReturnIdleAfter: -1}, "returnIdleAfter must not be negative"},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Batch: 1, MaxKeys: -1}, "maxKeys must not be negative"},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Mode: "lax"}, `mode must be one of leased, cached-deny and strict, got "lax"`},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Batch: 1, WindowCoupled: true}, "windowCoupled must be false for strategy gcra"},
		{
			lease.TwoTierConfig{Store: w.store, Strategy: throttlekit.SlidingWindow{Limit: 10, Window: time.Second}, Batch: 1, WindowCoupled: true},
			"windowCoupled must be false for strategy slidingWindow",
		},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Batch: 1, ExpireAfter: time.Second}, "expireAfter must be at most 900ms"},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Batch: 1, ExpireAfter: -1}, "expireAfter must be a positive duration"},
		{lease.TwoTierConfig{Store: w.store, Strategy: second(10), Batch: 1, ExpireAfter: time.Second}, "expireAfter must not be given for strategy fixedWindow"},
		{
			lease.TwoTierConfig{Store: w.store, Strategy: second(10), Batch: 1, ExpireAfter: time.Second, WindowCoupled: true},
			"expireAfter must not be given together with windowCoupled",
		},
		{lease.TwoTierConfig{Store: w.store, Strategy: gcra, Sizer: func() lease.Sizer { return nil }}, "lease.adaptive must make a sizer"},
	} {
		if _, err := lease.NewTwoTier(c.config); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

package fair

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

func TestFederatedPins(t *testing.T) {
	t.Parallel()
	t.Run("limit 12, two regions", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 12})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p})
		got := drain(t, ask{eu, "a", 1}, ask{us, "b", 1})
		if !near(got["a"], got["b"], 2) || got["a"]+got["b"] < 11 || got["a"]+got["b"] > 12 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("limit 12, weights 3:1", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 12})
		of := weights(map[string]float64{"big": 3})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p, WeightOf: of})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p, WeightOf: of})
		if got := drain(t, ask{eu, "big", 1}, ask{us, "small", 1}); got["big"] < 2*got["small"] || got["big"]+got["small"] > 12 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("separate pools", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 12})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p, Key: "one"})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p, Key: "two"})
		if got := drain(t, ask{eu, "a", 1}, ask{us, "b", 1}); got["a"] != 12 || got["b"] != 12 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("one region alone uses all", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 12})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p})
		got := drain(t, ask{eu, "a", 1}, ask{eu, "b", 1}, ask{eu, "c", 1})
		if got["a"]+got["b"]+got["c"] != 12 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("limit 400, regions 3:1", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 400})
		of := weights(map[string]float64{"a": 3})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p, WeightOf: of})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p, WeightOf: of})
		if got := drain(t, ask{eu, "a", 1}, ask{us, "b", 1}); !near(got["a"], 300, 2) || !near(got["b"], 100, 2) {
			t.Errorf("got %v, want 300 and 100", got)
		}
	})
	t.Run("a(2), b(1) | c(1), limit 300", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 300})
		of := weights(map[string]float64{"a": 2})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p, WeightOf: of})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p, WeightOf: of})
		got := drain(t, ask{eu, "a", 1}, ask{eu, "b", 1}, ask{us, "c", 1})
		if !near(got["a"], 150, 4) || !near(got["b"], 75, 4) || !near(got["c"], 75, 4) || got["a"]+got["b"]+got["c"] != 300 {
			t.Errorf("got %v, want 150, 75 and 75", got)
		}
	})
	t.Run("costs 1, 2, 5 and 10 all use limit 200", func(t *testing.T) {
		t.Parallel()
		for _, cost := range []float64{1, 2, 5, 10} {
			l, p := newLab(t), newPool(t, PoolConfig{Limit: 200})
			eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p})
			sum := 0.0
			for _, used := range drain(t, ask{eu, "a", cost}, ask{eu, "b", cost}, ask{eu, "c", cost}, ask{eu, "d", cost}) {
				sum += used
			}
			if sum != 200 {
				t.Errorf("cost %v: %v of 200 were used", cost, sum)
			}
		}
	})
	t.Run("a paused region keeps its half", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 100})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p})
		check(t, us, "b", 1)
		if got := drain(t, ask{eu, "a", 1}); got["a"] != 50 {
			t.Errorf("the busy region got %v, want 50", got)
		}
		if got := drain(t, ask{us, "b", 1}); got["b"] != 49 {
			t.Errorf("the paused region got %v more, want 49", got)
		}
	})
	t.Run("a region that is not there leaves its part", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 100})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p})
		check(t, us, "b", 1)
		l.clock.Advance(time.Second)
		if got := drain(t, ask{eu, "a", 1}); got["a"] != 100 {
			t.Errorf("the only region got %v, want 100", got)
		}
	})
	t.Run("a flood of tenants", func(t *testing.T) {
		t.Parallel()
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 50})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p, MaxTenants: 1})
		used := 0
		for i := range 300 {
			if check(t, eu, strconv.Itoa(i), 1).Allowed {
				used++
			}
		}
		if used != 50 {
			t.Errorf("admitted %d, want 50", used)
		}
	})
}

// TestFederatedTheoremOne checks that all regions together stay within the limit, whatever
// the costs and weights, with several escrows in a region, lost replies, and restarts.
func TestFederatedTheoremOne(t *testing.T) {
	t.Parallel()
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 7))
		l := newLab(t)
		limit := float64(1 + r.IntN(150))
		p := newPool(t, PoolConfig{Limit: limit})
		unreliable := &flaky{Store: l.store, rand: r}
		config := func() FederatedConfig {
			return FederatedConfig{
				Region: strconv.Itoa(r.IntN(3)), Pool: p, Store: unreliable, MaxTenants: 1 + r.IntN(4),
				WeightOf: weights(map[string]float64{"0": 2, "1": 0.5, "2": 7}),
			}
		}
		escrows := make([]*FederatedEscrow, 5)
		for i := range escrows {
			escrows[i] = l.federated(t, config())
		}
		used := map[int64]float64{}
		for range 800 {
			l.clock.Advance(time.Duration(r.IntN(6)) * time.Millisecond)
			i := r.IntN(len(escrows))
			switch r.IntN(100) {
			case 0: // a process that dies
				escrows[i] = l.federated(t, config())
			case 1: // a process that stops
				if err := escrows[i].Close(); err != nil {
					t.Fatal(err)
				}
				escrows[i] = l.federated(t, config())
			case 2:
				escrows[i].Reset(strconv.Itoa(r.IntN(4)))
			}
			cost := []float64{1, 2, 0.5, 9}[r.IntN(4)]
			d, err := escrows[i].CheckN(t.Context(), strconv.Itoa(r.IntN(4)), cost)
			if err != nil && !errors.Is(err, throttlekit.ErrStoreUnavailable) {
				t.Fatal(err)
			}
			if d.Allowed {
				used[d.ResetAtMillis] += cost
			}
		}
		for window, sum := range used {
			if sum > limit {
				t.Errorf("seed %d: window %d admitted %v of %v", seed, window, sum, limit)
			}
		}
	}
}

// flaky loses some calls and some replies.
type flaky struct {
	throttlekit.Store

	rand *rand.Rand
}

// flaky's random numbers need no lock: a test that makes one check at a time waits for each call.
func (f *flaky) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	if f.rand.IntN(20) == 0 {
		return throttlekit.Decision{}, throttlekit.ErrStoreUnavailable
	}
	d, err := f.Store.Apply(ctx, key, t, cost)
	if f.rand.IntN(20) == 0 {
		return throttlekit.Decision{}, throttlekit.ErrStoreUnavailable
	}
	return d, err
}

// TestFederatedTheoremTwo checks that regions which weigh what their busy tenants weigh
// come to flat weighted max-min, up to whole units.
func TestFederatedTheoremTwo(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 8))
		l := newLab(t)
		regions := 2 + r.IntN(2)
		table := map[string]float64{}
		limit := 200 + float64(r.IntN(400))
		p := newPool(t, PoolConfig{Limit: limit})
		var asks []ask
		var flat []float64
		for region := range regions {
			f := l.federated(t, FederatedConfig{
				Region: strconv.Itoa(region), Pool: p, WeightOf: func(tenant string) float64 { return table[tenant] },
			})
			for i := range 1 + r.IntN(3) {
				tenant := fmt.Sprint(region, "-", i)
				table[tenant] = float64(1 + r.IntN(4))
				asks, flat = append(asks, ask{f, tenant, 1}), append(flat, table[tenant])
			}
		}
		demands := make([]float64, len(flat))
		for i := range demands {
			demands[i] = limit
		}
		ideal, err := MaxMin(demands, flat, limit)
		if err != nil {
			t.Fatal(err)
		}
		got := drain(t, asks...)
		sum := 0.0
		for i, a := range asks {
			sum += got[a.tenant]
			// What a region was granted while others were not there yet is small: a round is one unit each.
			if !near(got[a.tenant], float64(ideal[i]), 2*float64(len(asks))+2) {
				t.Errorf("seed %d, limit %v, weights %v: got %v, want about %v", seed, limit, table, got, ideal)
			}
		}
		if sum > limit || sum < limit-float64(regions) {
			t.Errorf("seed %d: %v of %v were used", seed, sum, limit)
		}
	}
}

// TestFederatedSplitsTheWeightOfSpanningTenants has one tenant in three regions, beside one
// tenant in each. With its weight split it gets its one share; with the whole weight in each
// region it is served far more, which is why the weight must be split.
func TestFederatedSplitsTheWeightOfSpanningTenants(t *testing.T) {
	t.Parallel()
	serve := func(weight float64) float64 {
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 400})
		var asks []ask
		for region := range 3 {
			f := l.federated(t, FederatedConfig{
				Region: strconv.Itoa(region), Pool: p, WeightOf: weights(map[string]float64{"span": weight}),
			})
			asks = append(asks, ask{f, "span", 1}, ask{f, strconv.Itoa(region), 1})
		}
		return drain(t, asks...)["span"]
	}
	split, replicated := serve(1.0/3), serve(1)
	if !near(split, 100, 3*3) { // T-FED-3: span·(2q + 1), here with single units
		t.Errorf("with its weight split it got %v, want about 100", split)
	}
	if replicated < 1.4*split {
		t.Errorf("with its weight in each region it got %v, with it split %v", replicated, split)
	}
}

// TestFederatedNeedsTheWeightsOfItsTenants has two tenants in one region and one in the
// other. With regions of one weight, whatever their tenants, the lonely one gets twice as much.
func TestFederatedNeedsTheWeightsOfItsTenants(t *testing.T) {
	t.Parallel()
	serve := func(of WeightOf) map[string]float64 {
		l, p := newLab(t), newPool(t, PoolConfig{Limit: 300})
		eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p, WeightOf: of})
		us := l.federated(t, FederatedConfig{Region: "us", Pool: p, WeightOf: of})
		return drain(t, ask{eu, "a", 1}, ask{eu, "b", 1}, ask{us, "c", 1})
	}
	if got := serve(nil); !near(got["a"], 100, 4) || !near(got["c"], 100, 4) {
		t.Errorf("got %v, want 100 each", got)
	}
	fixed := serve(weights(map[string]float64{"a": 0.5, "b": 0.5}))
	if !near(fixed["a"], 75, 4) || !near(fixed["c"], 150, 4) {
		t.Errorf("with regions of one weight got %v, want 75, 75 and 150", fixed)
	}
}

// TestPoolPins runs the specification's sequence of grants, and one in which a claim is
// multiplied before it is divided.
func TestPoolPins(t *testing.T) {
	t.Parallel()
	type step struct {
		region       string
		weight, want float64
		total, added int64
	}
	for _, tt := range []struct {
		limit float64
		steps []step
	}{
		{100, []step{
			{"us", 3, 10, 10, 10},
			{"eu", 1, 40, 25, 25},
			{"us", 3, 80, 75, 65},
			{"ap", 2, 30, 0, 0},
			{"eu", 1, 5, 25, 0},
			{"us", 3, 200, 75, 0},
			{"ap", 2, 60, 0, 0},
			{"eu", 1, 100, 25, 0},
			{"us", 3, 100, 75, 0},
			{"ap", 2, 100, 0, 0},
		}},
		{99, []step{{"us", 6, 1, 1, 1}, {"eu", 5, 99, 45, 45}, {"us", 6, 99, 54, 53}}},
	} {
		p := newPool(t, PoolConfig{Limit: tt.limit})
		var rec throttlekit.Record
		for i, s := range tt.steps {
			move, err := p.Grant(s.region, s.weight)
			if err != nil {
				t.Fatal(err)
			}
			next, d, ttl := move.Apply(rec, base+1, s.want)
			want := throttlekit.Decision{
				Allowed: true, Limit: s.total, Remaining: s.added, ResetAtMillis: base + 1000, RetryAfterMillis: 999,
			}
			if d != want || ttl != 999 {
				t.Errorf("limit %v, step %d: got %+v, ttl %d, want %+v", tt.limit, i, d, ttl, want)
			}
			rec = next
		}
	}
}

// TestPoolGrants holds random grants and returns to what the pool promises: grants sum to
// the limit at most, and what a region has grows unless it gives back.
func TestPoolGrants(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		limit := float64(1 + r.IntN(1000))
		p := newPool(t, PoolConfig{Limit: limit})
		totals := map[string]int64{}
		var rec throttlekit.Record
		window := int64(0)
		now := int64(base)
		for range 200 {
			now += r.Int64N(30) - r.Int64N(10)
			region := strconv.Itoa(r.IntN(5))
			var move throttlekit.Transition
			var err error
			if back := r.IntN(10) == 0 && window > 0; back {
				move, err = p.GiveBack(region, window)
			} else {
				move, err = p.Grant(region, []float64{1, 3, 0.1, 1e9}[r.IntN(4)])
			}
			if err != nil {
				t.Fatal(err)
			}
			want := float64(r.IntN(int(limit)+50)) + 0.5
			next, d, ttl := move.Apply(rec, now, want)
			again, same, _ := move.Apply(rec, now, want)
			if same != d || fmt.Sprint(again) != fmt.Sprint(next) {
				t.Fatalf("seed %d: the same step came to %+v and %+v", seed, d, same)
			}
			if !d.Allowed {
				continue
			}
			if d.ResetAtMillis < window || ttl != max(1, d.ResetAtMillis-now) || d.RetryAfterMillis != ttl {
				t.Fatalf("seed %d: got %+v, ttl %d at %d after window %d", seed, d, ttl, now, window)
			}
			if d.ResetAtMillis > window {
				window = d.ResetAtMillis
				clear(totals)
			}
			if grew := d.Limit - totals[region]; max(0, grew) != d.Remaining || float64(d.Limit) > max(float64(totals[region]), math.Ceil(want)) {
				t.Fatalf("seed %d: wanted %v, got %+v after %v", seed, want, d, totals)
			}
			totals[region] = d.Limit
			sum := int64(0)
			for _, total := range totals {
				sum += total
			}
			if float64(sum) > limit {
				t.Fatalf("seed %d: %v sum to more than %v", seed, totals, limit)
			}
			rec = next
		}
	}
}

// TestFederatedFollowsTheStoresWindow checks that a process whose own clock says that the
// window is over does not take the store's old total for new budget.
func TestFederatedFollowsTheStoresWindow(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ahead := time.Duration(0)
	config := FederatedConfig{
		Region: "eu", Pool: newPool(t, PoolConfig{Limit: 10}),
		Monotonic: func() time.Duration { return l.monotonic() + ahead },
	}
	f := l.federated(t, config)
	if got := drain(t, ask{f, "a", 1}); got["a"] != 10 {
		t.Fatalf("got %v, want 10", got)
	}
	ahead = time.Hour
	if d := check(t, f, "a", 1); d.Allowed || d.ResetAtMillis != base+1000 {
		t.Errorf("got %+v, want a denial until the store's window ends", d)
	}
	l.clock.Advance(time.Second)
	if d := check(t, f, "a", 1); !d.Allowed || d.ResetAtMillis != base+2000 {
		t.Errorf("got %+v, want an allow in the store's next window", d)
	}
	again := l.federated(t, config)
	check(t, again, "a", 5) // a region that starts again does not spend what it had been granted
	if got := drain(t, ask{f, "a", 1}, ask{again, "a", 1}); got["a"] != 4 {
		t.Errorf("after 1 and 5 units got %v more, want 4", got)
	}
}

// TestFederatedRefusesAWindowThatWentBack checks that nothing is credited for a store that
// has lost its record and its clock.
func TestFederatedRefusesAWindowThatWentBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	f := l.federated(t, FederatedConfig{Region: "eu", Pool: newPool(t, PoolConfig{Limit: 10}), Key: "k"})
	check(t, f, "a", 10)
	if err := l.store.Reset(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	l.clock.Set(base - 5000)
	f.tank.monotonic = func() time.Duration { return time.Hour }
	if _, err := f.Check(t.Context(), "a"); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
}

func TestFederatedGivesBack(t *testing.T) {
	t.Parallel()
	l, p := newLab(t), newPool(t, PoolConfig{Limit: 100})
	eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p})
	us := l.federated(t, FederatedConfig{Region: "us", Pool: p})
	check(t, us, "b", 1)
	check(t, eu, "x", 1)
	check(t, eu, "y", 1)
	check(t, eu, "y", 30)
	if d := check(t, eu, "y", 10); d.Allowed { // grants cover x's claim too, but y has had its share
		t.Fatalf("got %+v", d)
	}
	used := eu.Stats().TotalUsed
	if eu.Stats().EffectiveLimit <= used {
		t.Fatalf("nothing is left to give back: %+v", eu.Stats())
	}
	if err := eu.Close(); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, ask{us, "b", 1}); got["b"] != 100-used-1 {
		t.Errorf("got %v, want all but the %v that were used", got, used+1)
	}
}

// TestFederatedGivesItsWeightBack even if all that was granted has been used, or nothing was granted.
func TestFederatedGivesItsWeightBack(t *testing.T) {
	t.Parallel()
	l, p := newLab(t), newPool(t, PoolConfig{Limit: 100})
	eu := l.federated(t, FederatedConfig{Region: "eu", Pool: p})
	us := l.federated(t, FederatedConfig{Region: "us", Pool: p})
	ap := l.federated(t, FederatedConfig{Region: "ap", Pool: p})
	check(t, eu, "a", 30)
	if s := eu.Stats(); s.Pool != 0 {
		t.Fatalf("got %+v, want nothing left", s)
	}
	if d := check(t, us, "b", 60); d.Allowed {
		t.Fatalf("got %+v, want a denial within 50", d)
	}
	if d := check(t, ap, "c", 90); d.Allowed {
		t.Fatalf("got %+v, want a denial", d)
	}
	for _, f := range []*FederatedEscrow{eu, ap} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := drain(t, ask{us, "b", 1}); got["b"] != 70 {
		t.Errorf("got %v, want all but the 30 that were used", got)
	}
}

func TestPoolIsBounded(t *testing.T) {
	t.Parallel()
	l, p := newLab(t), newPool(t, PoolConfig{Limit: 100, MaxRegions: 2})
	for i := range 2 {
		check(t, l.federated(t, FederatedConfig{Region: strconv.Itoa(i), Pool: p}), "a", 1)
	}
	third := l.federated(t, FederatedConfig{Region: "third", Pool: p})
	if _, err := third.Check(t.Context(), "a"); !errors.Is(err, ErrPoolFull) || !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrPoolFull", err)
	}
	l.clock.Advance(time.Second)
	if d := check(t, third, "a", 1); !d.Allowed {
		t.Errorf("got %+v in a new window", d)
	}
}

func TestFederatedRefusesWrongValues(t *testing.T) {
	t.Parallel()
	l, p := newLab(t), newPool(t, PoolConfig{Limit: 1})
	good := FederatedConfig{Region: "eu", Pool: p, Store: l.store, Key: "k"}
	for field, change := range map[string]func(c *FederatedConfig){
		"region":     func(c *FederatedConfig) { c.Region = "" },
		"pool":       func(c *FederatedConfig) { c.Pool = nil },
		"store":      func(c *FederatedConfig) { c.Store = nil },
		"key":        func(c *FederatedConfig) { c.Key = "" },
		"timeout":    func(c *FederatedConfig) { c.Timeout = -1 },
		"maxTenants": func(c *FederatedConfig) { c.MaxTenants = -1 },
	} {
		config := good
		change(&config)
		_, err := NewFederatedEscrow(config)
		var invalid *throttlekit.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("got %v, want an error about %s", err, field)
		}
	}
	for _, region := range []string{"", "\xff", string(make([]byte, 257))} {
		if _, err := p.Grant(region, 1); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("region %q: got %v", region, err)
		}
		if _, err := p.GiveBack(region, 1); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("region %q: got %v", region, err)
		}
	}
	for _, weight := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if _, err := p.Grant("eu", weight); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("weight %v: got %v", weight, err)
		}
	}
	if _, err := p.GiveBack("eu", 0); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("no window: got %v", err)
	}
	for field, config := range map[string]PoolConfig{
		"limit": {Limit: math.NaN(), Window: 1}, "window": {Limit: 1}, "maxRegions": {Limit: 1, Window: 1, MaxRegions: 5000},
	} {
		_, err := NewRegionPool(config)
		var invalid *throttlekit.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("got %v, want an error about %s", err, field)
		}
	}
}

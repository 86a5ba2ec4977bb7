package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/concurrency"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// The admission over rate and cost is one script. It must be what asking one after the other comes to,
// but for this: whichever denies, nothing is charged.

func newGuard(tb testing.TB, slots int) *concurrency.Guard {
	tb.Helper()
	guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: slots, MaxLimit: slots})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if n := guard.Stats().InFlight; n != 0 {
			tb.Errorf("%d slots are still held", n)
		}
	})
	return guard
}

func newAdmitter(tb testing.TB, config admission.Config) *admission.Admitter {
	tb.Helper()
	a, err := admission.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// TestAdmissionAgreesWithSequential runs random timelines through Redis and through the rules one after
// the other, backward clocks included. Every field of every axis must be equal.
func TestAdmissionAgreesWithSequential(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	t.Cleanup(flushAllTheTime(t, server))
	var steps, allowed, byRate, byCost atomic.Int64
	inParallel(t, max(40, checks()/timelineLength/2), func(n int) error {
		r := rand.New(rand.NewPCG(*seed<<8|227, uint64(n)))
		clock := throttlekit.NewManualClock(base)
		store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
		var rate throttlekit.GCRA
		var cost throttlekit.TokenBucket
		var a *admission.Admitter
		for a == nil { // some of what is picked is refused
			rate = throttlekit.GCRA{Limit: float64(1 + r.IntN(20)), Period: someWidth(r), Burst: float64(1 + r.IntN(20))}
			cost = throttlekit.TokenBucket{Capacity: someLimit(r), RefillPerSec: oneOf(r, 1, 3.5, 100, r.Float64()*50+0.01)}
			a, _ = admission.New(admission.Config{
				Store: store,
				Rate:  &admission.Limit{Strategy: rate, Prefix: "rate"}, Cost: &admission.Limit{Strategy: cost, Prefix: "cost"},
			})
		}
		rateRule, costRule := ruleOf(t, rate), ruleOf(t, cost)
		var rateRec, costRec throttlekit.Record
		history := fmt.Sprintf("%+v, %+v", rate, cost)
		now := int64(base)
		for range timelineLength {
			clock.Set(now)
			charge := min(5000, someCost(r, cost.Capacity, false))
			history += fmt.Sprintf("\n%d cost %v", now, charge)
			got, err := a.Admit(t.Context(), admission.Request{Key: "k", Cost: charge})
			if err != nil {
				return fmt.Errorf("%s: %w", history, err)
			}
			nextRate, want, _ := rateRule.Apply(rateRec, now, 1)
			binding, each := admission.Rate, []throttlekit.Decision{want}
			if want.Allowed {
				nextCost, d, _ := costRule.Apply(costRec, now, charge)
				want, each = admission.Combine(want, d), append(each, d)
				binding = admission.Cost
				if d.Allowed {
					rateRec, costRec, binding = nextRate, nextCost, ""
				}
			}
			if got.Decision != want || got.Binding != binding {
				return fmt.Errorf("%s\ngot %+v by %q, want %+v by %q", history, got.Decision, got.Binding, want, binding)
			}
			for i, axis := range []admission.Axis{admission.Rate, admission.Cost} {
				d, asked := got.Of(axis)
				if asked != (i < len(each)) || asked && d != each[i] {
					return fmt.Errorf("%s\n%s: got %+v, %v, want %+v", history, axis, d, asked, each)
				}
			}
			steps.Add(1)
			switch binding {
			case admission.Rate:
				byRate.Add(1)
			case admission.Cost:
				byCost.Add(1)
			default:
				allowed.Add(1)
			}
			now = step(r, now, time.Second)
		}
		return nil
	})
	t.Logf("equal in every field: %d admissions, of which %d allowed, %d denied by rate and %d by cost",
		steps.Load(), allowed.Load(), byRate.Load(), byCost.Load())
	if tenth := steps.Load() / 10; allowed.Load() < tenth || byRate.Load() < tenth || byCost.Load() < tenth {
		t.Error("this is no fair test")
	}
}

// TestAdmissionLayouts: the records are those of the strategies by themselves, as other implementations read
// and write them, and a denial on either axis leaves both as they are, to the last byte.
func TestAdmissionLayouts(t *testing.T) {
	t.Parallel()
	clock, prefix := throttlekit.NewManualClock(base), freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Clock: clock, TTLFloor: far})
	rate, cost := throttlekit.GCRA{Limit: 3, Period: time.Second}, throttlekit.TokenBucket{Capacity: 20, RefillPerSec: 3.5}
	guard := newGuard(t, 1)
	a := newAdmitter(t, admission.Config{
		Guard: guard, Store: store, Clock: clock,
		Rate: &admission.Limit{Strategy: rate, Prefix: "rate"}, Cost: &admission.Limit{Strategy: cost, Prefix: "cost"},
	})
	records := func() [2]raw {
		both := [2]raw{look(t, prefix+":rate:k"), look(t, prefix+":cost:k")}
		both[0].ttl, both[1].ttl = 0, 0
		return both
	}
	admit := func(cost float64, binding admission.Axis) {
		t.Helper()
		adm, err := a.Admit(t.Context(), admission.Request{Key: "k", Cost: cost})
		if err != nil || adm.Binding != binding || adm.Allowed != (binding == "") {
			t.Errorf("%+v, %v", adm, err)
		}
		adm.Release()
	}
	admit(21, admission.Cost)
	if got := records(); got[0].kind != "none" || got[1].kind != "none" {
		t.Errorf("a denial by cost wrote %+v", got)
	}
	admit(2.5, "")
	want := [2]raw{
		{kind: "string", texts: []string{at(333) + ".3333"}},
		{kind: "hash", texts: []string{"t", "17.5", "l", at(0)}},
	}
	if got := records(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	admit(18, admission.Cost)
	if got := records(); !reflect.DeepEqual(got, want) {
		t.Errorf("a denial by cost left %+v of %+v", got, want)
	}
	admit(1, "")
	admit(1, "")
	before := records()
	if before[1].texts[1] != "15.5" {
		t.Errorf("%+v", before)
	}
	admit(1, admission.Rate) // there is enough for the cost, which must not be taken
	admit(50, admission.Rate)
	if got := records(); !reflect.DeepEqual(got, before) {
		t.Errorf("a denial by rate left %+v of %+v", got, before)
	}
	if s := guard.Stats(); s.InFlight != 0 {
		t.Errorf("%+v", s)
	}

	alone, err := throttlekit.NewLimiter(rate, throttlekit.WithStore(store), throttlekit.WithPrefix("rate"))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := alone.Peek(t.Context(), "k"); err != nil || d.Allowed { // it is the same record
		t.Errorf("%+v, %v", d, err)
	}
}

// TestAdmissionIsOneRoundTrip, whatever it comes to, and none if guard or price deny.
func TestAdmissionIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	store := open(t, "redis://"+proxy.Addr, redisstore.Config{})
	price, err := admission.NewPrice(admission.PriceConfig{Duals: &admission.Duals{Cost: 1}})
	if err != nil {
		t.Fatal(err)
	}
	a := newAdmitter(t, admission.Config{
		Guard: newGuard(t, 1), Store: store, Price: price,
		Rate: &admission.Limit{Strategy: throttlekit.GCRA{Limit: 2, Period: 87600 * time.Hour}, Prefix: "rate"},
		Cost: &admission.Limit{Strategy: throttlekit.TokenBucket{Capacity: 10, RefillPerSec: 1e-6}, Prefix: "cost"},
	})
	admit := func(cost, value float64) (admission.Admission, int) {
		t.Helper()
		before := proxy.Turns()
		adm, err := a.Admit(t.Context(), admission.Request{Key: "k", Cost: cost, Value: value})
		if err != nil {
			t.Fatal(err)
		}
		return adm, proxy.Turns() - before
	}
	warm, _ := admit(1, 1) // loads the script, and connects
	if busy, turns := admit(1, 1); busy.Binding != admission.Concurrency || turns != 0 {
		t.Errorf("busy: %+v in %d round trips", busy, turns)
	}
	warm.Release()
	for _, test := range []struct {
		cost, value float64
		binding     admission.Axis
		turns       int
	}{{20, 1, "", 0}, {20, 20, admission.Cost, 1}, {1, 1, "", 1}, {1, 1, admission.Rate, 1}} {
		adm, turns := admit(test.cost, test.value)
		if adm.Binding != test.binding || turns != test.turns || adm.PriceDenied != (test.turns == 0) {
			t.Errorf("%+v: %+v in %d round trips", test, adm, turns)
		}
		adm.Release()
	}
}

// TestAdmissionIsExactUnderConcurrency has processes share a rate and a budget: neither admits more than
// it has, and what one denies the other still has.
func TestAdmissionIsExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	prefix := freshPrefix()
	const nodes, each, rate, budget = 4, 60, 40, 90
	var admitted, charged atomic.Int64
	var group sync.WaitGroup
	for node := range nodes {
		store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
		a := newAdmitter(t, admission.Config{
			Guard: newGuard(t, 64), Store: store,
			Rate: &admission.Limit{Strategy: throttlekit.TokenBucket{Capacity: rate, RefillPerSec: 1e-6}, Prefix: "rate"},
			Cost: &admission.Limit{Strategy: throttlekit.TokenBucket{Capacity: budget, RefillPerSec: 1e-6}, Prefix: "cost"},
		})
		for i := range each {
			group.Go(func() {
				cost := int64(1 + (node+i)%5)
				adm, err := a.Admit(t.Context(), admission.Request{Key: "k", Cost: float64(cost)})
				if err != nil {
					t.Error(err)
				} else if adm.Allowed {
					admitted.Add(1)
					charged.Add(cost)
				}
				adm.Release()
			})
		}
	}
	group.Wait()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
	for _, limit := range []struct {
		key        string
		has, spent int64
	}{{"rate:k", rate, admitted.Load()}, {"cost:k", budget, charged.Load()}} {
		rule := ruleOf(t, throttlekit.TokenBucket{Capacity: float64(limit.has), RefillPerSec: 1e-6})
		rec, now, err := store.Load(t.Context(), limit.key, rule)
		if err != nil || rule.Peek(rec, now).Remaining != limit.has-limit.spent {
			t.Errorf("%s: %d spent of %d, and %d left, %v", limit.key, limit.spent, limit.has, rule.Peek(rec, now).Remaining, err)
		}
	}
	t.Logf("%d admitted of %d, %d charged of %d", admitted.Load(), rate, charged.Load(), budget)
	if admitted.Load() < 10 || charged.Load() < budget-5 {
		t.Error("this is no fair test")
	}
}

// TestAdmissionOnCluster: keys in braces have their records together; others are refused, and hold nothing.
func TestAdmissionOnCluster(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, false)
	a := newAdmitter(t, admission.Config{
		Guard: newGuard(t, 1), Store: open(t, cluster.URL(), redisstore.Config{}),
		Rate: &admission.Limit{Strategy: throttlekit.GCRA{Limit: 100, Period: time.Hour}, Prefix: "rate"},
		Cost: &admission.Limit{Strategy: throttlekit.TokenBucket{Capacity: 100, RefillPerSec: 1e-6}, Prefix: "cost"},
	})
	adm, err := a.Admit(t.Context(), admission.Request{Key: "k"})
	if !errors.Is(err, throttlekit.ErrUnsupported) || adm != (admission.Admission{}) {
		t.Errorf("%+v, %v", adm, err)
	}
	for i := range 20 {
		adm, err := a.Admit(t.Context(), admission.Request{Key: fmt.Sprintf("{tenant %d}", i)})
		if err != nil || !adm.Allowed {
			t.Errorf("%+v, %v", adm, err)
		}
		adm.Release()
	}
}

// TestAdmissionWithoutRedis: a store that is gone leaves no slot held, and a stand-in answers for it.
func TestAdmissionWithoutRedis(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	guard := newGuard(t, 1)
	a := newAdmitter(t, admission.Config{
		Guard: guard, Store: open(t, server.URL(), redisstore.Config{Timeout: time.Second}),
		Rate: &admission.Limit{Strategy: throttlekit.GCRA{Limit: 100, Period: time.Hour}, Prefix: "rate"},
		Cost: &admission.Limit{Strategy: throttlekit.TokenBucket{Capacity: 100, RefillPerSec: 1e-6}, Prefix: "cost"},
	})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		adm, err := a.Admit(t.Context(), admission.Request{Key: "k"})
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || adm != (admission.Admission{}) {
			t.Errorf("%+v, %v", adm, err)
		}
	}
	if s := guard.Stats(); s.InFlight != 0 || s.Last != 0 {
		t.Errorf("%+v", s)
	}
	adm, err := a.AdmitOr(t.Context(), admission.Request{Key: "k"}, func(_ context.Context, err error) (throttlekit.Decision, error) {
		return throttlekit.Decision{Allowed: errors.Is(err, throttlekit.ErrStoreUnavailable)}, nil
	})
	if err != nil || !adm.Allowed || guard.Stats().InFlight != 1 {
		t.Errorf("%+v, %v", adm, err)
	}
	adm.Release()
}

package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// TestAxes goes through what can bind, and what is charged and held then.
func TestAxes(t *testing.T) {
	t.Parallel()
	dear := &Duals{Cost: 1}
	for _, test := range []struct {
		name    string
		slots   int
		before  int // requests of cost 1 that come first, and are released
		held    int // and of them, those that are still held
		request Request
		price   *Duals
		want    throttlekit.Decision
		binding Axis
		denied  bool   // by price
		asked   []Axis // which axes have a decision
	}{
		{
			name: "all allow", slots: 4, request: Request{Cost: 7}, asked: axes[:],
			want: throttlekit.Decision{Allowed: true, Limit: 4, Remaining: 3, ResetAtMillis: start + 40_000},
		},
		{
			name: "cost and value of 0 mean 1", slots: 4, price: dear, asked: axes[:],
			want: throttlekit.Decision{Allowed: true, Limit: 4, Remaining: 3, ResetAtMillis: start + 40_000},
		},
		{
			name: "concurrency", slots: 1, held: 1, before: 1, binding: Concurrency, asked: axes[:1],
			want: throttlekit.Decision{Limit: 1, ResetAtMillis: start, RetryAfterMillis: 1},
		},
		{
			name: "concurrency before price", slots: 1, held: 1, before: 1, price: dear, request: Request{Cost: 2},
			binding: Concurrency, asked: axes[:1],
			want: throttlekit.Decision{Limit: 1, ResetAtMillis: start, RetryAfterMillis: 1},
		},
		{
			name: "price", slots: 4, price: dear, request: Request{Cost: 2, Value: 1.9}, denied: true, asked: axes[:1],
			want: throttlekit.Decision{Limit: 4, ResetAtMillis: start},
		},
		{
			name: "price before rate and cost", slots: 9, before: 5, price: dear, request: Request{Cost: 50, Value: 49}, denied: true,
			asked: axes[:1], want: throttlekit.Decision{Limit: 9, ResetAtMillis: start},
		},
		{
			name: "rate, and the cost is not asked", slots: 9, before: 5, request: Request{Cost: 50}, binding: Rate, asked: axes[:2],
			want: throttlekit.Decision{Limit: 5, ResetAtMillis: start + 40_000, RetryAfterMillis: 40_000},
		},
		{
			name: "cost", slots: 9, before: 4, request: Request{Cost: 17}, binding: Cost, asked: axes[:],
			want: throttlekit.Decision{Limit: 5, ResetAtMillis: start + 40_000, RetryAfterMillis: 1000},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, test.slots)
			config := w.config()
			if test.price != nil {
				config.Price = newPrice(t, PriceConfig{Duals: test.price})
			}
			a := newAdmitter(t, config)
			for i := range test.before {
				if before := admit(t, a, Request{Key: "k"}); i >= test.held {
					before.Release()
				} else {
					t.Cleanup(before.Release)
				}
			}
			stats := w.guard.Stats()
			w.tick.Store(int64(time.Millisecond)) // from here on nothing ends at once
			rate, cost := w.left(t, config.Rate, "k"), w.left(t, config.Cost, "k")

			test.request.Key = "k"
			adm := admit(t, a, test.request)
			if adm.Decision != test.want || adm.Binding != test.binding || adm.PriceDenied != test.denied {
				t.Errorf("got %+v %q %v, want %+v %q %v", adm.Decision, adm.Binding, adm.PriceDenied, test.want, test.binding, test.denied)
			}
			var asked []Axis
			combined := AllowFull()
			for _, axis := range axes {
				if d, ok := adm.Of(axis); ok {
					asked, combined = append(asked, axis), Combine(combined, d)
				} else if d != (throttlekit.Decision{}) {
					t.Errorf("%s was not asked and says %+v", axis, d)
				}
			}
			if !slices.Equal(asked, test.asked) || !test.denied && combined != adm.Decision {
				t.Errorf("asked %v, which is %+v", asked, combined)
			}
			if adm.Permit().Allowed != adm.Allowed {
				t.Errorf("permit: %+v", adm.Permit())
			}
			if adm.Allowed {
				if got := w.left(t, config.Rate, "k"); got != rate-1 {
					t.Errorf("rate: %d left of %d", got, rate)
				}
				if got := w.left(t, config.Cost, "k"); got != cost-int64(max(1, test.request.Cost)) {
					t.Errorf("cost: %d left of %d", got, cost)
				}
				adm.Release()
			} else {
				if r, c := w.left(t, config.Rate, "k"), w.left(t, config.Cost, "k"); r != rate || c != cost {
					t.Errorf("the denial charged: %d left of %d, %d of %d", r, rate, c, cost)
				}
				adm.Drop() // does nothing
				if got := w.guard.Stats(); got != stats {
					t.Errorf("the denial taught the guard: %+v, before %+v", got, stats)
				}
			}
		})
	}
}

// TestFewerAxes has every combination of axes, and what each asks of the store.
func TestFewerAxes(t *testing.T) {
	t.Parallel()
	for set := 1; set < 8; set++ {
		t.Run(fmt.Sprintf("%03b", set), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3)
			config := w.config()
			var applies, batches int64
			var want []Axis
			if set&1 == 0 {
				config.Guard = nil
			} else {
				want = append(want, Concurrency)
			}
			if set&2 == 0 {
				config.Rate = nil
			} else {
				want, applies = append(want, Rate), 1
			}
			if set&4 == 0 {
				config.Cost = nil
			} else {
				want, applies = append(want, Cost), 1
			}
			if set&6 == 6 {
				applies, batches = 0, 1
			}
			if set&6 == 0 {
				config.Store = nil
			}
			a := newAdmitter(t, config)
			adm := admit(t, a, Request{Key: "k", Cost: 2})
			defer adm.Release()
			var asked []Axis
			combined := AllowFull()
			for _, axis := range axes {
				if d, ok := adm.Of(axis); ok {
					asked, combined = append(asked, axis), Combine(combined, d)
				}
			}
			if !adm.Allowed || adm.Decision != combined || !slices.Equal(asked, want) {
				t.Errorf("%+v of %v", adm, asked)
			}
			if gotA, gotB := w.store.applies.Load(), w.store.batches.Load(); gotA != applies || gotB != batches {
				t.Errorf("%d applies and %d batches, want %d and %d", gotA, gotB, applies, batches)
			}
			if adm.Permit().Allowed != (config.Guard != nil) {
				t.Errorf("%+v", adm.Permit())
			}
		})
	}
}

// TestKeys: an empty prefix leaves the key as it is, for one axis alone.
func TestKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	rate := &Limit{Strategy: throttlekit.FixedWindow{Limit: 5, Window: time.Minute}}
	a := newAdmitter(t, Config{Store: w.store, Rate: rate})
	admit(t, a, Request{Key: "k", Cost: 3}) // the rate is charged 1 whatever the cost
	rule, err := rate.Strategy.Rule()
	if err != nil {
		t.Fatal(err)
	}
	rec, now, err := w.store.Load(t.Context(), "k", rule)
	if err != nil || rule.Peek(rec, now).Remaining != 4 {
		t.Error(rec, err)
	}
	if d, asked := (Admission{}).Of("other"); asked || d != (throttlekit.Decision{}) {
		t.Error(d, asked)
	}
}

// TestGuardDecisions are the fixtures of the specification's §3.2.
func TestGuardDecisions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		last time.Duration
		want int64
	}{
		{0, 1},
		{time.Nanosecond, 1},
		{500 * time.Microsecond, 1},
		{1499 * time.Microsecond, 1},
		{1500 * time.Microsecond, 2},
		{37 * time.Millisecond, 37},
	} {
		w := newWorld(t, 4)
		a := newAdmitter(t, Config{Guard: w.guard, Clock: w.clock})
		if test.last > 0 {
			first := admit(t, a, Request{})
			w.elapsed.Add(int64(test.last))
			first.Release()
		}
		for i := range 4 {
			adm := admit(t, a, Request{})
			t.Cleanup(adm.Release)
			want := throttlekit.Decision{Allowed: true, Limit: 4, Remaining: 3 - int64(i), ResetAtMillis: start}
			if adm.Decision != want {
				t.Errorf("slot %d: %+v, want %+v", i, adm.Decision, want)
			}
		}
		want := throttlekit.Decision{Limit: 4, ResetAtMillis: start, RetryAfterMillis: test.want}
		if adm := admit(t, a, Request{}); adm.Decision != want || adm.Binding != Concurrency {
			t.Errorf("after %v: %+v, want %+v", test.last, adm.Decision, want)
		}
	}
}

// TestPriceWithoutGuard is what a denial by price says if nothing was asked before.
func TestPriceWithoutGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	config := w.config()
	config.Guard, config.Price = nil, newPrice(t, PriceConfig{Duals: &Duals{Rate: 2}})
	adm := admit(t, newAdmitter(t, config), Request{Key: "k"})
	want := throttlekit.Decision{Limit: throttlekit.MaxSafe}
	if adm.Decision != want || !adm.PriceDenied || adm.Binding != "" {
		t.Errorf("%+v", adm)
	}
	if n := w.store.batches.Load(); n != 0 {
		t.Errorf("%d batches", n)
	}
}

// TestDenialsTeachNothing is the reference's defect that the specification's §6.8 tells: denials by
// the rate must not look like a backend that answers at once.
func TestDenialsTeachNothing(t *testing.T) {
	t.Parallel()
	run := func(denials int) concurrency.Stats {
		var now time.Duration
		guard, err := concurrency.NewGuard(concurrency.Config{Elapsed: func() time.Duration { return now }})
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, 1)
		var work time.Duration // how long the store takes
		w.store.work = func() { now += work }
		a := newAdmitter(t, Config{
			Guard: guard, Store: w.store, Rate: &Limit{Strategy: throttlekit.FixedWindow{Limit: 1e9, Window: time.Minute}, Prefix: "r"},
			Cost: &Limit{Strategy: throttlekit.FixedWindow{Limit: 1e9, Window: time.Minute}, Prefix: "c"},
		})
		for range 40 {
			work = time.Millisecond
			for range denials {
				if adm := admit(t, a, Request{Key: "k", Cost: 1e10}); adm.Allowed || adm.Binding != Cost {
					t.Fatalf("%+v", adm)
				}
			}
			work = 0
			var held []Admission
			for range guard.Stats().Limit {
				held = append(held, admit(t, a, Request{Key: "k"}))
			}
			now += 10 * time.Millisecond
			for _, adm := range held {
				adm.Release()
			}
		}
		return guard.Stats()
	}
	without, with := run(0), run(3)
	if with != without || with.NoLoad != 10*time.Millisecond || with.Limit < 100 {
		t.Errorf("with denials %+v, without %+v", with, without)
	}
}

// TestStoreTeachesNothing: how long the store takes is not the backend's latency, whoever decides in the end.
func TestStoreTeachesNothing(t *testing.T) {
	t.Parallel()
	run := func(storeTakes time.Duration, storeFails error) concurrency.Stats {
		var now time.Duration
		guard, err := concurrency.NewGuard(concurrency.Config{Elapsed: func() time.Duration { return now }})
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, 1)
		w.store.work = func() { now += storeTakes }
		a := newAdmitter(t, Config{
			Guard: guard, Store: w.store, Rate: &Limit{Strategy: throttlekit.FixedWindow{Limit: 1e9, Window: time.Minute}, Prefix: "r"},
			Cost: &Limit{Strategy: throttlekit.FixedWindow{Limit: 1e9, Window: time.Minute}, Prefix: "c"},
		})
		for range 40 {
			w.store.fail(storeFails)
			var held []Admission
			for range guard.Stats().Limit {
				adm, err := a.AdmitOr(t.Context(), Request{Key: "k"}, func(context.Context, error) (throttlekit.Decision, error) {
					return throttlekit.Decision{Allowed: true}, nil
				})
				if err != nil || !adm.Allowed {
					t.Fatalf("%+v, %v", adm, err)
				}
				now += 10 * time.Millisecond
				adm.Release()
				held = append(held, adm)
			}
			if len(held) == 0 {
				t.Fatal("nobody was admitted")
			}
		}
		return guard.Stats()
	}
	fast, slow, failing := run(0, nil), run(100*time.Millisecond, nil), run(100*time.Millisecond, throttlekit.ErrStoreUnavailable)
	if slow != fast || failing != fast || fast.NoLoad != 10*time.Millisecond {
		t.Errorf("with a fast store %+v, with a slow one %+v, with one that fails late %+v", fast, slow, failing)
	}
}

// TestErrors: whatever fails, the slot is given back, and nothing was taught.
func TestErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	config := w.config()
	a := newAdmitter(t, config)
	down := fmt.Errorf("%w: down", throttlekit.ErrStoreUnavailable)
	for _, fault := range []error{down, throttlekit.ErrUnsupported, context.Canceled} {
		w.store.fail(fault)
		if adm, err := a.Admit(t.Context(), Request{Key: "k"}); !errors.Is(err, fault) || adm != (Admission{}) {
			t.Errorf("%+v, %v", adm, err)
		}
	}
	w.store.fail(nil)
	w.store.short.Store(true)
	if adm, err := a.Admit(t.Context(), Request{Key: "k"}); !errors.Is(err, throttlekit.ErrStoreUnavailable) || adm != (Admission{}) {
		t.Errorf("%+v, %v", adm, err)
	}
	w.store.short.Store(false)
	config.Cost = nil
	alone := newAdmitter(t, config)
	w.store.fail(down)
	if adm, err := alone.Admit(t.Context(), Request{Key: "k"}); !errors.Is(err, down) || adm != (Admission{}) {
		t.Errorf("%+v, %v", adm, err)
	}
	if s := w.guard.Stats(); s != (concurrency.Stats{Limit: 2}) {
		t.Errorf("%+v", s)
	}

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	asked := w.store.batches.Load()
	if _, err := a.Admit(gone, Request{Key: "k"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := w.guard.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Admit(t.Context(), Request{Key: "k"}); !errors.Is(err, throttlekit.ErrClosed) {
		t.Error(err)
	}
	if n := w.store.batches.Load(); n != asked {
		t.Error("the store was asked although the guard failed")
	}
}

// TestStandIn has a store that fails, and who decides in its place.
func TestStandIn(t *testing.T) {
	t.Parallel()
	yes, no := throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 5}, throttlekit.Decision{Limit: 5}
	fault, refusal := fmt.Errorf("%w: down", throttlekit.ErrStoreUnavailable), errors.New("not I")
	for _, test := range []struct {
		name    string
		cost    bool // without a rate
		d       throttlekit.Decision
		err     error
		want    throttlekit.Decision
		binding Axis
	}{
		{name: "allows", d: yes, want: throttlekit.Decision{Allowed: true, Limit: 1, ResetAtMillis: start}},
		{name: "denies", d: no, want: throttlekit.Decision{Limit: 1, ResetAtMillis: start}, binding: Rate},
		{name: "denies in place of the cost", cost: true, d: no, want: throttlekit.Decision{Limit: 1, ResetAtMillis: start}, binding: Cost},
		{name: "fails", d: yes, err: refusal},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			config := w.config()
			if test.cost {
				config.Rate = nil
			}
			a := newAdmitter(t, config)
			asked := 0
			standIn := func(ctx context.Context, err error) (throttlekit.Decision, error) {
				if asked++; ctx != t.Context() || !errors.Is(err, fault) {
					t.Errorf("asked with %v", err)
				}
				return test.d, test.err
			}
			w.store.fail(fault)
			adm, err := a.AdmitOr(t.Context(), Request{Key: "k"}, standIn)
			if !errors.Is(err, test.err) || adm.Decision != test.want || adm.Binding != test.binding || asked != 1 {
				t.Fatalf("%+v, %v, asked %d times", adm, err, asked)
			}
			if n := w.guard.Stats().InFlight; (n == 1) != adm.Allowed {
				t.Errorf("%d slots held", n)
			}
			if adm.Allowed { // concurrency is limited as ever
				second, err := a.AdmitOr(t.Context(), Request{Key: "k"}, standIn)
				if err != nil || second.Allowed || second.Binding != Concurrency || asked != 1 {
					t.Errorf("%+v, %v, asked %d times", second, err, asked)
				}
				adm.Release()
			}
			w.store.fail(nil)
			adm, err = a.AdmitOr(t.Context(), Request{Key: "k"}, standIn)
			if err != nil || !adm.Allowed || asked != 1 {
				t.Errorf("%+v, %v, asked %d times", adm, err, asked)
			}
			adm.Release()
		})
	}
}

type rule = throttlekit.Rule

// panicking is a strategy of a user that panics.
type panicking struct{ rule }

func (p panicking) Rule() (throttlekit.Rule, error) { return p, nil }

func (panicking) Apply(throttlekit.Record, int64, float64) (throttlekit.Record, throttlekit.Decision, int64) {
	panic("on purpose")
}

// TestPanic: a slot comes back also if a user's code panics. The test's world looks at that.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	config := w.config()
	config.Cost = nil
	config.Rate.Strategy = panicking{}
	a := newAdmitter(t, config)
	defer func() {
		if recover() == nil {
			t.Error("the panic was swallowed")
		}
	}()
	_, _ = a.Admit(t.Context(), Request{Key: "k"})
}

// TestEndings: the first ending counts, of all copies together.
func TestEndings(t *testing.T) {
	t.Parallel()
	for i, end := range []func(Admission){Admission.Release, Admission.Drop, Admission.Cancel, func(a Admission) { a.Permit().Release() }} {
		w := newWorld(t, 8)
		a := newAdmitter(t, w.config())
		other := admit(t, a, Request{Key: "k"})
		adm := admit(t, a, Request{Key: "k"})
		w.elapsed.Add(int64(time.Millisecond))
		end(adm)
		second := adm
		second.Release()
		second.Drop()
		second.Cancel()
		s := w.guard.Stats()
		taught := i != 2
		if s.InFlight != 1 || (s.Last != 0) != taught {
			t.Errorf("ending %d: %+v", i, s)
		}
		other.Cancel()
		if got := w.left(t, w.config().Rate, "k"); got != 3 {
			t.Errorf("ending %d gave the rate back: %d left", i, got)
		}
	}
}

// TestQueue: a request waits for a slot before it is charged, and is charged nothing if it leaves.
func TestQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: 1, MaxLimit: 1, Queue: 2})
		if err != nil {
			t.Fatal(err)
		}
		config := w.config()
		config.Guard = guard
		a := newAdmitter(t, config)
		first := admit(t, a, Request{Key: "k"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Admit(ctx, Request{Key: "k"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		served := make(chan Admission)
		go func() {
			adm, err := a.Admit(t.Context(), Request{Key: "k"})
			if err != nil {
				t.Error(err)
			}
			served <- adm
		}()
		synctest.Wait()
		if left := w.left(t, config.Rate, "k"); left != 4 {
			t.Errorf("those who wait are charged: %d left", left)
		}
		first.Release()
		second := <-served
		if !second.Allowed || w.left(t, config.Rate, "k") != 3 {
			t.Errorf("%+v", second)
		}
		second.Release()
		if n := guard.Stats().InFlight; n != 0 {
			t.Errorf("%d slots are still held", n)
		}
	})
}

// TestBadRequests: what is wrong is refused, all fields at once, before anything is taken or asked.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	config := w.config()
	workload := Workload{Rate: 1, Cost: 1, Types: []Type{{Cost: 1, Value: 1, Weight: 1}}}
	config.Price = newPrice(t, PriceConfig{Workload: &workload, SampleWindow: 1})
	a := newAdmitter(t, config)
	nan, inf := math.NaN(), math.Inf(1)
	standIn := func(context.Context, error) (throttlekit.Decision, error) {
		t.Error("a stand-in was asked")
		return throttlekit.Decision{Allowed: true}, nil
	}
	for _, test := range []struct {
		request Request
		fields  []string
	}{
		{Request{Cost: nan}, []string{"cost"}},
		{Request{Cost: -1}, []string{"cost"}},
		{Request{Cost: inf}, []string{"cost"}},
		{Request{Cost: throttlekit.MaxSafe + 1}, []string{"cost"}},
		{Request{Value: nan}, []string{"value"}},
		{Request{Value: inf}, []string{"value"}},
		{Request{Value: -0.5}, []string{"value"}},
		{Request{Hold: nan}, []string{"hold"}},
		{Request{Hold: inf}, []string{"hold"}},
		{Request{Hold: -1}, []string{"hold"}},
		{Request{Cost: nan, Value: -inf, Hold: -inf}, []string{"cost", "value", "hold"}},
	} {
		adm, err := a.AdmitOr(t.Context(), test.request, standIn)
		if !errors.Is(err, throttlekit.ErrInvalid) || !slices.Equal(invalidFields(err), test.fields) || adm != (Admission{}) {
			t.Errorf("%+v: %+v, %v", test.request, adm, err)
		}
	}
	if w.store.batches.Load() != 0 || w.guard.Stats() != (concurrency.Stats{Limit: 1}) || config.Price.Final() {
		t.Error("something was asked")
	}
}

func TestBadConfigs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	good := throttlekit.FixedWindow{Limit: 1, Window: time.Second}
	price := newPrice(t, PriceConfig{Duals: &Duals{}})
	limits := func(rate, cost string) Config {
		return Config{Store: w.store, Rate: &Limit{good, rate}, Cost: &Limit{good, cost}}
	}
	for name, test := range map[string]struct {
		config Config
		fields []string
	}{
		"nothing":                {Config{}, []string{"axes"}},
		"no store":               {Config{Rate: &Limit{Strategy: good}}, []string{"store"}},
		"no strategy":            {Config{Store: w.store, Cost: &Limit{}}, []string{"cost.strategy"}},
		"wrong strategy":         {Config{Store: w.store, Cost: &Limit{Strategy: throttlekit.FixedWindow{}}}, []string{"limit", "window"}},
		"price of the rate":      {Config{Store: w.store, Rate: &Limit{Strategy: good}, Price: price}, []string{"price"}},
		"the same keys":          {limits("a", "a"), []string{"cost.prefix"}},
		"bare keys of both":      {limits("", ""), []string{"cost.prefix"}},
		"bare keys of one":       {limits("", "a"), []string{"cost.prefix"}},
		"keys within the others": {limits("a", "a:b"), []string{"cost.prefix"}},
		"and the other way":      {limits("a:b", "a"), []string{"cost.prefix"}},
		"everything": {
			Config{Rate: &Limit{Strategy: throttlekit.FixedWindow{}}, Cost: &Limit{}},
			[]string{"store", "limit", "window", "cost.strategy", "cost.prefix"},
		},
		"distinct keys":    {limits("a", "ab"), nil},
		"guard and price":  {Config{Guard: w.guard, Price: price}, nil},
		"store of a guard": {Config{Guard: w.guard, Store: w.store}, nil},
	} {
		a, err := New(test.config)
		if !slices.Equal(invalidFields(err), test.fields) || (err == nil) != (a != nil) ||
			errors.Is(err, throttlekit.ErrInvalid) != (a == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSequential holds admissions to the sequential form, computed from the rules themselves: concurrency,
// price, rate, cost, and a denial leaves every record as it was.
func TestSequential(t *testing.T) {
	t.Parallel()
	bound := make(map[Axis]int)
	priced := 0
	for n := range 300 {
		r := rand.New(rand.NewPCG(27, uint64(n)))
		w := newWorld(t, 3)
		config := w.config()
		config.Rate.Strategy = throttlekit.GCRA{Limit: float64(1 + r.IntN(8)), Period: time.Second, Burst: float64(1 + r.IntN(8))}
		config.Cost.Strategy = throttlekit.TokenBucket{Capacity: float64(1 + r.IntN(20)), RefillPerSec: r.Float64() * 20}
		duals := Duals{Rate: r.Float64() / 2, Cost: r.Float64() / 10}
		config.Price = newPrice(t, PriceConfig{Duals: &duals})
		a := newAdmitter(t, config)
		rate, errR := config.Rate.Strategy.Rule()
		cost, errC := config.Cost.Strategy.Rule()
		if errR != nil || errC != nil {
			t.Fatal(errR, errC)
		}
		var rateRec, costRec throttlekit.Record
		var held []Admission
		for range 60 {
			w.clock.Advance(time.Duration(r.IntN(200)) * time.Millisecond)
			now := w.clock.NowMillis()
			if len(held) > 0 && r.IntN(2) == 0 {
				held[0].Release()
				held = held[1:]
			}
			request := Request{Key: "k", Cost: float64(1 + r.IntN(6)), Value: r.Float64() * 2}
			got := admit(t, a, request)

			want := Admission{Decision: throttlekit.Decision{Allowed: true, Limit: 3, Remaining: int64(2 - len(held)), ResetAtMillis: now}}
			nextRate, d1, _ := rate.Apply(rateRec, now, 1)
			nextCost, d2, _ := cost.Apply(costRec, now, request.Cost)
			switch {
			case len(held) == 3:
				want.Decision = throttlekit.Decision{Limit: 3, ResetAtMillis: now, RetryAfterMillis: 1}
				want.Binding = Concurrency
			case request.Value < duals.Rate+duals.Cost*request.Cost:
				want.Allowed, want.Remaining, want.PriceDenied = false, 0, true
				priced++
			case !d1.Allowed:
				want.Decision, want.Binding = Combine(want.Decision, d1), Rate
			case !d2.Allowed:
				want.Decision, want.Binding = Combine(want.Decision, Combine(d1, d2)), Cost
			default:
				want.Decision = Combine(want.Decision, Combine(d1, d2))
				rateRec, costRec = nextRate, nextCost
				held = append(held, got)
			}
			bound[want.Binding]++
			if got.Decision != want.Decision || got.Binding != want.Binding || got.PriceDenied != want.PriceDenied {
				t.Fatalf("%+v: got %+v, want %+v", request, got, want)
			}
		}
		for _, adm := range held {
			adm.Release()
		}
	}
	t.Logf("bound by %v, denied by price %d", bound, priced)
	if bound[Concurrency] < 500 || bound[Rate] < 500 || bound[Cost] < 500 || bound[""] < 2000 || priced < 500 {
		t.Error("this is no fair test")
	}
}

// TestConcurrent has 64 goroutines at once. No more are in flight than slots, the limits admit exactly
// what they have, every result is that of its own request, and nothing stays held.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const slots, goroutines, each, rate, budget = 16, 64, 200, 700, 3000
	w := newWorld(t, slots)
	config := w.config()
	config.Rate.Strategy = throttlekit.FixedWindow{Limit: rate, Window: time.Hour}
	config.Cost.Strategy = throttlekit.FixedWindow{Limit: budget, Window: time.Hour}
	config.Price = newPrice(t, PriceConfig{
		Workload:     &Workload{Rate: 1e6, Cost: 1e6, Types: []Type{{Cost: 1, Value: 1, Weight: 1}}},
		SampleWindow: 1000,
	})
	a := newAdmitter(t, config)
	var inFlight, most, admitted, charged, bound atomic.Int64
	var group sync.WaitGroup
	for g := range goroutines {
		group.Go(func() {
			r := rand.New(rand.NewPCG(64, uint64(g)))
			for i := range each {
				key := "shared"
				if g%2 == 0 {
					key = fmt.Sprint("own", g) // whose records nobody else touches
				}
				cost := float64(1 + r.IntN(8))
				adm, err := a.Admit(t.Context(), Request{Key: key, Cost: cost})
				if err != nil {
					t.Error(err)
					return
				}
				d, asked := adm.Of(Cost)
				if key != "shared" && asked && adm.Allowed && d.Remaining > budget-int64(cost) {
					t.Errorf("request %d: %+v", i, d)
				}
				if !adm.Allowed {
					bound.Add(1)
					continue
				}
				n, m := inFlight.Add(1), most.Load()
				for n > m && !most.CompareAndSwap(m, n) {
					m = most.Load()
				}
				for range 20 {
					runtime.Gosched() // the work
				}
				if key == "shared" {
					admitted.Add(1)
					charged.Add(int64(cost))
				}
				inFlight.Add(-1)
				switch i % 3 {
				case 0:
					adm.Release()
				case 1:
					adm.Drop()
				default:
					adm.Cancel()
				}
			}
		})
	}
	group.Wait()
	if n := most.Load(); n > slots {
		t.Errorf("%d in flight of %d", n, slots)
	}
	left, spent := w.left(t, config.Rate, "shared"), w.left(t, config.Cost, "shared")
	if rate-left != admitted.Load() || budget-spent != charged.Load() || left < 0 || spent < 0 {
		t.Errorf("admitted %d of cost %d; charged %d and %d", admitted.Load(), charged.Load(), rate-left, budget-spent)
	}
	t.Logf("%d admitted on the shared key, %d denied, %d in flight at most", admitted.Load(), bound.Load(), most.Load())
	if admitted.Load() == 0 || bound.Load() == 0 || most.Load() < slots/2 || !config.Price.Final() {
		t.Error("this is no fair test")
	}
}

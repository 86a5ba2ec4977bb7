package admission

import (
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/throttlekit/throttlekit-go"
)

func TestFilter(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	p := newPrice(t, PriceConfig{Duals: &Duals{Rate: 1, Cost: 0.5, Concurrency: 2}})
	for _, test := range []struct {
		cost, hold, bid float64
	}{
		{4, 0, 3},
		{4, 3, 9},
		{0.5, 0.25, 1.75},
		{4, nan, 3}, // a hold that says nothing adds nothing
		{4, inf, 3},
		{4, -inf, 3},
		{4, -1, 3},
	} {
		if bid := p.Duals().Bid(test.cost, test.hold); bid != test.bid {
			t.Errorf("%+v: bid %v", test, bid)
		}
		if !p.admits(test.cost, test.bid, test.hold) {
			t.Errorf("%+v: what is worth its bid is refused", test)
		}
		if p.admits(test.cost, math.Nextafter(test.bid, 0), test.hold) || p.admits(test.cost, nan, test.hold) {
			t.Errorf("%+v: what is worth less is admitted", test)
		}
	}
	if !p.Final() {
		t.Error("given prices are final")
	}
	if got := newPrice(t, PriceConfig{Duals: &Duals{}}); !got.admits(1e15, 0, 1e15) {
		t.Error("what has no price is refused")
	}
}

// refining is a price that believes in one type, of value 1, and may be taught better by 4 arrivals.
func refining(t *testing.T) *Price {
	t.Helper()
	p := newPrice(t, PriceConfig{
		Workload: &Workload{Rate: 2, Cost: 8, Types: []Type{{Cost: 1, Value: 1, Weight: 4}}}, SampleWindow: 4,
	})
	if p.Duals() != (Duals{Rate: 1}) || p.Final() {
		t.Fatalf("%+v", p.Duals())
	}
	return p
}

// TestRefinementIsAdopted: there are 2 of 4 places, half a place for each arrival. The first price
// gives them to whoever comes first, the learned one to those worth 9. The last of the sample is
// already priced by it.
func TestRefinementIsAdopted(t *testing.T) {
	t.Parallel()
	p := refining(t)
	for i, want := range []struct {
		value float64
		admit bool
	}{{2, true}, {9, true}, {9, true}, {2, false}, {8.9, false}, {9, true}, {1, false}} {
		if got := p.admits(1, want.value, 0); got != want.admit {
			t.Errorf("arrival %d of value %v: %v", i, want.value, got)
		}
		if final := p.Final(); final != (i >= 3) {
			t.Errorf("after arrival %d: final %v", i, final)
		}
	}
	if p.Duals() != (Duals{Rate: 9}) {
		t.Errorf("%+v", p.Duals())
	}
	for range 100 { // for life
		p.admits(1, 1, 0)
	}
	if p.Duals() != (Duals{Rate: 9}) {
		t.Errorf("%+v", p.Duals())
	}
}

// TestRefinementIsRejected where it is not strictly better on the sample: here both admit the first two.
func TestRefinementIsRejected(t *testing.T) {
	t.Parallel()
	p := refining(t)
	for _, value := range []float64{9, 9, 2, 2} {
		p.admits(1, value, 0)
	}
	if !p.Final() || p.Duals() != (Duals{Rate: 1}) {
		t.Errorf("%+v", p.Duals())
	}
}

// TestSampleIsBounded: of many distinct arrivals, the first MaxTypes are counted and all are replayed.
func TestSampleIsBounded(t *testing.T) {
	t.Parallel()
	w := Workload{Rate: 100, Cost: 1e9, Types: []Type{{Cost: 1, Value: 1, Weight: 1000}}}
	s := newSample(&w, 1000)
	if s.rate != 0.1 || s.cost != 1e6 {
		t.Errorf("budgets for an arrival: %v, %v", s.rate, s.cost)
	}
	p := newPrice(t, PriceConfig{Workload: &w})
	p.sample.Store(s)
	for i := range 1000 {
		p.admits(1, 1+float64(i%500), 0)
	}
	if len(s.types) != MaxTypes || len(s.seen) != 1000 || !p.Final() {
		t.Errorf("%d types of %d arrivals", len(s.types), len(s.seen))
	}
	for i, ty := range s.types {
		if ty.Value != float64(1+i) || ty.Weight != 2.0/1000 {
			t.Errorf("type %d: %+v", i, ty)
		}
	}
	weightless := newSample(&Workload{Rate: 7, Cost: 9, Types: []Type{{Value: 1}}}, 1)
	if weightless.rate != 7 || weightless.cost != 9 {
		t.Errorf("budgets without weight: %v, %v", weightless.rate, weightless.cost)
	}
}

// TestRefinementSurvivesNonsense: a sample that no prices can be computed from leaves them as they were.
func TestRefinementSurvivesNonsense(t *testing.T) {
	t.Parallel()
	p := refining(t)
	for _, value := range []float64{2, 1e300, 1e300, 2} {
		p.admits(1, value, 0)
	}
	if !p.Final() || p.Duals() != (Duals{Rate: 1}) {
		t.Errorf("%+v", p.Duals())
	}
}

// TestWorthOfASample: a request takes a place and its cost, or passes by.
func TestWorthOfASample(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		rate, cost float64 // for one arrival
		duals      Duals
		want       float64
	}{
		{rate: 1, cost: 10, want: 10},
		{rate: 0.25, cost: 10, want: 1}, // one place
		{rate: 0.2, cost: 10, want: 0},  // less than one
		{rate: 1, cost: 1, want: 1 + 3}, // 4 units: 3, then 1
		{rate: 1, cost: 2.5, want: 10},  // 10 units
		{rate: 1, cost: 2.25, want: 6},  // 9 units: 3, 2 and 1 fit
		{rate: 1, cost: 10, duals: Duals{Rate: 2}, want: 9},
		{rate: 0.25, cost: 10, duals: Duals{Cost: 1}, want: 2}, // the second, whose bid is its value
	} {
		s := sample{rate: test.rate, cost: test.cost, seen: []arrival{{3, 1}, {2, 2}, {1, 3}, {4, 4}}}
		if got := s.worth(test.duals); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// TestConcurrentRefinement: however many arrive at once, exactly as many as the window are recorded, and
// the prices change once, from the first to the last.
func TestConcurrentRefinement(t *testing.T) {
	t.Parallel()
	const window = 500
	// A quarter of the sample fits. However the goroutines mix, more than that is worth 9, and those that come
	// first are not all of them, so the learned price is better.
	w := &Workload{Rate: 125, Cost: 1e9, Types: []Type{{Cost: 1, Value: 1, Weight: 500}}}
	p := newPrice(t, PriceConfig{Workload: w, SampleWindow: window})
	s := p.sample.Load()
	var group sync.WaitGroup
	for g := range 64 {
		group.Go(func() {
			for i := range 100 {
				p.admits(1, []float64{2, 9}[(g+i)%2], 0)
				if d := p.Duals(); d != (Duals{Rate: 1}) && d != (Duals{Rate: 9}) {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	group.Wait()
	if !p.Final() || len(s.seen) != window || p.Duals() != (Duals{Rate: 9}) {
		t.Errorf("%d recorded, %+v", len(s.seen), p.Duals())
	}
}

func TestPricesDoNotAllocate(t *testing.T) {
	w := &Workload{Rate: 1, Cost: 1, Types: []Type{{Cost: 1, Value: 1, Weight: 1}}}
	for name, p := range map[string]*Price{
		"final":    newPrice(t, PriceConfig{Duals: &Duals{Rate: 1}}),
		"sampling": newPrice(t, PriceConfig{Workload: w, SampleWindow: MaxSample}),
	} {
		value := 0.0
		if n := testing.AllocsPerRun(1000, func() { value++; p.admits(1, value, 1) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestBadPrices(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	duals := &Duals{}
	good := &Workload{Rate: 1, Cost: 1, Types: []Type{{}}}
	three := &Workload{Rate: 1, Cost: 1, Concurrency: 1, Types: []Type{{Hold: 1}}}
	for _, test := range []struct {
		config PriceConfig
		fields []string
	}{
		{PriceConfig{}, []string{"duals"}},
		{PriceConfig{Duals: duals, Workload: good}, []string{"duals"}},
		{PriceConfig{Duals: duals, SampleWindow: 1}, []string{"sampleWindow"}},
		{PriceConfig{Workload: three, SampleWindow: 1}, []string{"sampleWindow"}},
		{PriceConfig{Workload: good, SampleWindow: -1}, []string{"sampleWindow"}},
		{PriceConfig{Workload: good, SampleWindow: MaxSample + 1}, []string{"sampleWindow"}},
		{
			PriceConfig{Duals: &Duals{Rate: nan, Cost: -1, Concurrency: math.Inf(1)}},
			[]string{"duals.rate", "duals.cost", "duals.concurrency"},
		},
		{PriceConfig{Workload: &Workload{Cost: 1, Types: []Type{{Value: nan}}}}, []string{"workload.rate", "workload.types[0].value"}},
		{PriceConfig{Workload: good, SampleWindow: MaxSample}, nil},
		{PriceConfig{Workload: three}, nil},
	} {
		p, err := NewPrice(test.config)
		if !slices.Equal(invalidFields(err), test.fields) || (err == nil) != (p != nil) ||
			errors.Is(err, throttlekit.ErrInvalid) != (p == nil) {
			t.Errorf("%+v: %v", test.config, err)
		}
	}
}

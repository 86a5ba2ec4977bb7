package budget_test

import (
	"math"
	"slices"
	"testing"

	"github.com/throttlekit/throttlekit-go/budget"
)

func learned(tb testing.TB, config budget.LearnedConfig) *budget.Learned {
	tb.Helper()
	l, err := budget.NewLearned(config)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func predictive(tb testing.TB, config budget.LearnedConfig) *budget.Predictive {
	tb.Helper()
	p, err := budget.NewPredictive(budget.PredictiveConfig{LearnedConfig: config})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// vector is the configuration of the specification's vectors.
var vector = budget.LearnedConfig{HoldCost: 1, OverrunCost: 4, Max: 512}

func TestLearnedVector(t *testing.T) {
	t.Parallel()
	l := learned(t, vector)
	if l.Reserve() != 256 || l.CriticalFractile() != 0.8 {
		t.Errorf("it starts at %v for the quantile %v", l.Reserve(), l.CriticalFractile())
	}
	for _, step := range []struct{ cost, want float64 }{
		{100, 128}, {300, 490.0386719675123}, {50, 416.1378375112402}, {400, 352.1378375112402},
	} {
		if l.Observe(step.cost); l.Continuous() != step.want || l.Reserve() != math.Floor(step.want+0.5) {
			t.Errorf("after %v it is %v, want %v", step.cost, l.Continuous(), step.want)
		}
	}
	if q := learned(t, budget.LearnedConfig{HoldCost: 3, OverrunCost: 1, Max: 8}).CriticalFractile(); q != 0.25 {
		t.Errorf("the quantile of 3 and 1 is %v", q)
	}
	equal := learned(t, vector)
	if equal.Observe(256); equal.Continuous() != 512 {
		t.Errorf("a cost that was met counts as under-reserved: %v", equal.Continuous())
	}
}

func TestPredictiveVector(t *testing.T) {
	t.Parallel()
	p := predictive(t, vector)
	for _, step := range []struct{ hint, trust, play, cost float64 }{
		{120, 0.5, 188, 100}, {280, 0.7957596977159083, 249, 300}, {60, 0.9994130595039192, 60, 50},
	} {
		if p.Trust() != step.trust {
			t.Errorf("the trust is %v, want %v", p.Trust(), step.trust)
		}
		if play := p.Reserve(step.hint); play != step.play {
			t.Errorf("%v is reserved for a hint of %v, want %v", play, step.hint, step.play)
		}
		p.Observe(step.cost)
	}
}

// TestGuards: what is not a number, or says nothing, teaches nothing.
func TestGuards(t *testing.T) {
	t.Parallel()
	l, p := learned(t, vector), predictive(t, vector)
	for _, cost := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1} {
		l.Observe(cost)
		l.ObserveAtLeast(cost)
		p.Observe(cost)
		if reserved := p.Reserve(cost); reserved != 256 {
			t.Errorf("%v is reserved for a hint of %v", reserved, cost)
		}
	}
	l.ObserveAtLeast(100) // it may have become less or more than 256
	if l.Continuous() != 256 || p.Trust() != 0.5 {
		t.Errorf("nothing was told, and it is %v and %v", l.Continuous(), p.Trust())
	}
	if l.ObserveAtLeast(256); l.Continuous() != 512 {
		t.Errorf("what was cut at its reservation wanted more: %v", l.Continuous())
	}
	for range 100 {
		p.Reserve(1e300)
		p.Observe(math.MaxFloat64)
	}
	if trust, reserved := p.Trust(), p.Reserve(3); math.IsNaN(trust) || reserved < 0 || reserved > 512 {
		t.Errorf("after huge costs the trust is %v and the reservation %v", trust, reserved)
	}
	if r := learned(t, budget.LearnedConfig{Max: 10.6, Initial: 11}).Reserve(); r != 10 {
		t.Errorf("%v is reserved of at most 10.6", r)
	}
}

// costs are heavy-tailed, as the specification's §1.3 makes them.
func costs(seed uint32, n int, median, most float64) []float64 {
	uniform := func() float64 { // Mulberry32
		seed += 0x6D2B79F5
		x := (seed ^ seed>>15) * (seed | 1)
		x ^= x + (x^x>>7)*(x|61)
		return float64(x^x>>14) / (1 << 32)
	}
	all := make([]float64, n)
	for i := range all {
		u := (uniform()+uniform()+uniform())/3 - 0.5
		all[i] = min(most, max(1, math.Floor(median*math.Exp(1.4*4*u)+0.5)))
	}
	return all
}

func TestLearnedFindsTheQuantile(t *testing.T) {
	t.Parallel()
	const seeds = 20
	mean := 0.0
	for seed := range uint32(seeds) {
		l := learned(t, vector)
		all := costs(seed, 6400, 120, 512)
		for _, c := range all {
			l.Observe(c)
		}
		slices.Sort(all)
		mean += l.Continuous() / all[len(all)*8/10] / seeds
	}
	if mean < 0.8 || mean > 1.3 {
		t.Errorf("it is %v of the quantile", mean)
	}
	t.Logf("it is %.3f of the quantile on average", mean)
	drift := learned(t, vector)
	for _, c := range costs(2, 3000, 80, 512) {
		drift.Observe(c)
	}
	before := drift.Continuous()
	for _, c := range costs(3, 3000, 300, 512) {
		drift.Observe(c)
	}
	if drift.Continuous() <= before {
		t.Errorf("costs rose, and it went from %v to %v", before, drift.Continuous())
	}
}

// TestHintsAreFollowedAsFarAsTheyAreGood: the specification's §1.4.
func TestHintsAreFollowedAsFarAsTheyAreGood(t *testing.T) {
	t.Parallel()
	loss := func(reserved, cost float64) float64 { return max(0, reserved-cost) + 4*max(0, cost-reserved) }
	all := costs(4, 3000, 120, 512)
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	run := func(hint func(cost float64) float64) (mixed, robust, blind, trust float64) {
		p, l := predictive(t, vector), learned(t, vector)
		for _, c := range all {
			mixed += loss(p.Reserve(hint(c)), c)
			robust += loss(l.Reserve(), c)
			blind += loss(hint(c), c)
			p.Observe(c)
			l.Observe(c)
		}
		return mixed, robust, blind, p.Trust()
	}
	mixed, robust, _, trust := run(func(c float64) float64 { return c })
	if mixed > robust/100 || trust < 0.8 {
		t.Errorf("with perfect hints it loses %v, without %v; trust %v", mixed, robust, trust)
	}
	mixed, robust, blind, trust := run(func(c float64) float64 { // the opposite rank
		i, _ := slices.BinarySearch(sorted, c)
		return sorted[len(sorted)-1-i]
	})
	if mixed > 1.02*robust || mixed > 0.7*blind || trust > 0.2 {
		t.Errorf("with hints to the contrary it loses %v, without %v, blindly %v; trust %v", mixed, robust, blind, trust)
	}
}

func TestBadReservations(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, c := range []struct {
		field  string
		config budget.LearnedConfig
	}{
		{"holdCost", budget.LearnedConfig{HoldCost: -1}},
		{"holdCost", budget.LearnedConfig{HoldCost: nan}},
		{"overrunCost", budget.LearnedConfig{OverrunCost: math.Inf(1), StepScale: 1}},
		{"maxReservation", budget.LearnedConfig{Max: -3, Min: -3, StepScale: 1, Initial: 1}},
		{"minReservation", budget.LearnedConfig{Max: 3, Min: 4}},
		{"initialReservation", budget.LearnedConfig{Initial: math.Inf(-1)}},
		{"stepScale", budget.LearnedConfig{StepScale: -1}},
	} {
		_, err := budget.NewLearned(c.config)
		if c.field == "maxReservation" {
			breaks(t, "a negative maximum", err, "maxReservation", "minReservation")
			continue
		}
		breaks(t, c.field, err, c.field)
	}
	_, err := budget.NewPredictive(budget.PredictiveConfig{LearningRate: nan})
	breaks(t, "learningRate", err, "learningRate")
}

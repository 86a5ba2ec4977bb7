package lease_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

func learner(t *testing.T, config lease.LearnerConfig) *lease.Learner {
	t.Helper()
	l, err := lease.NewLearner(config)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// demands follows a mean with noise, as the traces of the specification's §3.
func demands(seed uint64, n int, mean func(i int) float64, noise float64) []float64 {
	random := rand.New(rand.NewPCG(seed, 9))
	trace := make([]float64, n)
	for i := range trace {
		trace[i] = max(0, math.Round(mean(i)*(1+noise*random.NormFloat64())))
	}
	return trace
}

// bill is what sizes cost over a trace.
func bill(sizer lease.Sizer, trace []float64, order, strand float64) (total float64) {
	for _, d := range trace {
		total += price(sizer.Size(), d, order, strand)
		sizer.Observe(d)
	}
	return total
}

func price(size, demand, order, strand float64) float64 {
	if demand <= 0 {
		return 0
	}
	return order*demand/size + strand*size/2
}

// bestFixed is the cost of the best size that never changes.
func bestFixed(trace []float64, order, strand, most float64) float64 {
	best := math.Inf(1)
	for size := 1.0; size <= most; size++ {
		total := 0.0
		for _, d := range trace {
			total += price(size, d, order, strand)
		}
		best = min(best, total)
	}
	return best
}

func TestOneWindowDoesNotThrowTheSizeAcross(t *testing.T) {
	t.Parallel()
	l := learner(t, lease.LearnerConfig{OrderCost: 20, StrandPenalty: 1, InitialSize: 50})
	l.Observe(300)
	if size := l.Size(); size > math.Ceil(50*math.E) {
		t.Errorf("one window moved the size from 50 to %v", size)
	}
	for range 40 {
		l.Observe(300)
	}
	if best := lease.EOQ(20, 1, 300); l.Size() < 0.7*best || l.Size() > 1.3*best {
		t.Errorf("size %v after 40 windows, the best is %v", l.Size(), best)
	}
}

func TestRegretOfTheLearner(t *testing.T) {
	t.Parallel()
	last := math.Inf(1)
	for _, windows := range []int{100, 400, 1600, 6400} {
		trace := demands(1, windows, func(int) float64 { return 100 }, 0.2)
		l := learner(t, lease.LearnerConfig{OrderCost: 20, StrandPenalty: 1, MaxSize: 1000, InitialSize: 30})
		regret := (bill(l, trace, 20, 1) - bestFixed(trace, 20, 1, 300)) / float64(windows)
		if regret >= last {
			t.Errorf("%d windows: average regret %v, which has not fallen from %v", windows, regret, last)
		}
		last = regret
	}
	if last >= 1 {
		t.Errorf("average regret %v at the end", last)
	}
}

func TestLearnerFollowsDrift(t *testing.T) {
	t.Parallel()
	drift := func(i int) float64 { return 200 + 80*math.Sin(2*math.Pi*4*float64(i)/2000) }
	trace := demands(2, 2000, drift, 0.1)
	l := learner(t, lease.LearnerConfig{OrderCost: 20, StrandPenalty: 1, MaxSize: 1000, InitialSize: 30})
	if got, best := bill(l, trace, 20, 1), bestFixed(trace, 20, 1, 300); got > 1.02*best {
		t.Errorf("cost %v, the best fixed size costs %v", got, best)
	}
}

func TestPredictorTrustsWhatIsGood(t *testing.T) {
	t.Parallel()
	drift := func(i int) float64 { return 400 + 380*math.Sin(2*math.Pi*8*float64(i)/2000) }
	trace := demands(3, 2000, drift, 0.05)
	config := lease.LearnerConfig{OrderCost: 20, StrandPenalty: 1, MaxSize: 1000}
	clairvoyant := 0.0
	for _, d := range trace {
		clairvoyant += price(max(1, math.Floor(lease.EOQ(20, 1, d)+0.5)), d, 20, 1)
	}
	robust := bill(learner(t, config), trace, 20, 1)
	run := func(guess func(i int) float64) (cost, trust float64) {
		i := 0
		p, err := lease.NewPredictor(lease.PredictorConfig{LearnerConfig: config, Predict: func() float64 { return guess(i) }})
		if err != nil {
			t.Fatal(err)
		}
		for ; i < len(trace); i++ {
			cost += price(p.Size(), trace[i], 20, 1)
			p.Observe(trace[i])
		}
		return cost, p.Trust()
	}
	if cost, trust := run(func(i int) float64 { return trace[i] }); cost > 1.02*clairvoyant || trust < 0.8 {
		t.Errorf("perfect predictions cost %v of a clairvoyant's %v, trust %v", cost, clairvoyant, trust)
	}
	random := rand.New(rand.NewPCG(4, 4))
	if cost, _ := run(func(i int) float64 { return trace[i] * (1 + 0.1*random.NormFloat64()) }); cost > 1.05*clairvoyant {
		t.Errorf("noisy predictions cost %v of a clairvoyant's %v", cost, clairvoyant)
	}
	blind := 0.0
	for _, d := range trace {
		blind += price(math.Floor(lease.EOQ(20, 1, 5)+0.5), d, 20, 1)
	}
	if cost, trust := run(func(int) float64 { return 5 }); cost > 1.05*robust || cost >= 0.7*blind || trust > 0.2 {
		t.Errorf("false predictions cost %v, the learner %v, blind following %v, trust %v", cost, robust, blind, trust)
	}
	for _, nonsense := range []float64{math.NaN(), math.Inf(1), -1, 0} {
		if cost, _ := run(func(int) float64 { return nonsense }); cost > 1.05*robust {
			t.Errorf("prediction %v costs %v, the learner %v", nonsense, cost, robust)
		}
	}
}

func TestSizersStayInBoundsWhateverTheySee(t *testing.T) {
	t.Parallel()
	l := learner(t, lease.LearnerConfig{MinSize: 2, MaxSize: 50})
	p, err := lease.NewPredictor(lease.PredictorConfig{
		LearnerConfig: lease.LearnerConfig{MinSize: 2, MaxSize: 50}, Predict: func() float64 { return math.MaxFloat64 },
	})
	if err != nil {
		t.Fatal(err)
	}
	odd := []float64{0, math.NaN(), math.Inf(1), math.Inf(-1), -5, math.MaxFloat64, math.SmallestNonzeroFloat64, 1, 1e300}
	for i := range 2000 {
		for _, sizer := range []lease.Sizer{l, p} {
			if size := sizer.Size(); !(size >= 2 && size <= 50) || size != math.Trunc(size) {
				t.Fatalf("step %d: size %v", i, size)
			}
			sizer.Observe(odd[i%len(odd)])
		}
	}
	for range 200 {
		l.Observe(10)
	}
	if math.IsNaN(l.Size()) {
		t.Error("NaN")
	}
}

func TestSizersRefuseBadInput(t *testing.T) {
	t.Parallel()
	for _, config := range []lease.LearnerConfig{
		{MinSize: 0.5},
		{MinSize: 10, MaxSize: 9},
		{OrderCost: -1},
		{StrandPenalty: math.NaN()},
		{StepScale: math.Inf(1)},
		{Epsilon: -1},
		{MaxSize: math.Inf(1)},
		{InitialSize: math.NaN()},
		{InitialSize: -3},
	} {
		if _, err := lease.NewLearner(config); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%+v: %v", config, err)
		}
	}
	for _, config := range []lease.PredictorConfig{
		{}, {LearningRate: -1, Predict: func() float64 { return 1 }}, {LearnerConfig: lease.LearnerConfig{MinSize: -1}, Predict: func() float64 { return 1 }},
	} {
		if _, err := lease.NewPredictor(config); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%+v: %v", config.LearnerConfig, err)
		}
	}
	if lease.EOQ(1, 1, 0) != 0 || lease.EOQ(20, 1, 300) != math.Sqrt(12000) || lease.EOQ(1, 1, math.NaN()) != 0 {
		t.Error("EOQ")
	}
}

// fixed is a sizer that notes what it sees.
type fixed struct {
	size float64
	seen []float64
}

func (f *fixed) Size() float64          { return f.size }
func (f *fixed) Observe(demand float64) { f.seen = append(f.seen, demand) }

// A key's sizer sees what was served in each window, in order; the specification's §3 pins it.
func TestSizerSeesTheServedDemand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sizers := []*fixed{}
	l := w.twoTier(t, lease.TwoTierConfig{
		Strategy: second(1000), WindowCoupled: true,
		Sizer: func() lease.Sizer {
			sizers = append(sizers, &fixed{size: 7})
			return sizers[len(sizers)-1]
		},
	})
	sizers = nil // the one that was tried
	for window, n := range []int{20, 5, 40, 13, 1} {
		w.clock.Set(int64(window) * 1000)
		before := w.store.applied.Load()
		for range n {
			check(t, l, "k", 1)
		}
		if got, want := w.store.applied.Load()-before, int64((n+6)/7); got != want {
			t.Errorf("%d leases of 7 for %d requests, want %d", got, n, want)
		}
	}
	if len(sizers) != 1 || !slices.Equal(sizers[0].seen, []float64{20, 5, 40, 13}) {
		t.Fatalf("%d sizers, which saw %v", len(sizers), sizers[0].seen)
	}
	check(t, l, "other", 1)
	if len(sizers) != 2 || len(sizers[1].seen) != 0 {
		t.Error("keys do not learn from each other")
	}
}

func TestAdaptiveLeasesServeTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.twoTier(t, lease.TwoTierConfig{
		Strategy: second(1000), Batch: 50, WindowCoupled: true,
		Sizer: func() lease.Sizer { return learner(t, lease.LearnerConfig{OrderCost: 20, InitialSize: 50}) },
	})
	for window := range 6 {
		w.clock.Set(int64(window) * 1000)
		for i := range 300 {
			if !check(t, l, "k", 1).Allowed {
				t.Fatalf("window %d: request %d denied", window, i)
			}
		}
	}
	for window := range 6 {
		w.clock.Set(int64(window+10) * 1000)
		admitted := 0
		for range 1500 {
			if check(t, l, "k", 1).Allowed {
				admitted++
			}
		}
		if admitted != 1000 {
			t.Errorf("window %d: admitted %d of 1000", window, admitted)
		}
	}
}

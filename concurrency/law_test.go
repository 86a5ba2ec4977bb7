package concurrency

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

const ms = time.Millisecond

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-12*math.Abs(b) }

// TestWorkedNumbers holds the numbers that implementations agree on.
func TestWorkedNumbers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		config  Config
		samples []sample
		want    []float64
	}{
		{"a drop", Config{InitialLimit: 100}, []sample{{dropped: true, rtt: ms, inFlight: 1}}, []float64{92}},
		{
			"healthy growth",
			Config{},
			slices.Repeat([]sample{{rtt: 10 * ms, inFlight: 4}}, 3),
			[]float64{4.4, 4.4 + 0.2*math.Sqrt(4.4), 4.4 + 0.2*math.Sqrt(4.4) + 0.2*math.Sqrt(4.4+0.2*math.Sqrt(4.4))},
		},
		{
			"half in use grows, less does not, and a slow one is overlooked",
			Config{InitialLimit: 100},
			[]sample{{rtt: ms, inFlight: 50}, {rtt: ms, inFlight: 50}, {rtt: time.Second, inFlight: 50}},
			[]float64{102, 102, 102},
		},
		{
			"four times too slow",
			Config{InitialLimit: 100},
			[]sample{{rtt: 10 * ms, inFlight: 1}, {rtt: 80 * ms, inFlight: 100}, {rtt: 25 * ms, inFlight: 92}},
			[]float64{100, 92, 0.8*92 + 0.2*(0.8*92+math.Sqrt(92))},
		},
		{"no time seen to pass", Config{InitialLimit: 100}, []sample{{inFlight: 100}}, []float64{102}},
		{"aimd drop", Config{Algorithm: AIMD, InitialLimit: 100}, []sample{{dropped: true, inFlight: 1}}, []float64{90}},
		{
			"aimd drop by half",
			Config{Algorithm: AIMD, InitialLimit: 10, BackoffRatio: 0.5},
			[]sample{{dropped: true}, {dropped: true}},
			[]float64{5, 4},
		},
		{
			"aimd",
			Config{Algorithm: AIMD, InitialLimit: 10, MaxLimit: 11},
			[]sample{
				{rtt: ms, inFlight: 4},
				{rtt: ms, inFlight: 5},
				{rtt: 2 * ms, inFlight: 11},
				{rtt: 3 * ms, inFlight: 1},
				{inFlight: 5},
			},
			[]float64{10, 11, 11, 9, 10},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newTestLaw(t, c.config)
			for i, s := range c.samples {
				s.now = time.Duration(i) * time.Second
				if l.observe(&s); !near(l.estimate, c.want[i]) {
					t.Fatalf("after sample %d the estimate is %v, want %v", i, l.estimate, c.want[i])
				}
			}
		})
	}
	// Healthy growth again, as the numbers are published.
	l := newTestLaw(t, Config{})
	for _, want := range []string{"4.40000", "4.81952", "5.25859"} {
		l.observe(&sample{rtt: 10 * ms, inFlight: 4})
		if got := fmt.Sprintf("%.5f", l.estimate); got != want {
			t.Errorf("healthy growth reaches %s, want %s", got, want)
		}
	}
}

// textbook is the law as others have it: the window is over the last requests of any kind, failures
// included. Where all requests are alone and none fails, ours says the same.
type textbook struct {
	config   Config
	estimate float64
	rtts     []time.Duration
}

func (x *textbook) observe(s sample) {
	x.rtts = append(x.rtts, s.rtt)
	x.rtts = x.rtts[max(0, len(x.rtts)-x.config.RTTWindow):]
	noLoad, c := slices.Min(x.rtts), x.config
	used := 2*float64(s.inFlight) >= x.estimate
	if c.Algorithm == AIMD {
		if s.dropped || float64(s.rtt) > c.Tolerance*float64(noLoad) {
			x.estimate = max(float64(c.MinLimit), math.Floor(x.estimate*c.BackoffRatio))
		} else if used {
			x.estimate = min(float64(c.MaxLimit), x.estimate+1)
		}
		return
	}
	gamma := 1.0
	if s.dropped {
		gamma = 0.5
	} else if s.rtt > 0 {
		gamma = min(max(c.Tolerance*float64(noLoad)/float64(s.rtt), 0.5), 1)
	}
	if used || s.dropped {
		e := (1-c.Smoothing)*x.estimate + c.Smoothing*(gamma*x.estimate+math.Sqrt(x.estimate))
		x.estimate = min(max(e, float64(c.MinLimit)), float64(c.MaxLimit))
	}
}

func TestTheLawIsTheTextbooksWithoutLoadAndFailures(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		config := Config{
			Algorithm: []Algorithm{Gradient2, AIMD}[seed%2], RTTWindow: 1 + random.IntN(20), InitialLimit: 4 + random.IntN(100),
			Smoothing: 1 - random.Float64(), Tolerance: 1 + random.Float64()*3,
		}
		l := newTestLaw(t, config)
		x := &textbook{config: l.config, estimate: l.estimate}
		for i := range 500 {
			s := sample{now: time.Duration(i) * 50, alone: true, rtt: time.Duration(1 + random.IntN(50)), inFlight: 1 + random.IntN(100)}
			l.observe(&s)
			if x.observe(s); !near(l.estimate, x.estimate) || l.noLoad.least() != slices.Min(x.rtts) {
				t.Fatalf("seed %d, sample %d: %v with %v, the textbook says %v with %v",
					seed, i, l.estimate, l.noLoad.least(), x.estimate, slices.Min(x.rtts))
			}
		}
	}
}

func TestSlowRequestsLowerTheLimitOnceInARoundTrip(t *testing.T) {
	t.Parallel()
	for algorithm, want := range map[Algorithm][]float64{
		Gradient2: {92, 92, 0.9*92 + 0.2*math.Sqrt(92)},
		AIMD:      {90, 90, 81},
	} {
		l := newTestLaw(t, Config{Algorithm: algorithm, InitialLimit: 100})
		l.observe(&sample{now: 10 * ms, rtt: 10 * ms, inFlight: 1, alone: true})
		for i, now := range []time.Duration{100 * ms, 199 * ms, 200 * ms} {
			if l.observe(&sample{now: now, rtt: 100 * ms, inFlight: 100}); !near(l.estimate, want[i]) {
				t.Errorf("%s: at %v the estimate is %v, want %v", algorithm, now, l.estimate, want[i])
			}
		}
		before := l.estimate
		l.observe(&sample{now: 201 * ms, rtt: 15 * ms, inFlight: 99})
		if l.estimate <= before {
			t.Errorf("%s: a good one that began before the decrease does not count", algorithm)
		}
		before = l.estimate
		if l.observe(&sample{now: 201 * ms, rtt: 100 * ms, inFlight: 99, dropped: true}); l.estimate >= 0.95*before {
			t.Errorf("%s: a drop that began before the decrease does not count", algorithm)
		}
	}
}

// TestNoLoad compares the window with the minimum over a list of everything that was ever added.
func TestNoLoad(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		window, share := 1+random.IntN(12), random.Float64()
		n := newNoLoad(window)
		if n.least() != 0 {
			t.Fatal("a window without latencies knows a minimum")
		}
		var all []latency
		var number int64
		for i := range 1000 {
			rtt, alone := time.Duration(1+random.IntN(20)), random.Float64() < share
			before := n.least()
			switch {
			case random.IntN(100) == 0:
				all, alone = nil, true
				n.reset(rtt)
			default:
				n.add(rtt, alone)
			}
			if alone {
				number++
			} else if before != 0 && n.least() > before {
				t.Fatalf("seed %d, step %d: a latency under load raised the minimum from %v to %v", seed, i, before, n.least())
			}
			all = append(all, latency{number, rtt})
			want := time.Duration(math.MaxInt64)
			for _, a := range all {
				if a.number > number-int64(window) {
					want = min(want, a.rtt)
				}
			}
			if n.least() != want {
				t.Fatalf("seed %d, step %d: the minimum is %v, want %v", seed, i, n.least(), want)
			}
		}
	}
}

func TestLimitsStayInBounds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 3))
		least := 1 + random.IntN(10)
		config := Config{
			Algorithm: []Algorithm{Gradient2, AIMD}[seed%2], MinLimit: least, MaxLimit: least + random.IntN(50),
			Smoothing: 1 - random.Float64(), Tolerance: 1 + random.Float64(), BackoffRatio: 0.5 + random.Float64()/2,
			Recalibration: &Recalibration{Interval: 1000},
		}
		l := newTestLaw(t, config)
		var now time.Duration
		for range 2000 {
			now += time.Duration(random.IntN(20)) - 2 // at times backwards
			l.pass(now)
			l.observe(&sample{
				now: now, rtt: time.Duration(random.Int64N(1 << random.IntN(63))), inFlight: 1 + random.IntN(config.MaxLimit),
				alone: random.IntN(2) == 0, dropped: random.IntN(4) == 0,
			})
			if limit := l.limit(); limit < config.MinLimit || limit > config.MaxLimit || math.IsNaN(l.estimate) {
				t.Fatalf("seed %d: the limit is %d, of %d to %d", seed, limit, config.MinLimit, config.MaxLimit)
			}
			if c := l.ceiling(); c < 1 || c > l.limit() {
				t.Fatalf("seed %d: the ceiling is %d at a limit of %d", seed, c, l.limit())
			}
		}
	}
}

func TestFailuresDoNotMoveTheBaseline(t *testing.T) {
	t.Parallel()
	l := newTestLaw(t, Config{InitialLimit: 100})
	l.observe(&sample{rtt: 10 * ms, inFlight: 1, alone: true})
	for i := range 1000 {
		l.observe(&sample{rtt: time.Duration(i) * time.Microsecond, inFlight: 4, alone: true, dropped: true})
	}
	if got := l.noLoad.least(); got != 10*ms {
		t.Errorf("failures moved the latency without load to %v", got)
	}
	if !near(l.estimate, 4) {
		t.Errorf("after failures only the estimate is %v, want 4, where half of it is its square root", l.estimate)
	}
	l = newTestLaw(t, Config{InitialLimit: 100, MinLimit: 1})
	for range 1000 {
		l.observe(&sample{rtt: ms, inFlight: 1, dropped: true})
	}
	if !near(l.estimate, 4) {
		t.Errorf("with a lower minimum it is %v, want 4 as well", l.estimate)
	}
}

func TestRecalibration(t *testing.T) {
	t.Parallel()
	const second = time.Second
	l := newTestLaw(t, Config{InitialLimit: 100, Recalibration: &Recalibration{ProbeSamples: 2}})
	quiet := sample{rtt: 10 * ms, inFlight: 10}
	at := func(now time.Duration, s sample) { s.now = now; l.observe(&s) }
	at(59*second, quiet)
	if l.probing {
		t.Fatal("measures before the interval is over")
	}
	at(60*second, sample{rtt: ms, inFlight: 10, dropped: true})
	if l.probing {
		t.Fatal("a failure began a measurement")
	}
	at(60*second, quiet)
	if !l.probing || l.ceiling() != 4 || l.limit() != 92 {
		t.Fatalf("probing %v with ceiling %d and limit %d, want true, 4, 92", l.probing, l.ceiling(), l.limit())
	}
	at(61*second, quiet) // had company
	at(61*second, sample{rtt: 0, inFlight: 1, alone: true})
	at(61*second, sample{rtt: 30 * ms, inFlight: 100, alone: true})
	at(61*second, sample{rtt: ms, inFlight: 100, alone: true, dropped: true})
	if want := 0.8*92 + 0.2*(46+math.Sqrt(92)); !near(l.estimate, want) {
		t.Errorf("a drop during a measurement made the estimate %v, want %v", l.estimate, want)
	}
	if !l.probing {
		t.Fatal("one measured request was enough for two")
	}
	at(62*second, sample{rtt: 40 * ms, inFlight: 1, alone: true})
	if l.probing || l.noLoad.least() != 30*ms {
		t.Fatalf("probing %v and no load %v, want false and the least measured", l.probing, l.noLoad.least())
	}
	at(121*second, quiet)
	if l.probing {
		t.Error("the interval is not counted from the end of the last measurement")
	}
	at(122*second, quiet)
	if !l.probing {
		t.Fatal("no second measurement")
	}
	l.pass(128*second - 1)
	if !l.probing {
		t.Error("gave up before a tenth of the interval had passed")
	}
	l.pass(128 * second)
	if l.probing || l.noLoad.least() != 10*ms {
		t.Errorf("probing %v, no load %v; should have given up and kept 10ms", l.probing, l.noLoad.least())
	}
	if at(187*second, quiet); l.probing {
		t.Error("measures again too soon after giving up")
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		field  string
		config Config
	}{
		{"minLimit", Config{MinLimit: -1}},
		{"minLimit", Config{MinLimit: most + 1, MaxLimit: most + 1}},
		{"maxLimit", Config{MaxLimit: 3}},
		{"maxLimit", Config{MaxLimit: most + 1}},
		{"initialLimit", Config{InitialLimit: 3}},
		{"initialLimit", Config{InitialLimit: 513}},
		{"algorithm", Config{Algorithm: "vegas\x1b"}},
		{"rttWindow", Config{RTTWindow: -1}},
		{"rttWindow", Config{RTTWindow: most + 1}},
		{"smoothing", Config{Smoothing: -0.1}},
		{"smoothing", Config{Smoothing: 1.1}},
		{"smoothing", Config{Smoothing: nan}},
		{"tolerance", Config{Tolerance: 0.9}},
		{"tolerance", Config{Tolerance: nan}},
		{"tolerance", Config{Tolerance: inf}},
		{"backoffRatio", Config{BackoffRatio: 0.4}},
		{"backoffRatio", Config{BackoffRatio: 1}},
		{"backoffRatio", Config{BackoffRatio: nan}},
		{"queue", Config{Queue: -1}},
		{"queue", Config{Queue: most + 1}},
		{"recalibration.interval", Config{Recalibration: &Recalibration{Interval: -1}}},
		{"recalibration.probeLimit", Config{Recalibration: &Recalibration{ProbeLimit: -1}}},
		{"recalibration.probeLimit", Config{Recalibration: &Recalibration{ProbeLimit: 513}}},
		{"recalibration.probeSamples", Config{Recalibration: &Recalibration{ProbeSamples: -1}}},
	} {
		g, err := NewGuard(c.config)
		var invalid *throttlekit.InvalidError
		if g != nil || !errors.Is(err, throttlekit.ErrInvalid) || !errors.As(err, &invalid) || invalid.Field != c.field {
			t.Errorf("%+v: %v, want an error about %s", c.config, err, c.field)
		} else if strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%q carries a control character", err)
		}
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{
			Config{MaxLimit: 3, InitialLimit: most + 1},
			"maxLimit must be an integer from 4 (the default of minLimit) to 1000000, got 3\n" +
				"initialLimit must be an integer from 1 to 1000000, got 1000001",
		},
		{Config{MinLimit: 600}, "maxLimit must be an integer from 600 to 1000000, got 512"},
		{Config{MinLimit: -1}, "minLimit must be an integer from 1 to 1000000, got -1"},
		{
			Config{MinLimit: 2, MaxLimit: 1, InitialLimit: 5, Recalibration: &Recalibration{ProbeLimit: 3}},
			"maxLimit must be an integer from 2 to 1000000, got 1",
		},
		{
			Config{InitialLimit: 3, Recalibration: &Recalibration{ProbeLimit: 513}},
			"initialLimit must be an integer from 4 (the default of minLimit) to 512 (the default of maxLimit), got 3\n" +
				"recalibration.probeLimit must be an integer from 1 to 512 (the default of maxLimit), got 513",
		},
	} {
		if _, err := NewGuard(c.config); fmt.Sprint(err) != c.want {
			t.Errorf("%+v: got\n%v\nwant\n%s", c.config, err, c.want)
		}
	}
	_, err := NewGuard(Config{MinLimit: -1, Smoothing: 2})
	if text := fmt.Sprint(err); !strings.Contains(text, "minLimit") || !strings.Contains(text, "smoothing") {
		t.Errorf("%q does not name all that is wrong", text)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := Config{Recalibration: &Recalibration{}}.complete()
	if err != nil {
		t.Fatal(err)
	}
	if c.Recalibration == nil || *c.Recalibration != (Recalibration{Interval: time.Minute, ProbeLimit: 4, ProbeSamples: 5}) {
		t.Errorf("recalibration defaults to %+v", c.Recalibration)
	}
	if c.Elapsed == nil {
		t.Error("no clock")
	}
	c.Elapsed, c.Recalibration = nil, nil
	want := fmt.Sprint(Config{
		MinLimit: 4, MaxLimit: 512, InitialLimit: 4, Algorithm: Gradient2, RTTWindow: 100, Smoothing: 0.2, Tolerance: 2, BackoffRatio: 0.9,
	})
	if got := fmt.Sprint(c); got != want {
		t.Errorf("the defaults are %s, want %s", got, want)
	}
	given := &Recalibration{}
	if _, err := (Config{Recalibration: given}).complete(); err != nil || *given != (Recalibration{}) {
		t.Errorf("the caller's value became %+v, with %v", *given, err)
	}
}

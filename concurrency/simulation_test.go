package concurrency

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// phase is a part of a simulation in which traffic and backend stay as they are. The backend has so
// many workers, each of which serves one request at a time, first come, first served.
type phase struct {
	lasts    time.Duration
	rate     float64 // requests per second, at random times
	burst    int     // arrive at the same moment, 0 for 1
	workers  int
	service  time.Duration // on average, at least nine tenths of it
	fails    bool          // every request fails within a millisecond
	spikes   float64       // share of requests that take ten times as long
	canceled float64       // share of requests that end at once by cancel
}

// capacity is how many requests per second the backend serves.
func (p phase) capacity() float64 { return float64(p.workers) / p.service.Seconds() }

// result is what happened in one phase.
type result struct {
	least, most, final int // limits; least and most over the second half
	served, offered    int
	noLoad             time.Duration
}

// guarded is what a simulation drives: a Guard or the textbook.
type guarded interface {
	begin() (end func(ending), ok bool)
	limits() (limit int, noLoad time.Duration)
}

type ours struct{ *Guard }

func (o ours) begin() (func(ending), bool) {
	p := o.TryAcquire()
	return p.end, p.Allowed
}

func (o ours) limits() (int, time.Duration) {
	s := o.Stats()
	return s.Limit, s.NoLoad
}

// textbooks is a guard by the textbook, which has no cancel.
type textbooks struct {
	textbook

	clock    *watch
	inFlight int
}

func (x *textbooks) begin() (func(ending), bool) {
	if x.inFlight >= int(x.estimate) {
		return nil, false
	}
	x.inFlight++
	start, used := x.clock.now, x.inFlight
	return func(how ending) {
		x.inFlight--
		x.observe(sample{rtt: x.clock.now - start, inFlight: used, dropped: how == dropped})
	}, true
}

func (x *textbooks) limits() (int, time.Duration) { return int(x.estimate), 0 }

// event is what happens at a time; events of the same time happen in the order in which they were planned.
type event struct {
	at   time.Duration
	turn int
	act  func()
}

type events []event

func (e *events) Len() int { return len(*e) }
func (e *events) Less(i, j int) bool {
	a, b := (*e)[i], (*e)[j]
	return a.at < b.at || a.at == b.at && a.turn < b.turn
}
func (e *events) Swap(i, j int) { (*e)[i], (*e)[j] = (*e)[j], (*e)[i] }
func (e *events) Push(x any)    { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// world is one simulation.
type world struct {
	clock  watch
	random *rand.Rand
	todo   events
	turn   int
	now    phase
	busy   int
	line   []func(ending) // requests that wait for a worker of the backend
	result result
}

func (w *world) plan(after time.Duration, act func()) {
	w.turn++
	heap.Push(&w.todo, event{w.clock.now + after, w.turn, act})
}

// work lets idle workers take what waits in the line.
func (w *world) work() {
	for w.busy < w.now.workers && len(w.line) > 0 {
		end := w.line[0]
		w.line = w.line[1:]
		w.busy++
		service := time.Duration(float64(w.now.service) * (0.9 + 0.1*w.random.ExpFloat64()))
		if w.random.Float64() < w.now.spikes {
			service *= 10
		}
		w.plan(service, func() {
			end(released)
			w.result.served++
			w.busy--
			w.work()
		})
	}
}

func (w *world) arrive(g guarded) {
	w.result.offered++
	end, ok := g.begin()
	switch {
	case !ok:
	case w.random.Float64() < w.now.canceled:
		end(canceled)
	case w.now.fails:
		w.plan(time.Duration(w.random.IntN(int(ms))), func() { end(dropped) })
	default:
		w.line = append(w.line, end)
		w.work()
	}
}

// simulate runs a guard through phases.
func simulate(seed uint64, guard func(clock *watch) guarded, phases ...phase) []result {
	w := &world{random: rand.New(rand.NewPCG(seed, 6))}
	g := guard(&w.clock)
	results := []result{}
	var until time.Duration
	var next func()
	next = func() {
		burst := max(1, w.now.burst)
		w.plan(time.Duration(w.random.ExpFloat64()*float64(burst)*float64(time.Second)/w.now.rate), func() {
			for range burst {
				w.arrive(g)
			}
			next()
		})
	}
	for i, p := range phases {
		w.now, w.result, until = p, result{}, until+p.lasts
		if i == 0 {
			next()
		}
		w.work()
		half := until - p.lasts/2
		for len(w.todo) > 0 && w.todo[0].at <= until {
			e, _ := heap.Pop(&w.todo).(event)
			w.clock.now = e.at
			e.act()
			if limit, _ := g.limits(); e.at >= half {
				w.result.most = max(w.result.most, limit)
				if w.result.least == 0 || limit < w.result.least {
					w.result.least = limit
				}
			}
		}
		w.result.final, w.result.noLoad = g.limits()
		results = append(results, w.result)
	}
	return results
}

func guardWith(tb testing.TB, config Config) func(*watch) guarded {
	tb.Helper()
	return func(clock *watch) guarded {
		config.Elapsed = clock.elapsed
		return ours{newTestGuard(tb, config)}
	}
}

func textbookWith(tb testing.TB, config Config) func(*watch) guarded {
	tb.Helper()
	c := newTestLaw(tb, config).config
	return func(clock *watch) guarded {
		return &textbooks{textbook: textbook{config: c, estimate: float64(c.InitialLimit)}, clock: clock}
	}
}

// healthy is a backend that serves 4000 requests per second, at a load.
func healthy(lasts time.Duration, load float64) phase {
	p := phase{lasts: lasts, workers: 40, service: 10 * ms}
	p.rate = load * p.capacity()
	return p
}

var algorithms = []Algorithm{Gradient2, AIMD}

// variants are both algorithms, each with a few seeds.
func variants(yield func(algorithm Algorithm, seed uint64) bool) {
	for _, algorithm := range algorithms {
		for seed := range uint64(2) {
			if !yield(algorithm, seed) {
				return
			}
		}
	}
}

// between fails unless a limit stayed where it should.
func between(t *testing.T, what string, r result, least, most int) {
	t.Helper()
	if r.least < least || r.most > most {
		t.Errorf("%s: the limit was from %d to %d, want it within %d and %d; %+v", what, r.least, r.most, least, most, r)
	}
}

func serves(t *testing.T, what string, p phase, r result, share float64) {
	t.Helper()
	want := share * min(p.capacity(), p.rate*(1-p.canceled)) * p.lasts.Seconds()
	if float64(r.served) < want {
		t.Errorf("%s: served %d of %d, want at least %.0f; %+v", what, r.served, r.offered, want, r)
	}
}

// TestStandingOverload asks for a fifth more than the backend can serve, for a long time. The queue
// that stands then must not become the new normal, so that the limit goes up and up.
func TestStandingOverload(t *testing.T) {
	t.Parallel()
	for algorithm, seed := range variants {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			p := healthy(15*time.Second, 1.2)
			r := simulate(seed, guardWith(t, Config{Algorithm: algorithm}), p)[0]
			between(t, "overload", r, 40, 170)
			serves(t, "overload", p, r, 0.95)
			if x := simulate(seed, textbookWith(t, Config{Algorithm: algorithm}), p)[0]; x.most < 300 {
				t.Errorf("the textbook's limit stayed at %d: this simulation shows nothing", x.most)
			}
		})
	}
}

// TestLongIncident takes nine tenths of the backend away for half a minute and gives them back.
func TestLongIncident(t *testing.T) {
	t.Parallel()
	for algorithm, seed := range variants {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			for _, recalibration := range []*Recalibration{nil, {Interval: 10 * time.Second}} {
				incident := healthy(30*time.Second, 1.2)
				incident.workers = 4
				after := healthy(5*time.Second, 1.2)
				r := simulate(seed, guardWith(t, Config{Algorithm: algorithm, Recalibration: recalibration}),
					healthy(5*time.Second, 1.2), incident, after)
				between(t, "incident", r[1], 4, 20)
				serves(t, "incident", incident, r[1], 0.9)
				between(t, "recovery", r[2], 40, 170)
				serves(t, "recovery", after, r[2], 0.9)
				if r[2].noLoad > 11*ms {
					t.Errorf("after the incident the latency without load is %v", r[2].noLoad)
				}
			}
		})
	}
}

// TestStorm lets every request fail, quickly, for a while.
func TestStorm(t *testing.T) {
	t.Parallel()
	for algorithm, seed := range variants {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			for _, recalibration := range []*Recalibration{nil, {Interval: 500 * ms}} {
				storm := healthy(10*time.Second, 1.2)
				storm.fails = true
				after := healthy(5*time.Second, 1.2)
				config := Config{Algorithm: algorithm, Recalibration: recalibration}
				r := simulate(seed, guardWith(t, config), healthy(5*time.Second, 1.2), storm, after)
				between(t, "storm", r[1], 4, 4)
				if r[1].noLoad < 9*ms {
					t.Errorf("failures made the latency without load %v", r[1].noLoad)
				}
				between(t, "recovery", r[2], 40, 170)
				serves(t, "recovery", after, r[2], 0.9)
			}
		})
	}
}

// TestLowUtilisation has little to do for a long time, while some requests take ten times as long.
// The limit must neither grow unused nor be taken away by latencies that load did not cause, and a
// rush that follows must be served.
func TestLowUtilisation(t *testing.T) {
	t.Parallel()
	for algorithm, seed := range variants {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			quiet := healthy(time.Minute, 0.05)
			quiet.spikes = 0.02
			rush := healthy(5*time.Second, 1.2)
			r := simulate(seed, guardWith(t, Config{Algorithm: algorithm}), healthy(5*time.Second, 1.2), quiet, rush)
			if algorithm == Gradient2 {
				between(t, "quiet", r[1], r[0].final*3/4, r[0].final*5/4)
				if r[1].least != r[1].most {
					t.Errorf("quiet: the limit moved from %d to %d", r[1].least, r[1].most)
				}
			} else {
				between(t, "quiet", r[1], 4, r[0].final) // it takes every slow request seriously
			}
			serves(t, "quiet", quiet, r[1], 0.98)
			between(t, "rush", r[2], 40, 170)
			serves(t, "rush", rush, r[2], 0.95)

			unused := simulate(seed, guardWith(t, Config{Algorithm: algorithm}), healthy(time.Minute, 0.05))[0]
			between(t, "never used", unused, 4, 30)
		})
	}
}

// TestCanceledBursts mixes bursts with requests that are refused elsewhere, by a rate limit for
// instance, and end at once. They must not look like a fast backend.
func TestCanceledBursts(t *testing.T) {
	t.Parallel()
	for algorithm, seed := range variants {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			p := healthy(10*time.Second, 2.4)
			p.burst, p.canceled = 10, 0.5
			config := Config{Algorithm: algorithm}
			r := simulate(seed, guardWith(t, config), p)[0]
			between(t, "bursts", r, 40, 170)
			serves(t, "bursts", p, r, 0.9)
			if r.noLoad < 9*ms {
				t.Errorf("canceled requests made the latency without load %v", r.noLoad)
			}
			if x := simulate(seed, textbookWith(t, config), p)[0]; x.least > 10 {
				t.Errorf("the textbook's limit stayed at %d: this simulation shows nothing", x.least)
			}
		})
	}
}

// TestRisenFloor makes every request take three times as long for good, by a backend with as many
// more workers, so that three times as many in flight are right. Only a recalibration can see that.
func TestRisenFloor(t *testing.T) {
	t.Parallel()
	risen := healthy(20*time.Second, 1.2)
	risen.workers, risen.service = 3*risen.workers, 3*risen.service
	for seed := range uint64(2) {
		config := Config{Recalibration: &Recalibration{Interval: 5 * time.Second}}
		r := simulate(seed, guardWith(t, config), healthy(5*time.Second, 1.2), risen)[1]
		between(t, "with recalibration", r, 120, 500)
		serves(t, "with recalibration", risen, r, 0.8)
		config.Recalibration = nil
		if r := simulate(seed, guardWith(t, config), healthy(5*time.Second, 1.2), risen)[1]; r.most > 12 {
			t.Errorf("without recalibration the limit was %d: this simulation shows nothing", r.most)
		}
	}
}

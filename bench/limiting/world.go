package main

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
)

// sampling is from one look at the limit to the next.
const sampling = 200 * time.Millisecond

// outcome is how a phase went.
type outcome struct {
	least, most int // limits over the second half
	served      int
	share       float64       // of what could have been served
	latency     time.Duration // on average
}

// event is what happens at a time; events of the same time happen in the order in which they were planned.
type event struct {
	at   time.Duration
	turn int
	then func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].turn < a[j].turn
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any) {
	e, _ := x.(event)
	*a = append(*a, e)
}

func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// world is one simulation.
type world struct {
	now    time.Duration
	random *rand.Rand
	todo   agenda
	turn   int
	guard  guard
	phase  *phase
	busy   int
	line   []request // those that wait for a worker
	served int
	spent  time.Duration // in those that were served
}

type request struct {
	began time.Duration
	end   func(ending)
}

func (w *world) plan(after time.Duration, then func()) {
	w.turn++
	heap.Push(&w.todo, event{w.now + after, w.turn, then})
}

// run drives a guard through the phases. It returns how each went, and the limit at each sample.
func (c *scenario) run(seed uint64, algorithm concurrency.Algorithm, guards contender) ([]outcome, []float64, error) {
	w := &world{random: rand.New(rand.NewPCG(seed, 6)), phase: &c.phases[0]} //nolint:gosec // a simulation, not a secret
	var err error
	w.guard, err = guards.make(concurrency.Config{Algorithm: algorithm, Recalibration: c.recalibration},
		func() time.Duration { return w.now })
	if err != nil {
		return nil, nil, err
	}
	var line []float64
	for at := range c.samples() {
		w.plan(at, func() { line = append(line, float64(w.guard.limit())) })
	}
	w.traffic()
	var outcomes []outcome
	var until time.Duration
	for i := range c.phases {
		w.phase, until = &c.phases[i], until+c.phases[i].lasts
		outcomes = append(outcomes, w.pass(until))
	}
	return outcomes, line, nil
}

// pass lets a phase pass.
func (w *world) pass(until time.Duration) (o outcome) {
	w.served, w.spent = 0, 0
	half := until - w.phase.lasts/2
	w.work()
	for len(w.todo) > 0 && w.todo[0].at < until {
		e, _ := heap.Pop(&w.todo).(event)
		w.now = e.at
		e.then()
		if w.now >= half {
			limit := w.guard.limit()
			o.most = max(o.most, limit)
			if o.least == 0 || limit < o.least {
				o.least = limit
			}
		}
	}
	o.served = w.served
	if w.served > 0 {
		o.latency = w.spent / time.Duration(w.served)
	}
	if possible := w.phase.possible(); possible > 0 {
		o.share = float64(w.served) / possible
	}
	return o
}

// traffic plans what comes next, for ever.
func (w *world) traffic() {
	burst := max(1, w.phase.burst)
	w.plan(time.Duration(w.random.ExpFloat64()*float64(burst)*float64(time.Second)/w.phase.rate), func() {
		for range burst {
			w.arrive()
		}
		w.traffic()
	})
}

func (w *world) arrive() {
	end, ok := w.guard.begin()
	switch {
	case !ok:
	case w.random.Float64() < w.phase.canceled:
		end(canceled)
	case w.phase.fails:
		w.plan(time.Duration(w.random.IntN(int(time.Millisecond))), func() { end(dropped) })
	default:
		w.line = append(w.line, request{w.now, end})
		w.work()
	}
}

// work lets idle workers take what waits in the line.
func (w *world) work() {
	for w.busy < w.phase.workers && len(w.line) > 0 {
		r := w.line[0]
		w.line = w.line[1:]
		w.busy++
		service := time.Duration(float64(w.phase.service) * (0.9 + 0.1*w.random.ExpFloat64()))
		if w.random.Float64() < w.phase.spikes {
			service *= 10
		}
		w.plan(service, func() {
			r.end(released)
			w.served++
			w.spent += w.now - r.began
			w.busy--
			w.work()
		})
	}
}

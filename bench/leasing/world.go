package main

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

// conditions are what the fleet has to live with. Times are those of a real clock that
// nobody in the fleet can read.
type conditions struct {
	seed        uint64
	span        time.Duration
	low, high   float64       // requests per second, all nodes together, by turns
	swing       time.Duration // how long each of the two lasts
	latency     time.Duration // mean of one way beyond the shortest one
	shortest    time.Duration
	slow        float64 // share of messages that take ten times as long
	loss        float64 // share of messages that never arrive
	connected   time.Duration
	cut         time.Duration // means of how long a node is connected, and cut off
	alive       time.Duration // mean of how long a node lives; it comes back without its memory
	restart     time.Duration
	patience    time.Duration // how long a node waits for an answer
	offset      time.Duration // wall and monotonic clocks are off by up to this
	driftPPM    float64       // and run fast or slow by up to this
	storeOffset time.Duration
}

func harsh(seed uint64, span time.Duration) conditions {
	return conditions{
		seed: seed, span: span, low: 0.3 * limit, high: 3 * limit, swing: 1300 * time.Millisecond,
		latency: 8 * time.Millisecond, shortest: 2 * time.Millisecond, slow: 0.01, loss: 0.02,
		connected: 5 * time.Second, cut: 500 * time.Millisecond, alive: 15 * time.Second, restart: 200 * time.Millisecond,
		patience: 250 * time.Millisecond, offset: 10 * time.Second, driftPPM: throttlekit.Drift, storeOffset: 1_234_000 * time.Millisecond,
	}
}

// outcome is what a run came to.
type outcome struct {
	offered, admitted, trips int
	// used is what was admitted as a share of what one limiter would have admitted that
	// hears of every request at once.
	used float64
	// over is by how many units the worst window, or the worst moment of a bucket, exceeded the limit.
	over float64
}

type event struct {
	at   time.Duration
	then func()
	seq  int
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) } //nolint:forcetypeassert,errcheck // heap.Push is only called below
func (a *agenda) Pop() any     { old := *a; last := old[len(old)-1]; *a = old[:len(old)-1]; return last }

// world runs one fleet. It is a discrete-event simulation around the real transitions and
// the real spenders.
type world struct {
	conditions

	mode     mode
	batch    int64
	random   *rand.Rand
	agenda   agenda
	now      time.Duration
	seq      int
	charge   throttlekit.Transition
	record   throttlekit.Record
	ideal    ideal
	nodes    []*node
	share    []float64 // cumulative weights of the nodes
	admitted []time.Duration
	outcome  outcome
}

// ideal is the limiter that hears of every request at once.
type ideal struct {
	rule     throttlekit.Rule
	record   throttlekit.Record
	admitted int
}

// node is one process. Everything in it is lost when it crashes.
type node struct {
	spender  lease.Spender
	sizer    lease.Sizer
	served   float64
	window   int64
	waiting  []time.Duration // when they came
	flight   int             // the request that is under way, or 0
	sent     int64           // when it was sent, on the node's clock in milliseconds
	life     int             // which one it is
	down     bool
	offset   time.Duration
	rate     float64
	cutFrom  time.Duration
	cutUntil time.Duration
}

func newWorld(m mode, n int, c conditions) (*world, error) {
	rule, err := m.charged.Rule()
	if err != nil {
		return nil, err
	}
	perfect, err := m.limit.Rule()
	if err != nil {
		return nil, err
	}
	w := &world{conditions: c, mode: m, batch: batchFor(n), charge: throttlekit.UpTo(rule, 1)}
	w.random = rand.New(rand.NewPCG(c.seed, uint64(n))) //nolint:gosec // a simulation has to repeat
	w.ideal.rule = perfect
	if m.strict {
		w.charge, w.batch = rule, 1
	}
	total := 0.0
	for i := range n {
		total += 1 / math.Sqrt(float64(i+1)) // a few nodes are hot
		w.share = append(w.share, total)
		x := &node{
			offset: time.Duration((2*w.random.Float64() - 1) * float64(c.offset)),
			rate:   1 + (2*w.random.Float64()-1)*c.driftPPM/1e6,
		}
		if x.sizer, err = m.sizer(n); err != nil {
			return nil, err
		}
		if err := x.forget(); err != nil {
			return nil, err
		}
		w.nodes = append(w.nodes, x)
		w.cutAfter(x)
		w.crashAfter(x)
	}
	return w, nil
}

// forget starts the node's memory anew.
func (x *node) forget() error {
	s, err := lease.NewSpender(lease.SpenderConfig{Limit: int64(limit)})
	x.spender, x.waiting, x.flight = s, nil, 0
	x.life++
	return err
}

func (w *world) after(d time.Duration, then func()) {
	w.seq++
	heap.Push(&w.agenda, event{at: w.now + max(0, d), then: then, seq: w.seq})
}

func (w *world) around(mean time.Duration) time.Duration {
	return time.Duration(w.random.ExpFloat64() * float64(mean))
}

// millis is what the node's clock shows.
func (w *world) millis(x *node) int64 {
	return int64(math.Floor((float64(x.offset+20*time.Second) + float64(w.now)*x.rate) / float64(time.Millisecond)))
}

func (w *world) storeMillis(at time.Duration) int64 { return (at + w.storeOffset).Milliseconds() }

func (w *world) cutAfter(x *node) {
	w.after(w.around(w.connected), func() {
		x.cutFrom, x.cutUntil = w.now, w.now+w.around(w.cut)
		w.after(x.cutUntil-w.now, func() { w.cutAfter(x) })
	})
}

func (w *world) crashAfter(x *node) {
	w.after(w.around(w.alive), func() {
		x.down = true
		_ = x.forget()
		w.after(w.restart, func() {
			x.down = false
			w.crashAfter(x)
		})
	})
}

// message delivers something to or from a node, or does not.
func (w *world) message(x *node, then func()) {
	d := w.shortest + w.around(w.latency)
	if w.random.Float64() < w.slow {
		d *= 10
	}
	cut := w.now >= x.cutFrom && w.now < x.cutUntil
	if !cut && w.random.Float64() >= w.loss {
		w.after(d, then)
	}
}

func (w *world) run() outcome {
	w.arrive()
	for len(w.agenda) > 0 {
		e := heap.Pop(&w.agenda).(event) //nolint:forcetypeassert,errcheck // it holds nothing else
		if e.at > w.span {
			break
		}
		w.now = e.at
		e.then()
	}
	w.outcome.admitted = len(w.admitted)
	slices.Sort(w.admitted)
	w.outcome.over = w.judge()
	w.outcome.used = float64(w.outcome.admitted) / float64(max(1, w.ideal.admitted))
	return w.outcome
}

// arrive brings one request and the next one after it.
func (w *world) arrive() {
	rate := w.low
	if w.now/w.swing%2 == 1 {
		rate = w.high
	}
	w.after(time.Duration(w.random.ExpFloat64()/rate*float64(time.Second)), w.arrive)
	at := w.random.Float64() * w.share[len(w.share)-1]
	i, _ := slices.BinarySearch(w.share, at)
	x := w.nodes[i]
	if x.down {
		return
	}
	w.outcome.offered++
	if next, d, ttl := w.ideal.rule.Apply(w.ideal.record, w.storeMillis(w.now), 1); d.Allowed && ttl > 0 {
		w.ideal.record, w.ideal.admitted = next, w.ideal.admitted+1
	}
	switch {
	case w.mode.strict:
		w.ask(x)
	case w.spend(x):
		w.admitted = append(w.admitted, w.now)
	default:
		x.waiting = append(x.waiting, w.now)
		w.lease(x)
	}
}

// ask puts one request to the store, which is strict mode.
func (w *world) ask(x *node) {
	w.message(x, func() {
		if d := w.apply(1); d.Allowed {
			decided := w.now
			w.message(x, func() { w.admitted = append(w.admitted, decided) })
		}
	})
}

func (w *world) apply(cost int64) throttlekit.Decision {
	w.outcome.trips++
	next, d, ttl := w.charge.Apply(w.record, w.storeMillis(w.now), float64(cost))
	if ttl > 0 {
		w.record = next
	}
	return d
}

func (w *world) spend(x *node) bool {
	d, ok := x.spender.Spend(w.millis(x), 1)
	if !ok {
		return false
	}
	x.served++
	if d.Remaining < w.batch/4 {
		w.lease(x)
	}
	return true
}

// lease asks for a batch, unless that is under way.
func (w *world) lease(x *node) {
	if x.flight != 0 {
		return
	}
	wants := w.batch
	if x.sizer != nil {
		if now := w.millis(x) / window.Milliseconds(); now != x.window {
			x.sizer.Observe(x.served)
			x.window, x.served = now, 0
		}
		wants = int64(x.sizer.Size())
	}
	w.seq++
	flight, life := w.seq, x.life
	x.flight, x.sent = flight, w.millis(x)
	mine := func() bool { return x.life == life && x.flight == flight }
	w.message(x, func() {
		d, decided := w.apply(wants), w.now
		w.message(x, func() {
			if mine() {
				w.land(x, d, decided)
			}
		})
	})
	w.after(w.patience, func() {
		if mine() {
			x.flight, x.waiting = 0, nil
		}
	})
}

// land credits a grant as lease.Holder does: who asked is served first, by what was charged
// for it; the others by what is still good now.
func (w *world) land(x *node, d throttlekit.Decision, decided time.Duration) {
	x.flight = 0
	waiting := x.waiting
	x.waiting = nil
	if !d.Allowed {
		return
	}
	if len(waiting) == 0 {
		x.spender.Grant(float64(d.Remaining), w.expires(x, d))
		return
	}
	w.admitted = append(w.admitted, decided)
	x.served++
	x.spender.Grant(float64(d.Remaining-1), w.expires(x, d))
	for i := range waiting[1:] {
		if !w.spend(x) {
			x.waiting = waiting[1+i:]
			w.lease(x)
			return
		}
		w.admitted = append(w.admitted, w.now)
	}
}

// expires is when a grant ends on the node's clock.
func (w *world) expires(x *node, d throttlekit.Decision) int64 {
	if w.mode.wall {
		// The node's own wall clock, which is wrong by its offset, says when the window ends.
		return x.sent + d.ResetAtMillis - w.storeMillis(w.now+x.offset)
	}
	lasts := w.mode.lasts(time.Duration(d.RetryAfterMillis) * time.Millisecond)
	if lasts == 0 {
		return math.MaxInt64
	}
	return x.sent + throttlekit.Usable(lasts).Milliseconds()
}

package concurrency

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// Priority orders those who wait. The lower ones are served when none of the higher ones waits.
type Priority int

// The priorities. Normal is the zero value.
const (
	Low Priority = iota - 1
	Normal
	High
)

const priorities = 3

// Guard limits how many requests are in flight, by a limit that it learns. See the package's
// documentation for what it promises. It is safe for concurrent use.
type Guard struct {
	// What every permit writes comes first and fits a cache line, up to law.noLoad.ring: between
	// CPUs that share a guard, most of what a permit costs is lines that must change hands.
	mu       sync.Mutex
	inFlight int
	serial   uint64
	free     int32 // the first free place in slots, or none
	closed   bool
	law      law
	part     part
	slots    []slot
	busy     uint64 // permits up to this serial have had company beyond idle
	waiting  int
	queues   [priorities]list.List

	elapsed func() time.Duration
	idle    int // up to how many in flight the backend counts as without load
	queue   int
}

// slot is a permit in flight, or is free.
type slot struct {
	serial   uint64 // 0 for none
	start    time.Duration
	inFlight int32
	next     int32 // free place, or none
}

const none = -1

// waiter waits for a permit in one of the queues, and is served or left to close.
type waiter struct {
	done   chan struct{}
	permit Permit // once done; refused if the guard was closed
}

// Stats is what a [Guard] knows at one moment.
type Stats struct {
	// Limit is how many may be in flight, also during a recalibration, which lets fewer.
	Limit int
	// InFlight is how many are; above Limit for a while after the limit has fallen.
	InFlight int
	// Waiting is how many callers wait for a permit.
	Waiting int
	// NoLoad is the latency without load, 0 before it is known.
	NoLoad time.Duration
	// Last is how long the latest request took that was released or dropped.
	Last time.Duration
}

// NewGuard returns a guard. The error matches [throttlekit.ErrInvalid] and names every field that
// breaks a rule.
func NewGuard(config Config) (*Guard, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	return &Guard{
		elapsed: config.Elapsed,
		idle:    config.probeLimit(),
		free:    none,
		queue:   config.Queue,
		law:     newLaw(config, config.Elapsed()),
		part:    part{slots: unlimited, until: never},
	}, nil
}

// TryAcquire asks for a permit and never waits. A guard that is closed refuses.
func (g *Guard) TryAcquire() (p Permit) {
	now := g.elapsed()
	g.mu.Lock()
	g.try(&p, now)
	g.mu.Unlock()
	return p
}

// Acquire asks for a permit. If all are taken, it waits as long as ctx allows, provided that there
// is room in the queue; otherwise the permit is refused, which is no error. The error is that of
// ctx, or [throttlekit.ErrClosed]; then there is no permit to end.
func (g *Guard) Acquire(ctx context.Context) (Permit, error) {
	return g.AcquirePriority(ctx, Normal)
}

// AcquirePriority is Acquire with a place in the queue of a priority. A priority other than Low,
// Normal and High is an error that matches [throttlekit.ErrInvalid].
func (g *Guard) AcquirePriority(ctx context.Context, priority Priority) (p Permit, err error) {
	if priority < Low || priority > High {
		return p, &throttlekit.InvalidError{Field: "priority", Value: int(priority), Rule: "must be Low, Normal or High"}
	}
	if err := ctx.Err(); err != nil {
		return p, err
	}
	now := g.elapsed()
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return p, throttlekit.ErrClosed
	}
	g.try(&p, now)
	queue := &g.queues[priority-Low]
	if p.Allowed || queue.Len() >= g.queue {
		g.mu.Unlock()
		return p, nil
	}
	w := &waiter{done: make(chan struct{})}
	place := queue.PushBack(w)
	g.waiting++
	g.mu.Unlock()

	select {
	case <-w.done:
	case <-ctx.Done():
		g.leave(queue, place)
	}
	if err := ctx.Err(); err != nil {
		w.permit.Cancel() // it may have been served at the same moment
		return Permit{}, err
	}
	if !w.permit.Allowed {
		return Permit{}, throttlekit.ErrClosed
	}
	return w.permit, nil
}

// leave takes a waiter out of its queue, if it is still there.
func (g *Guard) leave(queue *list.List, place *list.Element) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := queue.Len()
	queue.Remove(place)
	g.waiting -= before - queue.Len()
}

// try gives a permit if there is one, or says why not. Nobody who waits is passed over: whoever
// could be served has been. Permits are written in place, for copies of them are what costs most here.
func (g *Guard) try(p *Permit, now time.Duration) {
	if g.law.probing {
		g.law.pass(now)
		g.serve(now)
	}
	limit := g.ceiling(now)
	if g.inFlight >= limit || g.closed {
		p.Limit, p.InFlight = limit, g.inFlight
		g.part.refused(g.inFlight)
		return
	}
	g.grant(p, now, limit)
}

// ceiling is how many may be in flight.
func (g *Guard) ceiling(now time.Duration) int {
	if now >= g.part.until {
		return 0
	}
	return min(g.law.ceiling(), g.part.slots)
}

// grant gives a permit.
func (g *Guard) grant(p *Permit, now time.Duration, limit int) {
	g.inFlight++
	g.serial++
	if g.inFlight > g.idle {
		g.busy = g.serial // and so had all who are in flight now
	}
	i := g.free
	if i == none {
		i = int32(len(g.slots))
		g.slots = append(g.slots, slot{next: none})
	}
	s := &g.slots[i]
	g.free = s.next
	s.serial, s.start, s.inFlight = g.serial, now, int32(g.inFlight)
	p.Allowed, p.Limit, p.InFlight, p.guard, p.slot, p.serial = true, limit, g.inFlight, g, i, g.serial
}

// serve gives permits to those who wait, as far as there are any.
func (g *Guard) serve(now time.Duration) {
	for level := priorities - 1; level >= 0 && g.waiting > 0; level-- {
		for queue := &g.queues[level]; queue.Len() > 0; g.waiting-- {
			limit := g.ceiling(now)
			if g.inFlight >= limit {
				return
			}
			w, _ := queue.Remove(queue.Front()).(*waiter)
			g.grant(&w.permit, now, limit)
			close(w.done)
		}
	}
}

// end ends a permit that has not ended yet.
func (g *Guard) end(place int32, serial uint64, how ending) {
	now := g.elapsed()
	g.mu.Lock()
	s := &g.slots[place]
	if s.serial != serial {
		g.mu.Unlock()
		return
	}
	s.serial = 0
	s.next, g.free = g.free, place
	g.inFlight--
	if how != canceled {
		g.law.observe(&sample{
			now: now, rtt: max(0, now-s.start), inFlight: int(s.inFlight), alone: serial > g.busy, dropped: how == dropped,
		})
	}
	if g.waiting > 0 {
		g.serve(now)
	}
	g.part.ended(g.inFlight)
	g.mu.Unlock()
}

// begin has the latency of a permit count from now.
func (g *Guard) begin(place int32, serial uint64) {
	now := g.elapsed()
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := &g.slots[place]; s.serial == serial {
		s.start = now
	}
}

// Stats is what the guard knows now.
func (g *Guard) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats()
}

func (g *Guard) stats() Stats {
	return Stats{
		Limit: g.law.limit(), InFlight: g.inFlight, Waiting: g.waiting, NoLoad: g.law.noLoad.least(), Last: g.law.last,
	}
}

// Close refuses those who wait and who come later. Permits in flight are ended as ever. It may be
// called more than once, and its error is always nil.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for i := range g.queues {
		for queue := &g.queues[i]; queue.Len() > 0; g.waiting-- {
			w, _ := queue.Remove(queue.Front()).(*waiter)
			close(w.done)
		}
	}
	return nil
}

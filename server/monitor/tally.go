package monitor

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

const (
	// stripes is over how many counters the decisions of a policy are spread, so that processors do not wait for one another.
	stripes = 8
	// exact is how many decisions of a stripe and a window are ranked one by one. Of those beyond, one in 2^sampleBits is, at random,
	// and stands for as many. It makes a decision cheap where there are many.
	exact      = 1024
	sampleBits = 4
	// perSecond is how many denials of one policy, and how many events of one subscription, are passed on in a second.
	perSecond = 500
)

// tally is what is summed up over time.
type tally struct {
	allowed, denied int64
	units           float64 // cost of what was allowed
	failMode        int64   // decided by the fail mode
	leases          int64   // granted
	leased          float64 // units of those
}

func (t *tally) minus(u *tally) tally {
	return tally{
		allowed: t.allowed - u.allowed, denied: t.denied - u.denied, units: t.units - u.units,
		failMode: t.failMode - u.failMode, leases: t.leases - u.leases, leased: t.leased - u.leased,
	}
}

// span is a window that counters are of, told by its end in epoch milliseconds.
type span struct{ end atomic.Int64 }

// holds reports whether what happened at an instant counts in this window. Decisions arrive out of order, so one from shortly
// before it does; a clock that was put back begins a window of its own.
func (s *span) holds(at, width int64) bool { return uint64(at-s.end.Load()+2*width) < uint64(2*width) }

// beginOf is when the window began that an instant is in.
func beginOf(at, width int64) int64 {
	into := at % width
	if into < 0 {
		into += width
	}
	return at - into
}

// sum is a float64 to add to.
type sum struct{ bits atomic.Uint64 }

func (s *sum) add(x float64) {
	for {
		old := s.bits.Load()
		if s.bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+x)) {
			return
		}
	}
}

func (s *sum) load() float64 { return math.Float64frombits(s.bits.Load()) }

// stripe counts a part of the decisions of one policy, since the hub was made.
type stripe struct {
	allowed, denied       atomic.Int64
	allowedAt0, deniedAt0 atomic.Int64 // when the window began
	beyond                sum          // what allowed costs beyond 1 each
	failMode              atomic.Int64
	leases                atomic.Int64
	leased                sum
	_                     [64]byte // the next one is in another cache line
}

// rankings are the keys of a policy whose hashes begin alike. All of a key are in the same one, so several have no key in common.
type rankings struct {
	mu        sync.Mutex
	requested ranking
	denied    ranking
}

// policy is what a hub knows of one policy.
type policy struct {
	info    service.Info // when it was first heard of
	span    span
	_       [64]byte // everybody reads what is above, and those who count write what is below
	stripes [stripes]stripe
	limit   atomic.Int64  // of the latest decision
	shown   atomic.Uint64 // denials that were passed on: the second, and how many in it
	fences  atomic.Int64  // since the hub was made
	timings timings
	lanes   atomic.Pointer[lanes] // nil until there was an Admit

	mu     sync.Mutex // held to begin a window and to look
	before tally      // what there was when the window began
	ranked [stripes]rankings
}

func newPolicy(info service.Info) *policy { return &policy{info: info} }

// decided takes a decision made at an instant in epoch milliseconds, and reports whether it is a denial to show.
func (p *policy) decided(e *service.Event, h hasher, at, width int64) (show bool) {
	show = p.checked(e.Key, e.Cost, e.Decision, h, at, width)
	if e.Elapsed > 0 {
		p.timings.add(e.Elapsed)
	}
	if e.Lease || e.Admit || e.FailMode != "" {
		p.decidedSpecially(e, &p.stripes[spread()], h, at, width)
	}
	return show
}

// checked is decided for what all decisions have.
func (p *policy) checked(key string, cost float64, d throttlekit.Decision, h hasher, at, width int64) (show bool) {
	if !p.span.holds(at, width) {
		p.roll(at, width)
	}
	s := &p.stripes[spread()]
	var weight int64
	if d.Allowed {
		weight = sample(s.allowed.Add(1), &s.allowedAt0)
		if cost != 1 {
			s.beyond.add(cost - 1)
		}
	} else {
		weight = sample(s.denied.Add(1), &s.deniedAt0)
		show = p.pass(at)
	}
	if weight > 0 {
		p.rank(key, h.hash(key), weight, !d.Allowed)
	}
	if p.limit.Load() != d.Limit {
		p.limit.Store(d.Limit)
	}
	return show
}

func (p *policy) decidedSpecially(e *service.Event, s *stripe, h hasher, at, width int64) {
	if e.FailMode != "" {
		s.failMode.Add(1)
	}
	if e.Lease && e.Decision.Allowed {
		s.leases.Add(1)
		s.leased.add(e.Cost)
	}
	if e.Admit {
		p.admitted(e, h.hash(e.Key), at, width)
	}
}

// spread is a stripe for a goroutine. Each has a stack of its own, so those that run at once mostly get different ones, and no
// processor waits for another's counters.
func spread() int {
	var here byte
	stack := uint64(uintptr(unsafe.Pointer(&here)) >> 11) //nolint:gosec // an address, and no more than a number here
	return int(stack * 0x9e3779b97f4a7c15 >> 32 % stripes)
}

// sample is what the decision that was counted as n stands for in the rankings: itself, a number of decisions, or nothing.
func sample(n int64, at0 *atomic.Int64) int64 {
	if n-at0.Load() <= exact {
		return 1
	}
	x := uint64(n) * 0x9e3779b97f4a7c15 // mixed, so that no rhythm of the traffic meets that of the samples
	x ^= x >> 32
	if x*0xd6e8feb86659fd93>>(64-sampleBits) != 0 {
		return 0
	}
	return 1 << sampleBits
}

// rank counts the key of a decision.
func (p *policy) rank(key string, hash uint64, weight int64, denied bool) {
	r := &p.ranked[hash%stripes]
	r.mu.Lock()
	r.requested.add(hash, key, weight)
	if denied {
		r.denied.add(hash, key, weight)
	}
	r.mu.Unlock()
}

// pass reports whether a denial may be shown, and counts it if so.
func (p *policy) pass(at int64) bool {
	second := uint64(at/1000) << 16
	for {
		old := p.shown.Load()
		next := second
		if old&^0xffff == second {
			if next = old + 1; next&0xffff > perSecond {
				return false
			}
		} else {
			next++
		}
		if p.shown.CompareAndSwap(old, next) {
			return true
		}
	}
}

// roll begins the window of an instant, if it is another one.
func (p *policy) roll(at, width int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rollLocked(at, width)
}

func (p *policy) rollLocked(at, width int64) {
	if p.span.holds(at, width) {
		return
	}
	p.before = p.total()
	for i := range p.stripes {
		s := &p.stripes[i]
		s.allowedAt0.Store(s.allowed.Load())
		s.deniedAt0.Store(s.denied.Load())
		r := &p.ranked[i]
		r.mu.Lock()
		r.requested.clear()
		r.denied.clear()
		r.mu.Unlock()
	}
	p.span.end.Store(beginOf(at, width) + width)
}

// total sums up since the hub was made.
func (p *policy) total() tally {
	var t tally
	for i := range p.stripes {
		s := &p.stripes[i]
		allowed := s.allowed.Load()
		t.allowed += allowed
		t.denied += s.denied.Load()
		t.units += float64(allowed) + s.beyond.load()
		t.failMode += s.failMode.Load()
		t.leases += s.leases.Load()
		t.leased += s.leased.load()
	}
	return t
}

// seen is what there is to tell of a policy at one moment.
type seen struct {
	total     tally
	window    tally
	requested []KeyCount
	denied    []KeyCount
}

// look sums up at an instant.
func (p *policy) look(at, width int64) seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rollLocked(at, width)
	v := seen{total: p.total()}
	v.window = v.total.minus(&p.before)
	for i := range p.ranked {
		r := &p.ranked[i]
		r.mu.Lock()
		v.requested = r.requested.collect(v.requested)
		v.denied = r.denied.collect(v.denied)
		r.mu.Unlock()
	}
	v.requested, v.denied = top(v.requested), top(v.denied)
	return v
}

// lanes are the denials of an admitter by what denied them.
type lanes struct {
	mu     sync.Mutex
	span   span
	total  Lanes[int64]
	before Lanes[int64]
	keys   Lanes[ranking]
}

// Lanes has one value for each axis that can deny an Admit.
type Lanes[T any] struct {
	// Rate is the limit per time.
	Rate T `json:"rate"`
	// Concurrency is the limit of what is in flight.
	Concurrency T `json:"concurrency"`
	// Cost is the budget.
	Cost T `json:"cost"`
	// Policy is the admitter's own pricing.
	Policy T `json:"policy"`
}

// lane is the value of one axis. What is none of the others is the policy's own.
func (l *Lanes[T]) lane(axis string) *T {
	switch axis {
	case "rate":
		return &l.Rate
	case "concurrency":
		return &l.Concurrency
	case "cost":
		return &l.Cost
	}
	return &l.Policy
}

// axes are the names of the lanes, in their order.
var axes = [...]string{"rate", "concurrency", "cost", "policy"}

// admitted takes a decision of an Admit.
func (p *policy) admitted(e *service.Event, hash uint64, at, width int64) {
	l := p.lanes.Load()
	if l == nil {
		p.lanes.CompareAndSwap(nil, new(lanes))
		l = p.lanes.Load()
	}
	if e.Decision.Allowed {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll(at, width)
	*l.total.lane(e.Axis)++
	l.keys.lane(e.Axis).add(hash, e.Key, 1)
}

func (l *lanes) roll(at, width int64) {
	if l.span.holds(at, width) {
		return
	}
	l.before = l.total
	l.span.end.Store(beginOf(at, width) + width)
	for _, axis := range axes {
		l.keys.lane(axis).clear()
	}
}

// lanesSeen is what there is to tell of the lanes of a policy.
type lanesSeen struct {
	total  Lanes[int64]
	window Lanes[int64]
	keys   Lanes[[]KeyCount]
}

// lookLanes sums up at an instant, or is nil for a policy that is no admitter.
func (p *policy) lookLanes(at, width int64) *lanesSeen {
	l := p.lanes.Load()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll(at, width)
	v := &lanesSeen{total: l.total}
	for _, axis := range axes {
		*v.window.lane(axis) = *l.total.lane(axis) - *l.before.lane(axis)
		*v.keys.lane(axis) = top(l.keys.lane(axis).collect(nil))
	}
	return v
}

// hasher tells keys apart. Its seed is the process's own, so that nobody can make keys that collide.
type hasher struct{ seed maphash.Seed }

func (h hasher) hash(key string) uint64 { return maphash.String(h.seed, key) }

// timings are the latest latencies of one policy.
type timings struct {
	mu   sync.Mutex
	n    uint64
	ring [256]time.Duration
}

func (t *timings) add(d time.Duration) {
	t.mu.Lock()
	t.ring[t.n%uint64(len(t.ring))] = d
	t.n++
	t.mu.Unlock()
}

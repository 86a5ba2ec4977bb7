package lease

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/internal/monotonic"
)

// Grant is an issuer's answer to a request for units.
type Grant struct {
	// Units may be spent by the holder; they are already charged. Zero is a refusal.
	Units int64
	// Limit is the issuer's limit, for a holder that was not told, or 0.
	Limit int64
	// Denial is the issuer's decision if Units is 0.
	Denial throttlekit.Decision
	// ResetAtMillis is when the issuer's budget is whole again, on the issuer's clock. It
	// is reported and not compared with any other clock.
	ResetAtMillis int64
	// ResetsIn is how long it was until then, on the same clock.
	ResetsIn time.Duration
	// Lasts is for how long the units may be spent, on the issuer's clock; the holder counts
	// from when it sent its request. Zero means that they do not expire, and a negative
	// time that they have.
	Lasts time.Duration
}

// Source lends units to holders. It must be safe for concurrent use.
type Source interface {
	// Lease asks for wants units of a key, and for at least least. Both are at least 1.
	Lease(ctx context.Context, key string, least, wants int64) (Grant, error)
	// Return gives back units of a grant that had this reset. What cannot be taken back is
	// lost, which no limit minds.
	Return(ctx context.Context, key string, units, resetAtMillis int64) error
}

// HolderConfig describes a [Holder].
type HolderConfig struct {
	// Source lends. It is required.
	Source Source
	// Key is what to ask the source for.
	Key string
	// Limit is what decisions report as their limit; not negative. Zero takes it from grants.
	Limit int64
	// Batch is how many units to ask for at once; at least 1. With a Sizer it may be 0.
	Batch int64
	// Sizer chooses the size of batches instead.
	Sizer Sizer
	// LowWater is at how many units left the next batch is fetched ahead, so that nobody
	// waits for it. Zero fetches when a request is short.
	LowWater int64
	// Timeout bounds each request to the source; positive. Defaults to [DefaultTimeout].
	Timeout time.Duration
	// Elapsed is a monotonic clock. Defaults to the process's.
	Elapsed func() time.Duration
}

// usable is for how many milliseconds after it asked a holder may spend what lasts for a time.
func usable(lasts time.Duration) int64 { return throttlekit.Usable(lasts).Milliseconds() }

const (
	// refillPause is how long a holder waits after a refill ahead of need that failed, and
	// refusalPause the longest after one that was refused.
	refillPause  = 100 * time.Millisecond
	refusalPause = time.Second
	// DefaultTimeout bounds a request to a source if the holder is not told otherwise.
	DefaultTimeout = 5 * time.Second
)

// Holder spends units of one key that a source lends it. However many requests are short,
// one request to the source is under way for all of them, and they are served in the order
// in which they came. A Holder is safe for concurrent use. It starts a goroutine for each
// request to the source, which ends with it.
type Holder struct {
	config HolderConfig

	mu       sync.Mutex
	spender  Spender
	waiting  list.List // of *waiter; not empty only while there is a flight
	flight   *flight   // the request to the source that is under way
	resetAt  int64     // of the latest grant
	quietTil int64     // no refill ahead of need before this time
	lastUse  int64
	closed   bool
	window   demand
}

// demand is what a sizer learns from: the units served in the window of the first grant.
type demand struct {
	served float64
	ends   int64
	open   bool
}

// waiter is a request that was short.
type waiter struct {
	cost   float64
	ready  chan struct{} // closed when there is an answer
	answer throttlekit.Decision
	err    error
}

// flight is one request to the source.
type flight struct {
	done  chan struct{}
	asker *waiter // whom it was sent for, nil if it was sent ahead of need
	least int64
	sent  int64
}

// NewHolder returns a holder without units. The error matches [throttlekit.ErrInvalid].
func NewHolder(config HolderConfig) (*Holder, error) {
	var wrong []error
	require := func(ok bool, field string, value any, rule string) {
		if !ok {
			wrong = append(wrong, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
		}
	}
	require(config.Source != nil, "source", config.Source, "must be given")
	require(config.Limit >= 0, "limit", config.Limit, "must not be negative")
	require(config.Batch >= 1 || config.Batch == 0 && config.Sizer != nil, "batch", config.Batch, batchRule)
	require(config.Batch <= throttlekit.MaxSafe, "batch", config.Batch, batchRule)
	require(config.LowWater >= 0, "lowWater", config.LowWater, "must not be negative")
	require(config.Timeout >= 0, "timeout", config.Timeout, "must not be negative")
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	if config.Elapsed == nil {
		config.Elapsed = monotonic.Elapsed
	}
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	h := &Holder{config: config, spender: Spender{limit: config.Limit}, quietTil: math.MinInt64}
	h.lastUse = h.now()
	return h, nil
}

const batchRule = "must be an integer from 1 to 9007199254740991"

// Check decides on a request of cost 1.
func (h *Holder) Check(ctx context.Context) (throttlekit.Decision, error) { return h.CheckN(ctx, 1) }

// CheckN decides on a request of the given cost, which is taken from what is held, whole
// or not at all. If that is short, it asks the source and waits for the answer as long as
// ctx allows; nobody overtakes who waits. In decisions that allow, Remaining is what is left
// here, not everywhere; those that deny are the source's.
//
// The error matches ErrInvalid or ErrClosed of package throttlekit, or is that of ctx or
// of the source. A source that fails is asked again by the next request.
func (h *Holder) CheckN(ctx context.Context, cost float64) (throttlekit.Decision, error) {
	if err := validCost(cost); err != nil {
		return throttlekit.Decision{}, err
	}
	now := h.now()
	h.mu.Lock()
	h.lastUse = now
	if h.waiting.Len() == 0 {
		if d, ok := h.spend(now, cost); ok {
			h.refill(ctx, now)
			h.mu.Unlock()
			return d, nil
		}
	}
	err := ctx.Err()
	if h.closed {
		err = throttlekit.ErrClosed
	}
	if err != nil {
		h.mu.Unlock()
		return throttlekit.Decision{}, err
	}
	w := &waiter{cost: cost, ready: make(chan struct{})}
	place := h.waiting.PushBack(w)
	if h.flight == nil {
		h.launch(context.WithoutCancel(ctx), w)
	}
	h.mu.Unlock()
	select {
	case <-w.ready:
		return w.answer, w.err
	case <-ctx.Done():
		return h.leave(ctx, w, place)
	}
}

// leave gives a place in the queue up, unless the answer has come meanwhile.
func (h *Holder) leave(ctx context.Context, w *waiter, place *list.Element) (throttlekit.Decision, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-w.ready:
		return w.answer, w.err
	default:
		h.waiting.Remove(place)
		return throttlekit.Decision{}, ctx.Err()
	}
}

func (h *Holder) now() int64 { return h.config.Elapsed().Milliseconds() }

// spend takes cost from what is held.
func (h *Holder) spend(now int64, cost float64) (throttlekit.Decision, bool) {
	d, ok := h.spender.Spend(now, cost)
	if !ok {
		return d, false
	}
	h.count(now, cost)
	d.ResetAtMillis = h.resetAt
	return d, true
}

// refill fetches the next batch ahead of need.
func (h *Holder) refill(ctx context.Context, now int64) {
	if h.spender.credits <= float64(h.config.LowWater) && h.config.LowWater > 0 && h.flight == nil && now >= h.quietTil && !h.closed {
		h.launch(context.WithoutCancel(ctx), nil)
	}
}

// count adds to what was served in the sizer's window.
func (h *Holder) count(now int64, cost float64) {
	if h.config.Sizer == nil {
		return
	}
	h.learn(now)
	h.window.served += cost
}

// learn tells the sizer about a window that has ended.
func (h *Holder) learn(now int64) {
	if h.window.open && now >= h.window.ends {
		h.config.Sizer.Observe(h.window.served)
		h.window = demand{}
	}
}

// size is how many units the next lease asks for.
func (h *Holder) size(now int64) int64 {
	if h.config.Sizer == nil {
		return h.config.Batch
	}
	h.learn(now)
	if size := h.config.Sizer.Size(); size >= 1 {
		return int64(min(size, throttlekit.MaxSafe))
	}
	return 1
}

// launch asks the source, for who is first in the queue or ahead of need. The context is one
// without an end: the request outlives whoever caused it, because others wait for it, too.
func (h *Holder) launch(ctx context.Context, asker *waiter) {
	f := &flight{done: make(chan struct{}), asker: asker, least: 1, sent: h.now()}
	wants := h.size(f.sent)
	if asker != nil {
		held := h.spender.Credits(f.sent)
		f.least = max(1, int64(math.Ceil(asker.cost-held)))
		wants = max(wants, f.least, int64(min(math.Ceil(h.wanted()-held), throttlekit.MaxSafe)))
	}
	h.flight = f
	go func() {
		bounded, cancel := context.WithTimeout(ctx, h.config.Timeout)
		defer cancel()
		g, err := h.config.Source.Lease(bounded, h.config.Key, f.least, wants)
		if err != nil && bounded.Err() != nil {
			err = fmt.Errorf("%w: no lease within %v: %w", throttlekit.ErrStoreUnavailable, h.config.Timeout, err)
		}
		h.land(ctx, f, g, err)
	}()
}

// wanted is what all who wait ask for.
func (h *Holder) wanted() (sum float64) {
	for e := h.waiting.Front(); e != nil; e = e.Next() {
		sum += waiterOf(e).cost
	}
	return sum
}

func waiterOf(e *list.Element) *waiter {
	w, _ := e.Value.(*waiter)
	return w
}

// land credits a grant, once, answers who can be answered, and asks again for who is then
// the first of those that wait.
func (h *Holder) land(ctx context.Context, f *flight, g Grant, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flight = nil
	defer close(f.done)
	now := h.now() // so that nothing is spent after its time
	switch {
	case err != nil:
		h.quietTil = now + refillPause.Milliseconds()
		if f.asker != nil {
			h.dismiss(func(w *waiter) bool {
				w.err = err
				return true
			})
		}
	case g.Units <= 0:
		h.refuse(now, f.least, g.Denial)
	default:
		h.credit(now, f, g)
	}
	h.dismiss(func(w *waiter) (ok bool) {
		w.answer, ok = h.spend(now, w.cost)
		return ok
	})
	switch first := h.waiting.Front(); {
	case first == nil:
	case h.closed:
		h.dismiss(func(w *waiter) bool {
			w.err = throttlekit.ErrClosed
			return true
		})
	default:
		h.launch(ctx, waiterOf(first))
	}
}

// dismiss answers those who wait, in order, until answer says that there is none for the
// one that it was given.
func (h *Holder) dismiss(answer func(w *waiter) bool) {
	for e := h.waiting.Front(); e != nil; e = h.waiting.Front() {
		w := waiterOf(e)
		if !answer(w) {
			return
		}
		h.waiting.Remove(e)
		close(w.ready)
	}
}

// refuse passes a denial of least units on to all who are short of as many. A cheaper
// request may still find what it needs.
func (h *Holder) refuse(now, least int64, denial throttlekit.Decision) {
	denial.RetryAfterMillis = max(1, denial.RetryAfterMillis)
	h.quietTil = now + min(denial.RetryAfterMillis, refusalPause.Milliseconds())
	held := h.spender.Credits(now)
	for e := h.waiting.Front(); e != nil; {
		w, next := waiterOf(e), e.Next()
		if math.Ceil(w.cost-held) >= float64(least) {
			w.answer = denial
			h.waiting.Remove(e)
			close(w.ready)
		}
		e = next
	}
}

// credit puts a grant by. Who asked for it is served first, by what was charged for that
// request, however late the answer is.
func (h *Holder) credit(now int64, f *flight, g Grant) {
	expires := int64(math.MaxInt64)
	if g.Lasts != 0 {
		expires = f.sent + usable(g.Lasts)
	}
	if h.config.Limit == 0 {
		h.spender.limit = g.Limit
	}
	if h.config.Sizer != nil && !h.window.open {
		h.window.open, h.window.ends = true, f.sent+max(1, g.ResetsIn.Milliseconds())
	}
	units := float64(g.Units)
	held := h.spender.Credits(now)
	first := h.waiting.Front()
	if first == nil || waiterOf(first) != f.asker || held+units < f.asker.cost {
		if expires > now {
			h.resetAt = g.ResetAtMillis
		}
		h.spender.Grant(units, expires)
		return
	}
	cost := f.asker.cost
	older := min(held, cost)
	h.spender.take(now, older)
	h.spender.Grant(units-(cost-older), expires)
	h.count(now, cost)
	h.resetAt = g.ResetAtMillis
	f.asker.answer = throttlekit.Decision{
		Allowed: true, Limit: h.spender.limit, Remaining: floor(h.spender.Credits(now)), ResetAtMillis: g.ResetAtMillis,
	}
	h.waiting.Remove(first)
	close(f.asker.ready)
}

// Held is how many units could be spent now without asking the source.
func (h *Holder) Held() float64 {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.spender.Credits(now)
}

// Idle reports whether nothing is held and nothing asked for.
func (h *Holder) Idle() bool {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flight == nil && h.spender.Credits(now) == 0
}

// used is when something was last asked here.
func (h *Holder) used() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lastUse
}

// gone reports whether the holder is closed.
func (h *Holder) gone() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// forget closes the holder and drops what it holds, without asking anybody.
func (h *Holder) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.spender.Reset()
}

// idle reports whether nothing has happened here for a time and nothing is about to.
func (h *Holder) idle(now int64, period time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.flight == nil && now-h.lastUse > period.Milliseconds()
}

// Close waits for the request to the source that is under way, as long as ctx allows, and
// gives back what is held, as far as the source takes it. Requests that come later are
// answered with ErrClosed of package throttlekit.
func (h *Holder) Close(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if f := h.flight; f != nil {
		if err := h.await(ctx, f); err != nil {
			return err
		}
	}
	units, resetAt := floor(h.spender.Credits(h.now())), h.resetAt
	h.spender.Reset()
	if units == 0 {
		return nil
	}
	h.mu.Unlock()
	err := h.config.Source.Return(ctx, h.config.Key, units, resetAt)
	h.mu.Lock()
	if err != nil {
		return fmt.Errorf("lease: giving back %d units: %w", units, err)
	}
	return nil
}

// await gives the lock up until f is over.
func (h *Holder) await(ctx context.Context, f *flight) error {
	h.mu.Unlock()
	defer h.mu.Lock()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

package lease

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
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
	// Lasts is for how long after the request was sent the units may be spent. Zero means
	// that they do not expire.
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
	// Elapsed is a monotonic clock. Defaults to the process's.
	Elapsed func() time.Duration
}

// Drift is how much faster or slower than an issuer's clock a holder's may run, in parts
// per million, for the bounds to hold. Credits expire earlier by as much, and by the
// millisecond to which issuers round their clocks. NTP slews a clock by up to 500, and two
// clocks may be slewed in opposite directions.
const Drift = 1000

// Usable is for how long after it asked a holder may spend what lasts for a time on the
// issuer's clock. [Holder] applies it; who drives a [Spender] has to.
func Usable(lasts time.Duration) time.Duration {
	return max(0, lasts-lasts/(1_000_000/Drift)-time.Millisecond)
}

func usable(lasts time.Duration) int64 { return Usable(lasts).Milliseconds() }

var processStart = time.Now() //nolint:forbidigo // the origin of the monotonic clock

func monotonic() time.Duration { return time.Since(processStart) } //nolint:forbidigo // holders measure their own time

// refillPause is how long a holder waits after a failed refill ahead of need.
const refillPause = 100 * time.Millisecond

// Holder spends units of one key that a source lends it. However many requests are short,
// one of them asks the source and the others wait for its answer. A Holder is safe for
// concurrent use. It starts a goroutine for each request to the source, which ends with it.
type Holder struct {
	config HolderConfig
	till   atomic.Pointer[till] // written with the lock held
	_      [40]byte             // what every request writes stands on lines of its own, apart from what it reads

	mu       sync.Mutex
	lastUse  int64
	flight   *flight // the request to the source that is under way
	resetAt  int64   // of the latest grant
	quietTil int64   // no refill ahead of need before this time
	spender  Spender
	closed   bool
	window   demand
	work     sync.WaitGroup
}

// demand is what a sizer learns from: the units served in the window of the first grant.
type demand struct {
	served float64
	ends   int64
	open   bool
}

// flight is one request to the source.
type flight struct {
	done    chan struct{}
	least   int64
	sent    int64
	cost    float64 // of the request that asked, which is served first; 0 for none
	ahead   bool    // sent ahead of need
	served  bool
	answer  throttlekit.Decision // to who asked, if served
	refused bool
	denial  throttlekit.Decision
	err     error
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
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	if config.Elapsed == nil {
		config.Elapsed = monotonic
	}
	return &Holder{config: config, spender: Spender{limit: config.Limit}, quietTil: math.MinInt64}, nil
}

const batchRule = "must be an integer from 1 to 9007199254740991"

// Check decides on a request of cost 1.
func (h *Holder) Check(ctx context.Context) (throttlekit.Decision, error) { return h.CheckN(ctx, 1) }

// CheckN decides on a request of the given cost, which is taken from what is held, whole
// or not at all. If that is short, it asks the source and waits for the answer as long as
// ctx allows. In decisions that allow, Remaining is what is left here, not everywhere; those
// that deny are the source's.
//
// The error matches ErrInvalid or ErrClosed of package throttlekit, or is that of ctx or
// of the source. A source that fails is asked again by the next request.
func (h *Holder) CheckN(ctx context.Context, cost float64) (throttlekit.Decision, error) {
	if err := validCost(cost); err != nil {
		return throttlekit.Decision{}, err
	}
	now := h.now()
	if d, ok := h.take(now, cost); ok {
		return d, nil
	}
	return h.gather(ctx, now, cost)
}

// gather takes the cost from all that is held, and asks the source as long as that is short.
func (h *Holder) gather(ctx context.Context, now int64, cost float64) (throttlekit.Decision, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		h.settle()
		if d, ok := h.spend(ctx, now, cost); ok {
			h.stock(cost)
			return d, nil
		}
		if h.closed {
			return throttlekit.Decision{}, throttlekit.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return throttlekit.Decision{}, err
		}
		f, mine := h.flight, false
		if f == nil {
			f, mine = h.launch(ctx, &flight{cost: cost}), true
		}
		if err := h.wait(ctx, f); err != nil {
			if mine {
				f.cost = 0 // nobody is left to be served first
			}
			return throttlekit.Decision{}, err
		}
		now = h.now() // so that nothing is spent after its time
		switch {
		case mine && f.served:
			return f.answer, nil
		case f.err != nil && !f.ahead:
			return throttlekit.Decision{}, f.err
		case f.refused && (mine || !f.ahead && cost >= float64(f.least)):
			h.settle()
			if d, ok := h.spend(ctx, now, cost); ok {
				return d, nil
			}
			return f.denial, nil
		}
	}
}

func (h *Holder) now() int64 { return h.config.Elapsed().Milliseconds() }

// wait gives the lock up until f is over.
func (h *Holder) wait(ctx context.Context, f *flight) error {
	h.mu.Unlock()
	defer h.mu.Lock()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spend takes cost from what is held and sees to it that more comes in time.
func (h *Holder) spend(ctx context.Context, now int64, cost float64) (throttlekit.Decision, bool) {
	h.lastUse = now
	d, ok := h.spender.Spend(now, cost)
	if !ok {
		return d, false
	}
	h.count(now, cost)
	d.ResetAtMillis = h.resetAt
	if h.config.LowWater > 0 && h.flight == nil && h.spender.credits <= float64(h.config.LowWater) && now >= h.quietTil && !h.closed {
		h.launch(ctx, &flight{ahead: true})
	}
	return d, true
}

// count tells the sizer about windows that have ended.
func (h *Holder) count(now int64, cost float64) {
	if h.config.Sizer == nil {
		return
	}
	h.learn(now)
	h.window.served += cost
}

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

// launch asks the source. The request outlives whoever caused it, because others wait for it, too.
func (h *Holder) launch(ctx context.Context, f *flight) *flight {
	f.done, f.sent = make(chan struct{}), h.now()
	f.least = max(1, int64(math.Ceil(f.cost-h.spender.credits)))
	wants := max(h.size(f.sent), f.least)
	h.flight = f
	h.work.Go(func() {
		g, err := h.config.Source.Lease(context.WithoutCancel(ctx), h.config.Key, f.least, wants)
		h.land(f, g, err)
	})
	return f
}

// land credits a grant, once, and wakes who waits.
func (h *Holder) land(f *flight, g Grant, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settle()
	h.flight = nil
	switch {
	case err != nil:
		f.err, h.quietTil = err, h.now()+refillPause.Milliseconds()
	case g.Units <= 0:
		f.refused, f.denial = true, g.Denial
		h.quietTil = h.now() + max(1, g.Denial.RetryAfterMillis)
	default:
		h.credit(f, g)
	}
	close(f.done)
}

func (h *Holder) credit(f *flight, g Grant) {
	expires := int64(math.MaxInt64)
	if g.Lasts > 0 {
		expires = f.sent + usable(g.Lasts)
	}
	units := float64(g.Units)
	if serve := f.cost; serve > 0 && units >= serve {
		// Who asked is served by what was charged for it, however late the answer.
		units, f.served = units-serve, true
	}
	if f.served || expires > h.now() {
		h.resetAt = g.ResetAtMillis
	}
	if h.config.Sizer != nil && !h.window.open {
		h.window.open, h.window.ends = true, f.sent+max(1, g.ResetsIn.Milliseconds())
	}
	if h.config.Limit == 0 {
		h.spender.limit = g.Limit
	}
	h.spender.Grant(units, expires)
	if f.served {
		h.count(f.sent, f.cost)
		f.answer = throttlekit.Decision{
			Allowed: true, Limit: h.spender.limit, Remaining: floor(h.spender.Credits(f.sent)), ResetAtMillis: g.ResetAtMillis,
		}
	}
}

// Held is how many units could be spent now without asking the source.
func (h *Holder) Held() float64 {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settle()
	return h.spender.Credits(now)
}

// used is when something was last asked here.
func (h *Holder) used() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settle()
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
	h.settle()
	h.closed = true
	h.spender.Reset()
}

// idle reports whether nothing has happened here for a time and nothing is about to.
func (h *Holder) idle(now int64, period time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settle()
	return h.flight == nil && now-h.lastUse > period.Milliseconds()
}

// Close gives back what is held, as far as the source takes it, and waits for what is
// under way. Requests that come later are answered with ErrClosed of package throttlekit.
func (h *Holder) Close(ctx context.Context) error {
	h.mu.Lock()
	h.settle()
	h.closed = true
	h.mu.Unlock()
	h.work.Wait()
	now := h.now()
	h.mu.Lock()
	units, resetAt := floor(h.spender.Credits(now)), h.resetAt
	h.spender.Reset()
	h.mu.Unlock()
	if units == 0 {
		return nil
	}
	if err := h.config.Source.Return(ctx, h.config.Key, units, resetAt); err != nil {
		return fmt.Errorf("lease: giving back %d units: %w", units, err)
	}
	return nil
}

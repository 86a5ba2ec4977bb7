package fair

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/internal/monotonic"
)

// tank is an escrow on a budget that comes in leases from a store. Requests that the budget
// can decide are decided at once. Those that need more queue, and one goroutine, which
// lives as long as there is a queue, asks for what they lack: one call at a time, for
// all. What it brings is credited once, under the lock, and serves the queue in its order.
type tank struct {
	tankConfig

	mu      sync.Mutex
	book    book
	budget  float64       // leased in the window
	total   float64       // what the store says that all with our name have leased; see delivery
	end     int64         // of the window that book and budget are for, by the store's clock
	until   time.Duration // the monotonic time before which the window has certainly not ended
	ends    time.Duration // the monotonic time at which it ends if both clocks run alike; for reports
	queue   []*waiter
	pumping bool
	closed  bool
	pumps   sync.WaitGroup
	closing sync.Once
}

type tankConfig struct {
	limit     float64
	most      int
	timeout   time.Duration
	monotonic func() time.Duration
	// reserving asks for others' claims as well, so that a request never waits for them
	// when the store has more.
	reserving bool
	// fetch is the one call to the store.
	fetch func(ctx context.Context, o order) (delivery, error)
	// refusal is the answer to a request for which the store has nothing left. Without it the
	// budget decides.
	refusal func(s *seat) verdict
	// giveBack returns what has been leased and not used in the window that ends at end, in
	// whole units, 0 included.
	giveBack func(ctx context.Context, end int64, units float64) error
}

// order is what to ask the store for.
type order struct {
	units   float64 // what all requests lack; a whole number, at least 1
	least   float64 // what the smallest of them lacks; likewise
	total   float64 // what has been leased under our name as far as we know
	weights float64 // of the active tenants
}

// delivery is what the store has answered.
type delivery struct {
	units float64       // more than before, for us alone
	total float64       // what has been leased in the window under our name, by others too
	end   int64         // of the window, by the store's clock
	lasts time.Duration // how long it is until then, by the store's clock
	grew  bool          // it is worth asking again
}

// waiter is a request in the queue.
type waiter struct {
	tenant       string
	weight, cost float64
	rounds       int // orders that it had a part in
	done         chan struct{}
	decision     throttlekit.Decision
	err          error
}

const (
	defaultTimeout = time.Second
	maxRounds      = 64 // orders for one request; then what is there decides
)

func newTank(config tankConfig) *tank {
	if config.timeout == 0 {
		config.timeout = defaultTimeout
	}
	if config.monotonic == nil {
		config.monotonic = monotonic.Elapsed
	}
	return &tank{tankConfig: config, book: newBook(config.most), end: math.MinInt64, until: math.MinInt64, ends: math.MinInt64}
}

// millis is a time that is left of a window, short enough to be added to that of a monotonic clock.
func millis(ms int64) time.Duration {
	const longest = int64(math.MaxInt64/time.Millisecond) / 2
	return time.Duration(min(ms, longest)) * time.Millisecond
}

// check decides on a valid request.
func (t *tank) check(ctx context.Context, tenant string, weight, cost float64) (throttlekit.Decision, error) {
	w, d, err := t.enter(ctx, tenant, weight, cost)
	if w == nil {
		return d, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if t.leave(w) {
			return throttlekit.Decision{}, ctx.Err()
		}
		<-w.done
	}
	return w.decision, w.err
}

// late makes the deadline of a call, which passed while the store was silent, the store's fault.
func late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		return fmt.Errorf("%w: no budget came in time: %w", throttlekit.ErrStoreUnavailable, err)
	}
	return err
}

// enter decides at once if the budget can, or returns a place in the queue.
func (t *tank) enter(ctx context.Context, tenant string, weight, cost float64) (*waiter, throttlekit.Decision, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, throttlekit.Decision{}, throttlekit.ErrClosed
	}
	if now := t.monotonic(); now < t.until {
		s := t.book.seat(tenant, weight)
		v := t.book.try(s, cost, t.budget)
		if v.allowed || t.lacks(s, cost) <= 0 {
			return nil, t.answer(v, t.ends-now), nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, throttlekit.Decision{}, err
	}
	w := &waiter{tenant: tenant, weight: weight, cost: cost, done: make(chan struct{})}
	t.queue = append(t.queue, w)
	if !t.pumping {
		t.pumping = true
		call := context.WithoutCancel(ctx) // it serves others too, who may stay longer
		t.pumps.Go(func() { t.pump(call) })
	}
	return w, throttlekit.Decision{}, nil
}

// leave takes a waiter out of the queue, unless its answer is there already.
func (t *tank) leave(w *waiter) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.queue, w)
	if i < 0 {
		return false
	}
	t.queue = slices.Delete(t.queue, i, i+1)
	return true
}

// lacks is how many units more would decide on a request that has been tried in vain; 0 or
// less if none would.
func (t *tank) lacks(s *seat, cost float64) float64 {
	_, used := t.book.sums()
	if t.budget >= t.limit || used+cost > t.limit {
		return 0
	}
	missing := cost - (t.budget - used)
	if t.reserving {
		missing += t.book.othersClaims(s, t.budget)
	}
	return min(missing, t.limit-t.budget)
}

// answer turns a verdict into a decision; wait is how long the window lasts.
func (t *tank) answer(v verdict, wait time.Duration) throttlekit.Decision {
	d := throttlekit.Decision{
		Allowed: v.allowed, Limit: whole(v.limit), Remaining: whole(v.remaining), ResetAtMillis: t.end,
	}
	if !v.allowed {
		d.RetryAfterMillis = max(1, ceil(toMillis(wait)))
	}
	return d
}

// pump serves the queue until it is empty.
func (t *tank) pump(ctx context.Context) {
	for {
		o, more := t.order()
		if !more {
			return
		}
		asked := t.monotonic()
		bounded, cancel := context.WithTimeout(ctx, t.timeout)
		got, err := t.fetch(bounded, o)
		cancel()
		t.land(asked, got, late(err))
	}
}

// order is the next call, or none if nobody waits.
func (t *tank) order() (o order, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.pumping = false
		return order{}, false
	}
	// Who has waited for an order before still does because the store had more of this window.
	if t.queue[0].rounds > 0 || t.monotonic() < t.until {
		return t.orderMore(), true
	}
	return t.orderFirst(), true
}

// orderMore asks for what the queue lacks in the current window.
func (t *tank) orderMore() order {
	o := order{total: t.total, least: t.limit}
	_, used := t.book.sums()
	var costs, claims float64
	for _, w := range t.queue {
		w.rounds++
		costs += w.cost
		o.least = min(o.least, w.cost-(t.budget-used))
		if t.reserving {
			claims = max(claims, t.book.othersClaims(t.book.seat(w.tenant, w.weight), t.budget))
		}
	}
	o.weights, _ = t.book.sums()
	if o.weights == 0 {
		o.weights = t.queueWeights()
	}
	o.units = max(1, min(math.Ceil(used+claims+costs-t.budget), t.limit-t.budget))
	o.least = min(max(1, math.Ceil(o.least)), o.units)
	return o
}

// orderFirst asks for what the queue needs in a window of which nothing is known yet.
func (t *tank) orderFirst() order {
	o := order{least: t.limit, weights: t.queueWeights()}
	for _, w := range t.queue {
		w.rounds++
		if w.cost <= t.limit { // else nothing helps, and the order is only to learn of the window
			o.units += w.cost
			o.least = min(o.least, w.cost)
		}
	}
	o.units = max(1, min(math.Ceil(o.units), t.limit))
	o.least = min(max(1, math.Ceil(o.least)), o.units)
	return o
}

// queueWeights is the weight of the tenants in the queue, each counted once.
func (t *tank) queueWeights() (sum float64) {
	seen := make(map[string]bool, len(t.queue))
	for _, w := range t.queue {
		if !seen[w.tenant] {
			seen[w.tenant] = true
			sum += w.weight
		}
	}
	return sum
}

// land credits a delivery and serves the queue. Requests that had a part in the order are
// decided even if the window has ended while it was under way, as they would be by a store
// whose answer came late: what they use was charged to that window.
func (t *tank) land(asked time.Duration, got delivery, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && got.end < t.end {
		err = fmt.Errorf("%w: its window went back", throttlekit.ErrStoreUnavailable)
	}
	if err != nil {
		t.fail(err)
		return
	}
	if got.end > t.end {
		t.book.clear()
		t.budget, t.end, t.until, t.ends = 0, got.end, math.MinInt64, math.MinInt64
	}
	t.budget = min(t.limit, t.budget+got.units)
	t.total = got.total
	t.until = max(t.until, asked+throttlekit.Usable(got.lasts))
	t.ends = max(t.ends, asked+got.lasts)
	current := t.monotonic() < t.until
	waiting := t.queue[:0]
	for _, w := range t.queue {
		if !t.serve(w, got, current) {
			waiting = append(waiting, w)
		}
	}
	clear(t.queue[len(waiting):])
	t.queue = waiting
}

// serve decides on a waiter if that is possible after a delivery.
func (t *tank) serve(w *waiter, got delivery, current bool) bool {
	if w.rounds == 0 && !current {
		return false
	}
	s := t.book.seat(w.tenant, w.weight)
	v := t.book.try(s, w.cost, t.budget)
	switch {
	case v.allowed || t.lacks(s, w.cost) <= 0 || w.rounds >= maxRounds:
	case w.rounds == 0 || got.grew:
		return false
	default:
		if t.refusal != nil {
			v = t.refusal(s)
		}
	}
	w.decision = t.answer(v, got.lasts)
	close(w.done)
	return true
}

// fail answers the whole queue with an error.
func (t *tank) fail(err error) {
	for _, w := range t.queue {
		w.err = err
		close(w.done)
	}
	t.queue = nil
}

func (t *tank) reset(tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.book.remove(tenant)
}

func (t *tank) stats(width float64) Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.book.stats(t.limit, t.budget)
	if t.end != math.MinInt64 {
		s.WindowStartMillis = ceil(float64(t.end) - width)
	}
	return s
}

// close answers the queue, waits for the call that is under way, and gives back what has
// been leased and not used. That may fail: then it is lost for the window.
func (t *tank) close() {
	t.closing.Do(func() {
		t.mu.Lock()
		t.closed = true
		t.fail(throttlekit.ErrClosed)
		t.mu.Unlock()
		t.pumps.Wait()
		t.yield()
	})
}

// yield gives back what has been leased and not used, without the lock: others need not wait for it.
func (t *tank) yield() {
	t.mu.Lock()
	_, used := t.book.sums()
	unused, end, current := max(0, math.Floor(t.budget-used)), t.end, t.monotonic() < t.ends
	if current {
		t.budget -= unused
	}
	t.mu.Unlock()
	if !current {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	_ = t.giveBack(ctx, end, unused)
}

package fair

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// defaultTenants is how many tenants are told apart unless a configuration says otherwise.
const defaultTenants = 100_000

// ShareConfig configures [NewFairShare] and [NewWeightedFairShare].
type ShareConfig struct {
	// Limit is how many units all tenants together may use in a window: at least 1 and at most
	// [throttlekit.MaxSafe]; a fraction is dropped.
	Limit float64
	// Window is the width of a window; positive. Windows are aligned to the epoch.
	Window time.Duration
	// WeightOf tells the weight of a tenant. Defaults to 1 for all; [NewFairShare] takes none.
	WeightOf WeightOf
	// MaxTenants is how many tenants are told apart in a window. One more takes the place of
	// whoever came first; what that one has used still counts against the limit. Defaults
	// to 100,000.
	MaxTenants int
	// Clock defaults to [throttlekit.SystemClock].
	Clock throttlekit.Clock
}

// FairShare gives each of the n active tenants of a window at most max(1, ⌊limit/n⌋) units.
// It lends nothing: what one tenant leaves, nobody else gets. Compare [Escrow].
type FairShare struct{ shares } //nolint:revive // the field's name for it; a plain Share is anything

// WeightedFairShare gives each active tenant of a window at most
// max(1, ⌊(weight/weights)·limit⌋) units, dividing first. It lends nothing. Compare [Escrow].
type WeightedFairShare struct{ shares }

// NewFairShare returns a limiter of equal shares. The error matches [throttlekit.ErrInvalid].
func NewFairShare(config ShareConfig) (*FairShare, error) {
	var c checks
	c.require(config.WeightOf == nil, "weightOf", "a function", "must not be given: shares are equal")
	f := new(FairShare)
	f.set(&c, config)
	f.cap = func(float64) float64 { return math.Floor(f.limit / float64(len(f.book.seats))) }
	if len(c) > 0 {
		return nil, c.err()
	}
	return f, nil
}

// NewWeightedFairShare returns a limiter of weighted shares. The error matches [throttlekit.ErrInvalid].
func NewWeightedFairShare(config ShareConfig) (*WeightedFairShare, error) {
	var c checks
	f := new(WeightedFairShare)
	f.set(&c, config)
	f.cap = func(weight float64) float64 {
		weights, _ := f.book.sums()
		return math.Floor(float64(weight/weights) * f.limit)
	}
	if len(c) > 0 {
		return nil, c.err()
	}
	return f, nil
}

// CheckWeighted is CheckN with a weight for this check and those after it instead of that
// of the configuration. Weights are finite, above 0 and at most [throttlekit.MaxSafe].
func (f *WeightedFairShare) CheckWeighted(_ context.Context, tenant string, cost, weight float64) (throttlekit.Decision, error) {
	return f.check(tenant, cost, weight)
}

// shares is what the two have in common.
type shares struct {
	weightOf WeightOf
	limit    float64
	clock    throttlekit.Clock
	cap      func(weight float64) float64 // of the tenants in the book

	mu     sync.Mutex
	book   book
	window window
}

func (s *shares) set(c *checks, config ShareConfig) {
	s.weightOf, s.limit, s.clock = config.WeightOf, c.limit(config.Limit), config.Clock
	c.window(config.Window)
	s.window = newWindow(config.Window)
	s.book = newBook(c.bound("maxTenants", config.MaxTenants, defaultTenants))
	if s.clock == nil {
		s.clock = throttlekit.SystemClock{}
	}
}

// Check decides on a request of cost 1 and charges it if it is allowed.
func (s *shares) Check(ctx context.Context, tenant string) (throttlekit.Decision, error) {
	return s.CheckN(ctx, tenant, 1)
}

// CheckN decides on a request of the given cost and charges it, whole or not at all. The
// tenant must not be empty, and the cost must be finite, above 0 and at most
// [throttlekit.MaxSafe], or the error matches [throttlekit.ErrInvalid]. A cost that is not a
// whole number makes every later check of its window slower: by some 0.3 ms with 100,000 active
// tenants.
func (s *shares) CheckN(_ context.Context, tenant string, cost float64) (throttlekit.Decision, error) {
	return s.check(tenant, cost, s.weightOf.of(tenant))
}

func (s *shares) check(tenant string, cost, weight float64) (throttlekit.Decision, error) {
	if err := validRequest(tenant, cost, weight); err != nil {
		return throttlekit.Decision{}, err
	}
	now := float64(s.clock.NowMillis())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.window.roll(now) {
		s.book.clear()
	}
	seat := s.book.seat(tenant, weight)
	_, used := s.book.sums()
	v := verdict{limit: max(1, s.cap(weight))}
	if v.allowed = used+cost <= s.limit && seat.used+cost <= v.limit; v.allowed {
		s.book.charge(seat, cost)
	}
	v.remaining = max(0, v.limit-seat.used)
	return s.window.decision(v, now), nil
}

// Reset lets a tenant go: it is active no longer, and starts anew when it asks again. What
// it has used still counts against the limit.
func (s *shares) Reset(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.book.remove(tenant)
}

// window is the current window of one process's clock. Windows only roll forward.
type window struct{ width, start float64 }

func newWindow(width time.Duration) window {
	return window{width: toMillis(width), start: math.Inf(-1)}
}

// roll moves on to the window that contains now, if that is a later one.
func (w *window) roll(now float64) bool {
	if now < w.start+w.width {
		return false
	}
	w.start = windowStart(now, w.width)
	return true
}

func (w *window) decision(v verdict, now float64) throttlekit.Decision {
	d := throttlekit.Decision{
		Allowed: v.allowed, Limit: whole(v.limit), Remaining: whole(v.remaining), ResetAtMillis: ceil(w.start + w.width),
	}
	if !v.allowed {
		d.RetryAfterMillis = max(1, ceil(float64(d.ResetAtMillis)-now))
	}
	return d
}

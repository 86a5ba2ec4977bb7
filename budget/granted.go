package budget

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

// GrantedConfig describes [NewGranted].
type GrantedConfig struct {
	// Meter is the shared budget. It is required and stays open.
	Meter *Meter
	// Batch is how many tokens one grant draws; at least 1. A grant draws what is left if that is less.
	Batch int64
	// Sizer makes a sizer for each key, which then chooses how many tokens grants draw. If
	// neither is given, it is a [lease.Learner] with its defaults.
	Sizer func() lease.Sizer
	// LowWater is at how many tokens left the next grant is drawn ahead. Defaults to 0.
	LowWater int64
	// MaxKeys bounds for how many keys tokens are held; debits of keys beyond them go to the meter
	// one by one. Defaults to 65,536.
	MaxKeys int
	// Timeout bounds each request to the meter's store; not negative. Defaults to [lease.DefaultTimeout].
	Timeout time.Duration
	// Elapsed is a monotonic clock, by which grants end with their window. Defaults to the process's.
	Elapsed func() time.Duration
}

// Granted meters tokens that it drew from a shared meter, many in one round trip. They were charged
// before, and expire with the window in which they were, so that all processes together never
// exceed a budget, not by one token. It is safe for concurrent use.
type Granted struct {
	config GrantedConfig

	mu      sync.Mutex
	holders map[string]*lease.Holder
	closed  bool
}

// NewGranted returns a meter that holds nothing yet. The error matches [throttlekit.ErrInvalid].
func NewGranted(config GrantedConfig) (*Granted, error) {
	var f faults
	f.require(config.Meter != nil, "meter", nil, "must be given")
	f.require(config.Batch >= 0 && config.Batch <= MaxTokens, "batch", config.Batch, amountRule)
	f.require(config.LowWater >= 0, "lowWater", config.LowWater, "must not be negative")
	f.require(config.Timeout >= 0, "timeout", config.Timeout, "must not be negative")
	f.require(config.MaxKeys >= 0, "maxKeys", config.MaxKeys, "must not be negative")
	if len(f) > 0 {
		return nil, joined(f)
	}
	if config.MaxKeys == 0 {
		config.MaxKeys = 65_536
	}
	if config.Batch == 0 && config.Sizer == nil {
		learner, err := lease.NewLearner(lease.LearnerConfig{})
		if err != nil {
			return nil, err
		}
		config.Sizer = func() lease.Sizer {
			one := *learner
			return &one
		}
	}
	return &Granted{config: config, holders: make(map[string]*lease.Holder)}, nil
}

// Debit meters tokens, from 1 to [MaxTokens], for a key, all of which must fit: the crossing debit
// is refused here. In decisions that allow, Remaining is what is held here. The error matches
// ErrInvalid or ErrClosed of package throttlekit, or is that of the store.
func (g *Granted) Debit(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error) {
	if err := validAmount(tokens); err != nil {
		return throttlekit.Decision{}, err
	}
	for {
		h, err := g.holder(key)
		if err != nil {
			return throttlekit.Decision{}, err
		}
		if h == nil {
			return g.directly(ctx, key, tokens)
		}
		if d, err := h.CheckN(ctx, float64(tokens)); !errors.Is(err, throttlekit.ErrClosed) || g.config.Meter.accounts.closed.Load() {
			return d, err
		}
		if g.holds(key, h) { // it is the store that is closed
			return throttlekit.Decision{}, throttlekit.ErrClosed
		}
	}
}

// holds reports whether a holder is still that of a key.
func (g *Granted) holds(key string, h *lease.Holder) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holders[key] == h
}

// directly debits the shared meter, if all tokens fit.
func (g *Granted) directly(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error) {
	timeout := g.config.Timeout
	if timeout == 0 {
		timeout = lease.DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	grant, err := (&grants{accounts: g.config.Meter.accounts}).Lease(ctx, key, tokens, tokens)
	if err != nil || grant.Units == 0 {
		return grant.Denial, err
	}
	return throttlekit.Decision{Allowed: true, Limit: grant.Limit, ResetAtMillis: grant.ResetAtMillis}, nil
}

// holder is that of a key, or nil if there is no room for one.
func (g *Granted) holder(key string) (*lease.Holder, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, throttlekit.ErrClosed
	}
	if h := g.holders[key]; h != nil {
		return h, nil
	}
	if len(g.holders) >= g.config.MaxKeys && !g.makeRoom() {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	config := lease.HolderConfig{
		Source: &grants{accounts: g.config.Meter.accounts}, Key: key, Batch: g.config.Batch,
		LowWater: g.config.LowWater, Timeout: g.config.Timeout, Elapsed: g.config.Elapsed,
	}
	if g.config.Sizer != nil {
		config.Sizer = g.config.Sizer()
	}
	h, err := lease.NewHolder(config)
	if err == nil {
		g.holders[key] = h
	}
	return h, err
}

// makeRoom drops a holder that holds nothing, if one is found among a few. A request that is about
// to be answered there is not disturbed.
func (g *Granted) makeRoom() bool {
	sample := 8
	for key, h := range g.holders {
		if h.Idle() {
			delete(g.holders, key)
			return true
		}
		if sample--; sample == 0 {
			break
		}
	}
	return false
}

// Return gives the tokens back that are held for a key. Those whose window has ended are gone already.
func (g *Granted) Return(ctx context.Context, key string) error {
	g.mu.Lock()
	h := g.holders[key]
	delete(g.holders, key)
	g.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.Close(ctx)
}

// Close gives all tokens back that are held. Later debits fail with ErrClosed of package throttlekit.
func (g *Granted) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	holders := g.holders
	g.holders = make(map[string]*lease.Holder)
	g.mu.Unlock()
	var failed []error
	for _, h := range holders {
		failed = append(failed, h.Close(ctx))
	}
	return errors.Join(failed...)
}

// grants draws from a meter for one holder.
type grants struct {
	accounts *accounts

	mu     sync.Mutex
	ends   int64   // of the latest grant
	drawn  int64   // by all grants that end so
	resets []int64 // what that is at each level
}

// attempts bounds how often a grant is tried with less than before.
const attempts = 4

// Lease implements [lease.Source]. It charges wants tokens, or what fits if that is at least least.
func (g *grants) Lease(ctx context.Context, key string, least, wants int64) (lease.Grant, error) {
	each := make([]throttlekit.Decision, len(g.accounts.levels))
	for range attempts {
		wants = min(wants, MaxTokens)
		if err := g.accounts.run(ctx, key, &step{op: opFit, cost: float64(wants)}, each, nil); err != nil {
			return lease.Grant{}, err
		}
		fits := int64(math.MaxInt64)
		for i := range each {
			if !each[i].Allowed {
				fits = min(fits, each[i].Remaining)
			}
		}
		if fits == math.MaxInt64 {
			return g.granted(each, wants), nil
		}
		if fits < least {
			break
		}
		wants = fits
	}
	return lease.Grant{Denial: g.accounts.verdict(each).Decision}, nil
}

// granted is a grant that ends with the first window of any level.
func (g *grants) granted(each []throttlekit.Decision, units int64) lease.Grant {
	first := slices.MinFunc(each, func(a, b throttlekit.Decision) int { return int(a.RetryAfterMillis - b.RetryAfterMillis) })
	resets := make([]int64, len(each))
	for i := range each {
		resets[i] = each[i].ResetAtMillis
	}
	g.mu.Lock()
	if !slices.Equal(g.resets, resets) {
		g.drawn = 0
	}
	g.ends, g.resets = first.ResetAtMillis, resets
	g.drawn += units
	g.mu.Unlock()
	lasts := time.Duration(first.RetryAfterMillis) * time.Millisecond
	return lease.Grant{Units: units, Limit: first.Limit, ResetAtMillis: first.ResetAtMillis, ResetsIn: lasts, Lasts: lasts}
}

// Return implements [lease.Source].
func (g *grants) Return(ctx context.Context, key string, units, resetAtMillis int64) error {
	g.mu.Lock()
	ends, resets := g.ends, g.resets
	units = min(units, g.drawn)
	g.mu.Unlock()
	if resetAtMillis != ends || units < 1 {
		return nil // of a window that is over
	}
	each := make([]throttlekit.Decision, len(g.accounts.levels))
	return g.accounts.run(ctx, key, &step{op: opRefund, cost: float64(units), resets: resets}, each, nil)
}

package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/internal/monotonic"
)

// Mode says what a [TwoTier] does in the process before it asks the store.
type Mode string

// The modes, spelled as policy files spell them.
const (
	// Leased spends units that were charged in batches.
	Leased Mode = "leased"
	// CachedDeny remembers denials and repeats them until they end.
	CachedDeny Mode = "cached-deny"
	// Strict asks the store every time.
	Strict Mode = "strict"
)

// Modes are all modes, the default first.
func Modes() []Mode { return []Mode{Leased, CachedDeny, Strict} }

// TwoTierConfig describes a [TwoTier].
type TwoTierConfig struct {
	// Strategy is the limit that all processes share. It is required.
	Strategy throttlekit.Strategy
	// Store keeps its records. It is required and stays open.
	Store throttlekit.Store
	// Prefix stores every key as "prefix:key".
	Prefix string
	// Mode defaults to Leased. The fields below are for it, but for MaxKeys and Elapsed.
	Mode Mode
	// Batch is how many units a lease takes; at least 1. A lease takes what is left if
	// that is less. With a Sizer it may be 0.
	Batch int64
	// Sizer makes a sizer for each key, which then chooses how many units leases take. It
	// may be called by many goroutines at once; it and its sizers must not call the limiter.
	Sizer func() Sizer
	// LowWater is at how many units left the next lease is fetched ahead. Defaults to 0,
	// which fetches when a request is short.
	LowWater int64
	// ReturnIdleAfter gives the units of keys back that nobody has asked for during this
	// time; it is also how often idle keys are looked for. Only strategies with windows
	// take units back; for others they are dropped. Defaults to never.
	ReturnIdleAfter time.Duration
	// WindowCoupled discards units when the window ends in which they were charged, so
	// that no window ever admits more than the limit. It needs a strategy whose budget
	// starts anew with each window: [throttlekit.FixedWindow], or a quota that does not roll.
	WindowCoupled bool
	// ExpireAfter discards units this long after the request for them was sent, and
	// charges by a strategy that pays for the delay, so that admissions keep to Strategy's
	// own envelope. It needs a strategy that can pay: [throttlekit.GCRA],
	// [throttlekit.TokenBucket] or [throttlekit.SlidingWindowLog]. It excludes WindowCoupled.
	ExpireAfter time.Duration
	// MaxKeys bounds for how many keys units are held, or denials remembered. The key that
	// was used least recently among a few makes room for a new one, and its units are
	// lost. Defaults to 65,536.
	MaxKeys int
	// Elapsed is a monotonic clock. Defaults to the process's.
	Elapsed func() time.Duration
}

// TwoTier is a limit on a shared store with a first tier in the process, which answers
// without a round trip what it can. It is safe for concurrent use.
//
// With Mode Leased, N processes admit in one window at most Limit units if WindowCoupled.
// If not, each may carry units over from the last window: up to Batch-1 with costs of 1 and
// no LowWater, and up to Batch + max(LowWater, cost-1) in general. With ExpireAfter, they
// admit in any interval what Strategy alone would admit at most.
type TwoTier struct {
	config  TwoTierConfig
	limiter *throttlekit.Limiter // of the second tier
	table   *table               // nil unless Leased
	denials *denials             // nil unless CachedDeny
}

// NewTwoTier returns a two-tier limiter. The error matches [throttlekit.ErrInvalid].
func NewTwoTier(config TwoTierConfig) (*TwoTier, error) {
	if config.Mode == "" {
		config.Mode = Leased
	}
	if config.MaxKeys == 0 {
		config.MaxKeys = defaultMaxKeys
	}
	if config.Elapsed == nil {
		config.Elapsed = monotonic.Elapsed
	}
	rule, charged, err := config.judge()
	if err != nil {
		return nil, err
	}
	limiter, err := throttlekit.NewLimiter(charged.Strategy(), throttlekit.WithStore(config.Store), throttlekit.WithPrefix(config.Prefix))
	if err != nil {
		return nil, err
	}
	t := &TwoTier{config: config, limiter: limiter}
	switch config.Mode {
	case Leased:
		source := newRuleSource(rule, charged, config)
		t.table = newTable(config.MaxKeys, config.ReturnIdleAfter, config.Elapsed, func(key string) (*Holder, error) {
			return NewHolder(config.holder(source, key, rule.Limit()))
		})
	case CachedDeny:
		t.denials = newDenials(config.MaxKeys)
	case Strict:
	}
	return t, nil
}

func (c TwoTierConfig) holder(source Source, key string, limit int64) HolderConfig {
	h := HolderConfig{
		Source: source, Key: key, Limit: limit, Batch: c.Batch, LowWater: c.LowWater, Elapsed: c.Elapsed,
	}
	if c.Sizer != nil {
		h.Sizer = c.Sizer()
	}
	return h
}

// judge returns the rule that users see and the one to charge by.
func (c TwoTierConfig) judge() (rule, charged throttlekit.Rule, err error) {
	var wrong []error
	fail := func(field string, value any, text string) {
		wrong = append(wrong, &throttlekit.InvalidError{Field: field, Value: value, Rule: text})
	}
	if c.Store == nil {
		fail("store", nil, "must be given")
	}
	if c.MaxKeys < 0 {
		fail("maxKeys", c.MaxKeys, "must not be negative")
	}
	if c.Strategy == nil {
		fail("strategy", nil, "must be given")
		return nil, nil, errors.Join(wrong...)
	}
	if rule, err = c.Strategy.Rule(); err != nil {
		return nil, nil, errors.Join(append(wrong, err)...)
	}
	charged = rule
	switch c.Mode {
	case Leased:
		charged = c.judgeLease(rule, &wrong, fail)
	case CachedDeny, Strict:
	default:
		fail("mode", string(c.Mode), fmt.Sprintf("must be one of %s, %s and %s", Leased, CachedDeny, Strict))
	}
	return rule, charged, errors.Join(wrong...)
}

func (c TwoTierConfig) judgeLease(rule throttlekit.Rule, wrong *[]error, fail func(field string, value any, text string)) throttlekit.Rule {
	switch {
	case c.Batch == 0 && c.Sizer == nil:
		fail("lease.batch", c.Batch, "must be given, or lease.adaptive")
	case c.Batch < 0 || c.Batch > throttlekit.MaxSafe:
		fail("lease.batch", c.Batch, batchRule)
	}
	if c.Sizer != nil && c.Sizer() == nil {
		fail("lease.adaptive", nil, "must make a sizer")
	}
	if c.LowWater < 0 {
		fail("lowWater", c.LowWater, "must not be negative")
	}
	if c.ReturnIdleAfter < 0 {
		fail("returnIdleAfter", c.ReturnIdleAfter, "must not be negative")
	}
	if _, ok := rule.(throttlekit.Windowed); c.WindowCoupled && !ok {
		fail("windowCoupled", true,
			"must be false for strategy "+rule.Name()+", whose budget does not start anew with each window; give expireAfter")
	}
	switch {
	case c.ExpireAfter == 0:
		return rule
	case c.ExpireAfter > 0 && usable(c.ExpireAfter) < 1:
		fail("expireAfter", c.ExpireAfter, "must be at least 3ms, as up to 2 are lost to rounding")
		return rule
	case c.WindowCoupled:
		fail("expireAfter", c.ExpireAfter, "must not be given together with windowCoupled")
		return rule
	}
	deferrable, ok := rule.Strategy().(throttlekit.Deferrable)
	if !ok {
		fail("expireAfter", c.ExpireAfter, "must not be given for strategy "+rule.Name()+", which cannot pay for a delay")
		return rule
	}
	strategy, err := deferrable.Defer(c.ExpireAfter)
	var charged throttlekit.Rule
	if err == nil {
		charged, err = strategy.Rule()
	}
	if err != nil {
		if invalid, ok := errors.AsType[*throttlekit.InvalidError](err); ok && invalid.Field == "delay" {
			err = &throttlekit.InvalidError{Field: "expireAfter", Value: invalid.Value, Rule: invalid.Rule}
		}
		*wrong = append(*wrong, err)
		return rule
	}
	return charged
}

// Check decides on a request of cost 1.
func (t *TwoTier) Check(ctx context.Context, key string) (throttlekit.Decision, error) {
	return t.CheckN(ctx, key, 1)
}

// CheckN decides on a request of the given cost and charges it, whole or not at all.
// Decisions that were made in the process report in Remaining what is left there. Errors
// are those of [throttlekit.Limiter.CheckN].
func (t *TwoTier) CheckN(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	switch t.config.Mode {
	case Leased:
		return t.table.checkN(ctx, key, cost)
	case CachedDeny:
		return t.checkDenied(ctx, key, cost)
	case Strict:
	}
	return t.limiter.CheckN(ctx, key, cost)
}

// checkDenied repeats a denial as long as the store's own would last. A cheaper request
// than the denied one may fit, so it goes to the store.
func (t *TwoTier) checkDenied(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	if err := validCost(cost); err != nil {
		return throttlekit.Decision{}, err
	}
	sent := t.config.Elapsed().Milliseconds()
	d, ok, resets := t.denials.find(key, cost, sent)
	if ok {
		return d, nil
	}
	d, err := t.limiter.CheckN(ctx, key, cost)
	if err == nil && !d.Allowed {
		t.denials.keep(key, resets, denial{decision: d, cost: cost, until: sent + d.RetryAfterMillis})
	}
	return d, err
}

// checkAtOnce bounds how many keys of a CheckMany wait for the store at the same time.
const checkAtOnce = 32

// CheckMany decides on one request of the given cost for each key, each for itself, and
// returns the decisions in the order of the keys. If the store fails for one, it fails.
func (t *TwoTier) CheckMany(ctx context.Context, keys []string, cost float64) ([]throttlekit.Decision, error) {
	if t.config.Mode == Strict {
		return t.limiter.CheckMany(ctx, keys, cost)
	}
	return checkEach(ctx, keys, func(key string) (throttlekit.Decision, error) { return t.CheckN(ctx, key, cost) })
}

// checkEach runs check for every key, some at a time.
func checkEach(ctx context.Context, keys []string, check func(key string) (throttlekit.Decision, error)) ([]throttlekit.Decision, error) {
	decisions, errs := make([]throttlekit.Decision, len(keys)), make([]error, len(keys))
	slots := make(chan struct{}, checkAtOnce)
	var failed atomic.Bool
	var work sync.WaitGroup
	for i, key := range keys {
		slots <- struct{}{}
		if errs[i] = ctx.Err(); errs[i] != nil || failed.Load() {
			break
		}
		work.Go(func() {
			if decisions[i], errs[i] = check(key); errs[i] != nil {
				failed.Store(true)
			}
			<-slots
		})
	}
	work.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

// Reset forgets what the key has spent, here and in the store. Other processes keep the
// units that they hold.
func (t *TwoTier) Reset(ctx context.Context, key string) error {
	if t.table != nil {
		t.table.forget(key)
	}
	if t.denials != nil {
		t.denials.forget(key)
	}
	return t.limiter.Reset(ctx, key)
}

// Close gives back the units that are held, as far as the strategy takes them back. The
// store stays open.
func (t *TwoTier) Close() error {
	if t.table == nil {
		return nil
	}
	return t.table.close()
}

// ruleSource lends by charging a rule on a store.
type ruleSource struct {
	store   throttlekit.Store
	prefix  string
	limit   int64 // that users see
	charged throttlekit.Rule
	one     throttlekit.Transition // of a lease that takes whatever there is
	expiry  func(resetsIn time.Duration) time.Duration
}

func newRuleSource(rule, charged throttlekit.Rule, config TwoTierConfig) *ruleSource {
	s := &ruleSource{
		store: config.Store, prefix: config.Prefix, limit: rule.Limit(), charged: charged, one: throttlekit.UpTo(charged, 1),
		expiry: func(time.Duration) time.Duration { return config.ExpireAfter },
	}
	if s.prefix != "" {
		s.prefix += ":"
	}
	if config.WindowCoupled {
		s.expiry = func(resetsIn time.Duration) time.Duration { return resetsIn }
	}
	return s
}

// Lease implements [Source].
func (s *ruleSource) Lease(ctx context.Context, key string, least, wants int64) (Grant, error) {
	t := s.one
	if least > 1 {
		t = throttlekit.UpTo(s.charged, float64(least))
	}
	d, err := s.store.Apply(ctx, s.prefix+key, t, float64(wants))
	if err != nil {
		return Grant{}, err
	}
	g := grantOf(d)
	g.Denial.Limit = s.limit
	g.Lasts = s.expiry(g.ResetsIn)
	return g, nil
}

// grantOf reads the decision of a lease; see [throttlekit.UpTo].
func grantOf(d throttlekit.Decision) Grant {
	if !d.Allowed {
		return Grant{Denial: d}
	}
	return Grant{Units: d.Remaining, ResetAtMillis: d.ResetAtMillis, ResetsIn: max(time.Millisecond, d.RetryAfter())}
}

// Return implements [Source].
func (s *ruleSource) Return(ctx context.Context, key string, units, resetAtMillis int64) error {
	windowed, ok := s.charged.(throttlekit.Windowed)
	if !ok {
		return nil
	}
	_, err := s.store.Apply(ctx, s.prefix+key, windowed.Refund(resetAtMillis), float64(units))
	return err
}

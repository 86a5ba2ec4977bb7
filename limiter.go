package throttlekit

import "context"

// Checker answers whether one request on a key may go ahead. A [Limiter], a policy of
// a remote service and a leased limiter are all Checkers; middleware takes one.
type Checker interface {
	Check(ctx context.Context, key string) (Decision, error)
}

// Limiter applies one strategy to any number of keys. It is safe for concurrent use.
type Limiter struct {
	rule  Rule
	store Store
	owned bool // the limiter made the store and closes it
}

// Option changes how [NewLimiter] and its siblings set a limiter up.
type Option func(*options)

type options struct {
	store  Store
	clock  Clock
	prefix string
}

// WithStore keeps the records in store, which several limiters, and with a shared store
// several processes, may use together. The limiter does not close it. By default each
// limiter has a [MemoryStore] of its own.
func WithStore(store Store) Option { return func(o *options) { o.store = store } }

// WithClock drives the limiter's own in-memory store by clock instead of the system
// clock. A store given with [WithStore] has its own clock, so the two exclude each other.
func WithClock(clock Clock) Option { return func(o *options) { o.clock = clock } }

// WithPrefix stores every key as "prefix:key", to keep limiters that share a store
// apart. An empty prefix stores keys as they are.
func WithPrefix(prefix string) Option { return func(o *options) { o.prefix = prefix } }

// settle resolves options to a store; owned reports whether it was made here.
func settle(opts []Option) (store Store, owned bool, err error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	switch {
	case o.store == nil:
		if o.store, err = NewMemoryStore(MemoryConfig{Clock: o.clock}); err != nil {
			return nil, false, err
		}
		owned = true
	case o.clock != nil:
		return nil, false, &InvalidError{
			Field: "clock", Value: "WithClock", Rule: "must not be given together with WithStore, whose own clock counts",
		}
	}
	if o.prefix != "" {
		o.store = prefixed{store: o.store, prefix: o.prefix + ":"}
	}
	return o.store, owned, nil
}

// NewLimiter validates strategy and returns a limiter for it. The error matches
// [ErrInvalid] if the strategy or the options are wrong.
func NewLimiter(strategy Strategy, opts ...Option) (*Limiter, error) {
	if strategy == nil {
		return nil, &InvalidError{Field: "strategy", Value: nil, Rule: "must be given"}
	}
	rule, err := strategy.Rule()
	if err != nil {
		return nil, err
	}
	store, owned, err := settle(opts)
	if err != nil {
		return nil, err
	}
	return &Limiter{rule: rule, store: store, owned: owned}, nil
}

// Rule is the validated strategy.
func (l *Limiter) Rule() Rule { return l.rule }

// Check decides on a request of cost 1 and charges it if it is allowed.
func (l *Limiter) Check(ctx context.Context, key string) (Decision, error) {
	return l.store.Apply(ctx, key, l.rule, 1)
}

// CheckN decides on a request of the given cost and charges it, whole or not at all.
// The cost must be finite, above 0 and at most [MaxSafe], or the error matches [ErrInvalid].
func (l *Limiter) CheckN(ctx context.Context, key string, cost float64) (Decision, error) {
	if err := validCost(cost); err != nil {
		return Decision{}, err
	}
	return l.store.Apply(ctx, key, l.rule, cost)
}

// CheckMany decides on one request of the given cost for each key, at one instant, and
// returns the decisions in the order of the keys. Each key stands for itself: one
// denial does not hinder the others, and a key given twice is charged twice.
func (l *Limiter) CheckMany(ctx context.Context, keys []string, cost float64) ([]Decision, error) {
	if err := validCost(cost); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, nil
	}
	ops := make([]Op, len(keys))
	for i, key := range keys {
		ops[i] = Op{Key: key, Transition: l.rule, Cost: cost}
	}
	return l.store.Batch(ctx, ops, CommitEach)
}

// Peek is the decision that a check of cost 1 would get now. It charges nothing.
func (l *Limiter) Peek(ctx context.Context, key string) (Decision, error) {
	rec, now, err := l.store.Load(ctx, key, l.rule)
	if err != nil {
		return Decision{}, err
	}
	return l.rule.Peek(rec, now), nil
}

// Forecast says how many requests of the given cost the key could spend now, and when
// it gets more. It charges nothing. The cost follows the rule of [Limiter.CheckN].
func (l *Limiter) Forecast(ctx context.Context, key string, cost float64) (Forecast, error) {
	if err := validCost(cost); err != nil {
		return Forecast{}, err
	}
	rec, now, err := l.store.Load(ctx, key, l.rule)
	if err != nil {
		return Forecast{}, err
	}
	return l.rule.Forecast(rec, now, cost), nil
}

// Reset forgets what the key has spent.
func (l *Limiter) Reset(ctx context.Context, key string) error {
	return l.store.Reset(ctx, key)
}

// Close closes the limiter's own in-memory store. A store given with [WithStore] stays open.
func (l *Limiter) Close() error {
	if !l.owned {
		return nil
	}
	return l.store.Close()
}

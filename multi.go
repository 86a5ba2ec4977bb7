package throttlekit

import (
	"context"
	"fmt"
)

// Dimension is one named limit of a [MultiLimiter], such as a limit per user or per address.
type Dimension struct {
	// Name identifies the dimension; it must be unique and not empty. Its records
	// are stored under "name:key".
	Name string
	// Strategy is the dimension's rule.
	Strategy Strategy
	// Weight multiplies the cost of a check for this dimension. Zero means 1.
	Weight float64
}

// Keys names the key that a check uses in each dimension.
type Keys map[string]string

// MultiDecision is the outcome over all dimensions. The embedded Decision is that of
// the dimension named in Dimension; if the request is denied as a whole, Allowed is
// false and RetryAfterMillis that dimension's.
type MultiDecision struct {
	Decision

	// Dimension is the one that bound: of [All] the one that denied for longest, or
	// the one with the least left; of [Any] the one with the most left, or the one
	// that frees first. The earliest declared wins a tie.
	Dimension string
	// Each holds every dimension's own decision, in declaration order. After a
	// denial by All, those that allowed were not charged.
	Each []Decision
}

// MultiLimiter decides one request over several dimensions in one atomic step.
type MultiLimiter struct {
	dimensions []Dimension
	rules      []Rule
	store      Store
	owned      bool
	commit     Commit
	better     func(a, b Decision) bool
}

// All returns a limiter that admits a request only if every dimension does, and then
// charges every one. A denial charges none. Specification: §3.3.
func All(dimensions []Dimension, opts ...Option) (*MultiLimiter, error) {
	return newMulti(dimensions, CommitAll, binds, opts)
}

// Any returns a limiter that admits a request if at least one dimension does, and
// charges those that admit it. Specification: §3.3.
func Any(dimensions []Dimension, opts ...Option) (*MultiLimiter, error) {
	return newMulti(dimensions, CommitAny, frees, opts)
}

func newMulti(dimensions []Dimension, commit Commit, better func(a, b Decision) bool, opts []Option) (*MultiLimiter, error) {
	m := &MultiLimiter{commit: commit, better: better}
	var c checks
	c.require(len(dimensions) > 0, "dimensions", len(dimensions), "must be at least one")
	names := make(map[string]bool, len(dimensions))
	for i, d := range dimensions {
		field := fmt.Sprintf("dimensions[%d]", i)
		if d.Weight == 0 {
			d.Weight = 1
		}
		c.require(d.Name != "" && !names[d.Name], field+".name", d.Name, "must be unique and not empty")
		c.positive(field+".weight", d.Weight)
		names[d.Name] = true
		if d.Strategy == nil {
			c.fail(field+".strategy", nil, "must be given")
			continue
		}
		rule, err := d.Strategy.Rule()
		if err != nil {
			c = append(c, fmt.Errorf("%s.strategy: %w", field, err))
		}
		m.dimensions, m.rules = append(m.dimensions, d), append(m.rules, rule)
	}
	if len(c) > 0 {
		return nil, c.err()
	}
	var err error
	if m.store, m.owned, err = settle(opts); err != nil {
		return nil, err
	}
	return m, nil
}

// binds orders the dimensions of All: denials before allowances, the longest wait
// first among denials, the least remaining among allowances.
func binds(a, b Decision) bool {
	switch {
	case a.Allowed != b.Allowed:
		return !a.Allowed
	case a.Allowed:
		return a.Remaining < b.Remaining
	default:
		return a.RetryAfterMillis > b.RetryAfterMillis
	}
}

// frees orders the dimensions of Any: allowances before denials, the most remaining
// first among allowances, the shortest wait among denials.
func frees(a, b Decision) bool {
	switch {
	case a.Allowed != b.Allowed:
		return a.Allowed
	case a.Allowed:
		return a.Remaining > b.Remaining
	default:
		return a.RetryAfterMillis < b.RetryAfterMillis
	}
}

// Check decides on a request of the given cost. Keys must name a key for every
// dimension and no other, or the error matches [ErrInvalid]; so must the cost, and
// the cost times each weight, follow the rule of [Limiter.CheckN].
func (m *MultiLimiter) Check(ctx context.Context, keys Keys, cost float64) (MultiDecision, error) {
	if err := validCost(cost); err != nil {
		return MultiDecision{}, err
	}
	ops, err := m.ops(keys, cost)
	if err != nil {
		return MultiDecision{}, err
	}
	each, err := m.store.Batch(ctx, ops, m.commit)
	if err != nil {
		return MultiDecision{}, err
	}
	best := 0
	for i, d := range each {
		if m.better(d, each[best]) {
			best = i
		}
	}
	return MultiDecision{Decision: each[best], Dimension: m.dimensions[best].Name, Each: each}, nil
}

// Reset forgets what the given keys have spent, each in its dimension.
func (m *MultiLimiter) Reset(ctx context.Context, keys Keys) error {
	ops, err := m.ops(keys, 1)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if err := m.store.Reset(ctx, op.Key); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the limiter's own in-memory store. A store given with [WithStore] stays open.
func (m *MultiLimiter) Close() error {
	if !m.owned {
		return nil
	}
	return m.store.Close()
}

func (m *MultiLimiter) ops(keys Keys, cost float64) ([]Op, error) {
	var c checks
	ops := make([]Op, len(m.dimensions))
	for i, d := range m.dimensions {
		key, ok := keys[d.Name]
		c.require(ok, "keys."+d.Name, nil, "must name a key for this dimension")
		weighted := d.Weight * cost
		c.require(validCost(weighted) == nil, "cost", weighted, costRule+" after weighting for "+d.Name)
		ops[i] = Op{Key: d.Name + ":" + key, Transition: m.rules[i], Cost: weighted}
	}
	c.require(len(keys) <= len(m.dimensions), "keys", len(keys), "must name no key beyond the dimensions")
	if len(c) > 0 {
		return nil, c.err()
	}
	return ops, nil
}

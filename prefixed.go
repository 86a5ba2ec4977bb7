package throttlekit

import "context"

// prefixed is a part of a store: the keys that begin with a prefix, which its users do
// not see.
type prefixed struct {
	store  Store
	prefix string
}

func (p prefixed) Apply(ctx context.Context, key string, t Transition, cost float64) (Decision, error) {
	return p.store.Apply(ctx, p.prefix+key, t, cost)
}

func (p prefixed) Batch(ctx context.Context, ops []Op, commit Commit) ([]Decision, error) {
	full := make([]Op, len(ops))
	for i, op := range ops {
		op.Key = p.prefix + op.Key
		full[i] = op
	}
	return p.store.Batch(ctx, full, commit)
}

func (p prefixed) Load(ctx context.Context, key string, t Transition) (Record, int64, error) {
	return p.store.Load(ctx, p.prefix+key, t)
}

func (p prefixed) Reset(ctx context.Context, key string) error {
	return p.store.Reset(ctx, p.prefix+key)
}

func (p prefixed) Close() error { return p.store.Close() }

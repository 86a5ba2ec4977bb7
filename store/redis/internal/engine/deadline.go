package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// deadlines bounds calls whose context has no deadline. A context of its own for each call
// costs more than all else that happens here, so calls that nothing but the deadline can
// end share one for a short while. They get a little less than the timeout.
type deadlines struct {
	timeout time.Duration
	current atomic.Pointer[sharedDeadline]
}

type sharedDeadline struct {
	ctx    context.Context //nolint:containedctx // it is what is shared
	cancel context.CancelFunc
	born   time.Time
}

// sharing is the part of the timeout for which calls share a deadline.
const sharing = 16

func noCancel() {}

// bound returns a context that ends with ctx or after the timeout, whichever comes first.
func (d *deadlines) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, noCancel
	}
	if ctx.Done() != nil {
		return context.WithTimeout(ctx, d.timeout)
	}
	end := d.shared()
	if ctx == context.Background() || ctx == context.TODO() {
		return end, noCancel
	}
	return &bounded{ctx, end}, noCancel
}

func (d *deadlines) shared() context.Context {
	now := time.Now()
	if s := d.current.Load(); s != nil && now.Sub(s.born) < d.timeout/sharing {
		return s.ctx
	}
	s := &sharedDeadline{born: now}
	// Nobody cancels it: those who have it do so until its deadline, at which it ends by itself.
	s.ctx, s.cancel = context.WithDeadline(context.Background(), now.Add(d.timeout)) //nolint:gosec // see above
	d.current.Store(s)
	return s.ctx
}

// bounded has the values of one context and the end of another.
type bounded struct {
	context.Context //nolint:containedctx // this is a context

	end context.Context //nolint:containedctx // and so is this
}

func (b *bounded) Deadline() (time.Time, bool) { return b.end.Deadline() }
func (b *bounded) Done() <-chan struct{}       { return b.end.Done() }
func (b *bounded) Err() error                  { return b.end.Err() }

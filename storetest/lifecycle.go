package storetest

import (
	"context"
	"errors"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// call is one way of using a store.
type call struct {
	name string
	do   func(ctx context.Context) error
}

// calls are all of them, on one key and one fresh one.
func (f *fixture) calls() []call {
	rule := f.rule(strategy("fixedWindow", 10))
	batch := func(commit throttlekit.Commit) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := f.Store.Batch(ctx, []throttlekit.Op{op("batch", rule, 1), op("batch 2", rule, 1)}, commit)
			return err
		}
	}
	apply := func(key string, t throttlekit.Transition) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := f.Store.Apply(ctx, key, t, 1)
			return err
		}
	}
	all := []call{
		{"Apply", apply("used", lasting)},
		{"Apply on a fresh key", apply("fresh", lasting)},
		{"Apply that persists nothing", apply("fresh 2", reader{})},
		{"Apply of a strategy", apply("fresh 3", rule)},
		{"Load", func(ctx context.Context) error {
			_, _, err := f.Store.Load(ctx, "used", lasting)
			return err
		}},
		{"Reset", func(ctx context.Context) error { return f.Store.Reset(ctx, "used") }},
		{"Batch of CommitEach", batch(throttlekit.CommitEach)},
	}
	if f.atomic(rule) {
		all = append(all,
			call{"Batch of CommitAll", batch(throttlekit.CommitAll)},
			call{"Batch of CommitAny", batch(throttlekit.CommitAny)})
	}
	return all
}

// cancelledContext: a call whose context has ended returns soon, with the decision or
// with an error that says why there is none, and harms nobody after it.
func cancelledContext(f *fixture) {
	const soon = 20 * time.Second
	f.apply("used", lasting, 1)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	for _, c := range f.calls() {
		done := make(chan error, 1)
		go func() { done <- c.do(ctx) }()
		timer := time.NewTimer(soon)
		select {
		case err := <-done:
			timer.Stop()
			if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, throttlekit.ErrStoreUnavailable) {
				f.Errorf("%s with a cancelled context: %v", c.name, err)
			}
		case <-timer.C:
			f.Fatalf("%s with a cancelled context has not returned after %v", c.name, soon)
		}
	}
	if d := f.apply("after", lasting, 1); d.Remaining != 1 {
		f.Errorf("afterwards a fresh counter answers %d", d.Remaining)
	}
}

// closedRefuses: after Close every call fails with ErrClosed, and Close may be called again.
func closedRefuses(f *fixture) {
	f.apply("used", lasting, 1)
	for range 2 {
		if err := f.Store.Close(); err != nil {
			f.Fatalf("Close: %v", err)
		}
	}
	for _, c := range f.calls() {
		if err := c.do(f.ctx); !errors.Is(err, throttlekit.ErrClosed) {
			f.Errorf("%s after Close: %v, want ErrClosed", c.name, err)
		}
	}
	if f.Peer == nil {
		return
	}
	if d, err := f.Peer.Apply(f.ctx, "used", lasting, 1); err != nil || d.Remaining != 2 {
		f.Errorf("the peer after Close: %+v, %v, want the record kept", d, err)
	}
}

package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/storetest"
)

// flaky is a store that fails when it is told to.
type flaky struct {
	throttlekit.Store

	err   atomic.Pointer[error]
	loads atomic.Int64
	block chan struct{} // Load waits for it, if it is there
}

func (f *flaky) fail(err error) { f.err.Store(&err) }

func (f *flaky) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	if err := f.err.Load(); err != nil && *err != nil {
		return throttlekit.Decision{}, *err
	}
	return f.Store.Apply(ctx, key, t, cost)
}

func (f *flaky) Load(ctx context.Context, key string, t throttlekit.Transition) (throttlekit.Record, int64, error) {
	f.loads.Add(1)
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return throttlekit.Record{}, 0, fmt.Errorf("%w: %w", throttlekit.ErrStoreUnavailable, ctx.Err())
		}
	}
	if err := f.err.Load(); err != nil && *err != nil {
		return throttlekit.Record{}, 0, *err
	}
	return f.Store.Load(ctx, key, t)
}

var errDown = fmt.Errorf("%w: connection refused", throttlekit.ErrStoreUnavailable)

// watchFlaky is a flaky store, watched by a clock that the test moves.
func watchFlaky(tb testing.TB) (w *WatchedStore, f *flaky, clock *atomic.Int64) {
	tb.Helper()
	memory, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	f = &flaky{Store: memory}
	if w, err = WatchStore(f); err != nil {
		tb.Fatal(err)
	}
	clock = new(atomic.Int64)
	w.now = func() time.Duration { return time.Duration(clock.Load()) }
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w, f, clock
}

// A watched store is a store.
func TestWatchedStoreIsAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		clock := throttlekit.NewManualClock(epoch)
		memory, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		w, err := WatchStore(memory)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Close() })
		return storetest.Harness{Store: w, Clock: clock}
	})
}

func TestWatchedStoreCounts(t *testing.T) {
	t.Parallel()
	w, f, clock := watchFlaky(t)
	apply := func(ctx context.Context) { _, _ = w.Apply(ctx, "k", w.probe, 1) }
	apply(t.Context())
	clock.Add(int64(time.Second))
	if got, want := w.Health(), (StoreHealth{Operations: 1, Answering: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	f.fail(errDown)
	apply(t.Context())
	if got, want := w.Health(), (StoreHealth{Operations: 2, Errors: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	f.fail(nil)
	apply(t.Context())
	// Faults of the caller say nothing about the store.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	f.fail(errDown)
	apply(gone)
	f.fail(throttlekit.ErrInvalid)
	apply(t.Context())
	if got, want := w.Health(), (StoreHealth{Operations: 5, Errors: 1, Answering: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := WatchStore(nil); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// Callers that give a store little time say nothing about it, unless it has answered none of them for a second.
func TestWatchedStoreHangsForCallersInAHurry(t *testing.T) {
	t.Parallel()
	w, f, clock := watchFlaky(t)
	brief, cancel := context.WithDeadline(t.Context(), time.UnixMilli(0))
	defer cancel()
	for _, tt := range []struct {
		after     time.Duration
		err       error
		answering bool
	}{
		{time.Second, errDown, true},
		{900 * time.Millisecond, errDown, true},
		{200 * time.Millisecond, errDown, false},
		{0, nil, true},
		{time.Hour, errDown, true},
		{time.Second, errDown, false},
	} {
		clock.Add(int64(tt.after))
		f.fail(tt.err)
		ctx := brief
		if tt.err == nil {
			ctx = t.Context()
		}
		_, _ = w.Apply(ctx, "k", w.probe, 1)
		if got := w.Health(); got.Answering != tt.answering {
			t.Errorf("%+v: got %+v", tt, got)
		}
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	w, f, clock := watchFlaky(t)
	second := func() { clock.Add(int64(time.Second)) }
	ready := func(want error, loads int64) {
		t.Helper()
		if err := w.Ready(t.Context()); !errors.Is(err, want) || f.loads.Load() != loads {
			t.Errorf("got %v after %d probes, want %v after %d", err, f.loads.Load(), want, loads)
		}
	}
	ready(nil, 1) // nothing is known, so it asks
	ready(nil, 1)
	second()
	ready(nil, 2)
	second()
	if _, err := w.Apply(t.Context(), "k", w.probe, 1); err != nil {
		t.Fatal(err)
	}
	ready(nil, 2) // an operation told
	f.fail(errDown)
	_, _ = w.Apply(t.Context(), "k", w.probe, 1)
	ready(throttlekit.ErrStoreUnavailable, 3) // what failed may be one operation, so it asks
	for range 1000 {
		ready(throttlekit.ErrStoreUnavailable, 3)
	}
	second()
	ready(throttlekit.ErrStoreUnavailable, 4)
	f.fail(nil)
	ready(throttlekit.ErrStoreUnavailable, 4)
	second()
	ready(nil, 5)
}

// However many ask, the store is asked once, and who leaves is not kept.
func TestReadyAtOnce(t *testing.T) {
	t.Parallel()
	w, f, _ := watchFlaky(t)
	f.block = make(chan struct{})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if err := w.Ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	for f.loads.Load() == 0 {
		if t.Context().Err() != nil {
			t.Fatal("nobody asks")
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Ready(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(f.block)
	all.Wait()
	if got := f.loads.Load(); got != 1 {
		t.Errorf("%d probes", got)
	}
}

// A store that never answers is not waited for.
func TestReadyHasADeadline(t *testing.T) {
	t.Parallel()
	w, f, _ := watchFlaky(t)
	f.block = make(chan struct{})
	if err := w.Ready(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

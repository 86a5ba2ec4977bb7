package lease_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
)

// world is a store and the holders' time, which go together unless a test says otherwise.
type world struct {
	clock *throttlekit.ManualClock
	store *countingStore
}

func newWorld(t *testing.T) *world {
	t.Helper()
	clock := throttlekit.NewManualClock(0)
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{clock: clock, store: &countingStore{Store: store}}
}

func (w *world) elapsed() time.Duration { return time.Duration(w.clock.NowMillis()) * time.Millisecond }

// countingStore counts and can hold up or fail what goes to the store.
type countingStore struct {
	throttlekit.Store

	applied atomic.Int64
	mu      sync.Mutex
	gate    chan struct{} // if not nil, Apply waits for it to be closed
	fault   error
	lose    bool // the fault comes after the operation
}

func (s *countingStore) hold() (release func()) {
	gate := make(chan struct{})
	s.mu.Lock()
	s.gate = gate
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		s.gate = nil
		s.mu.Unlock()
		close(gate)
	}
}

func (s *countingStore) fail(err error, afterwards bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.lose = err, afterwards
}

func (s *countingStore) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	s.applied.Add(1)
	s.mu.Lock()
	gate, fault, lose := s.gate, s.fault, s.lose
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if fault != nil && !lose {
		return throttlekit.Decision{}, fault
	}
	d, err := s.Store.Apply(ctx, key, t, cost)
	if fault != nil {
		return throttlekit.Decision{}, fault
	}
	return d, err
}

func (w *world) twoTier(t *testing.T, config lease.TwoTierConfig) *lease.TwoTier {
	t.Helper()
	if config.Store == nil {
		config.Store = w.store
	}
	if config.Elapsed == nil {
		config.Elapsed = w.elapsed
	}
	l, err := lease.NewTwoTier(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

type checker interface {
	CheckN(ctx context.Context, key string, cost float64) (throttlekit.Decision, error)
}

func check(t *testing.T, c checker, key string, cost float64) throttlekit.Decision {
	t.Helper()
	d, err := c.CheckN(t.Context(), key, cost)
	if err != nil {
		t.Fatal(err)
	}
	if d.Allowed != (d.RetryAfterMillis == 0) {
		t.Fatalf("the retry time is 0 exactly for what is allowed: %+v", d)
	}
	return d
}

func second(limit float64) throttlekit.FixedWindow {
	return throttlekit.FixedWindow{Limit: limit, Window: time.Second}
}

package throttlekit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestShaperSpacesRequests(t *testing.T) {
	t.Parallel()
	clock := NewManualClock(1000)
	shaper, err := NewShaper(LeakyBucket{RatePerSec: 4, MaxQueue: 600 * time.Millisecond}, WithClock(clock))
	if err != nil {
		t.Fatal(err)
	}
	defer shaper.Close()
	ctx := t.Context()
	for i, want := range []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond} {
		if got, err := shaper.Reserve(ctx, "k", 1); err != nil || got != want {
			t.Errorf("reserve %d: %v, %v; want %v", i, got, err, want)
		}
	}
	_, err = shaper.Reserve(ctx, "k", 1)
	var full *QueueFullError
	if !errors.As(err, &full) || !errors.Is(err, ErrQueueFull) || full.RetryAfter != 150*time.Millisecond {
		t.Errorf("full queue: %v", err)
	}
	clock.Advance(full.RetryAfter)
	if got, err := shaper.Reserve(ctx, "k", 1); err != nil || got != 600*time.Millisecond {
		t.Errorf("at the edge: %v, %v", got, err)
	}
	if err := shaper.Reset(ctx, "k"); err != nil {
		t.Error(err)
	}
	// A request's cost delays those behind it, not itself.
	if got, err := shaper.Reserve(ctx, "k", 2); err != nil || got != 0 {
		t.Errorf("after reset: %v, %v", got, err)
	}
	if got, err := shaper.Reserve(ctx, "k", 1); err != nil || got != 500*time.Millisecond {
		t.Errorf("behind cost 2: %v, %v", got, err)
	}
}

func TestShaperWaitsUntilItsTurnOrTheContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		shaper, err := NewShaper(LeakyBucket{RatePerSec: 2, MaxQueue: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer shaper.Close()
		start := time.Now()
		for range 3 {
			if err := shaper.Wait(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("three turns took %v", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start = time.Now()
		if err := shaper.Wait(ctx, "k", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if waited := time.Since(start); waited != 100*time.Millisecond {
			t.Errorf("gave up after %v", waited)
		}
	})
}

func TestShaperRefusesBadInput(t *testing.T) {
	t.Parallel()
	for _, bucket := range []LeakyBucket{{}, {RatePerSec: -1}, {RatePerSec: 1, MaxQueue: -1}, {RatePerSec: 1e-300}} {
		if _, err := NewShaper(bucket); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bucket, err)
		}
	}
	shaper, err := NewShaper(LeakyBucket{RatePerSec: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer shaper.Close()
	if err := shaper.Wait(t.Context(), "k", -1); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

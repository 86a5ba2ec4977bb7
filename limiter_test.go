package throttlekit

import (
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestLimiterAnswersEveryQuestion(t *testing.T) {
	t.Parallel()
	limiter, clock := manual(t, GCRA{Limit: 10, Period: time.Second, Burst: 5}, 1000)
	ctx := t.Context()
	for i, want := range []Decision{
		{true, 5, 4, 1100, 0},
		{true, 5, 3, 1200, 0},
		{true, 5, 2, 1300, 0},
		{true, 5, 1, 1400, 0},
		{true, 5, 0, 1500, 0},
		{false, 5, 0, 1500, 100},
	} {
		if got, err := limiter.Check(ctx, "k"); err != nil || got != want {
			t.Errorf("check %d: %+v, %v; want %+v", i, got, err, want)
		}
	}
	if got, err := limiter.Peek(ctx, "k"); err != nil || got != (Decision{false, 5, 0, 1500, 100}) {
		t.Errorf("peek: %+v, %v", got, err)
	}
	clock.Advance(250 * time.Millisecond)
	if got, err := limiter.Forecast(ctx, "k", 2); err != nil || got != (Forecast{1, 1300, 1500}) {
		t.Errorf("forecast: %+v, %v", got, err)
	}
	many, err := limiter.CheckMany(ctx, []string{"k", "other", "k", "k"}, 1)
	if err != nil || len(many) != 4 || !many[0].Allowed || many[1].Remaining != 4 || !many[2].Allowed || many[3].Allowed {
		t.Errorf("many: %+v, %v", many, err)
	}
	if err := limiter.Reset(ctx, "k"); err != nil {
		t.Error(err)
	}
	if got, err := limiter.Peek(ctx, "k"); err != nil || got.Remaining != 5 {
		t.Errorf("peek after reset: %+v, %v", got, err)
	}
}

func TestPeekAndForecastChargeNothing(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limiter, _ := manual(t, strategy, 1_700_000_000_123)
			check(t, limiter, 3, true)
			first, err := limiter.Peek(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				again, err := limiter.Peek(t.Context(), "k")
				if err != nil || again != first {
					t.Fatalf("peek changed from %+v to %+v, %v", first, again, err)
				}
			}
			forecast, err := limiter.Forecast(t.Context(), "k", 1)
			if err != nil {
				t.Fatal(err)
			}
			if admitted := drain(t, limiter); int64(admitted) != forecast.SpendableNow {
				t.Errorf("forecast %d, admitted %d", forecast.SpendableNow, admitted)
			}
		})
	}
}

func TestBadCostIsInvalidAndChargesNothing(t *testing.T) {
	t.Parallel()
	limiter, _ := manual(t, FixedWindow{Limit: 10, Window: time.Second}, 0)
	ctx := t.Context()
	for _, cost := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), MaxSafe + 2} {
		_, errN := limiter.CheckN(ctx, "k", cost)
		_, errMany := limiter.CheckMany(ctx, []string{"k"}, cost)
		_, errForecast := limiter.Forecast(ctx, "k", cost)
		for _, err := range []error{errN, errMany, errForecast} {
			if !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "cost must be") {
				t.Errorf("cost %v: %v", cost, err)
			}
		}
	}
	if d, err := limiter.Peek(ctx, "k"); err != nil || d.Remaining != 10 {
		t.Errorf("something was charged: %+v, %v", d, err)
	}
}

func TestPrefixesKeepLimitersApart(t *testing.T) {
	t.Parallel()
	store, err := NewMemoryStore(MemoryConfig{Clock: NewManualClock(0)})
	if err != nil {
		t.Fatal(err)
	}
	strategy := FixedWindow{Limit: 1, Window: time.Second}
	for _, prefix := range []string{"", "a", "b"} {
		limiter, err := NewLimiter(strategy, WithStore(store), WithPrefix(prefix))
		if err != nil {
			t.Fatal(err)
		}
		check(t, limiter, 1, true)
		check(t, limiter, 1, false)
		if err := limiter.Close(); err != nil {
			t.Error(err)
		}
	}
	bare, err := NewLimiter(strategy, WithStore(store))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := bare.Check(t.Context(), "a:k"); err != nil || d.Allowed {
		t.Errorf("prefix a is not stored as a:k: %+v, %v", d, err)
	}
}

func TestLimiterRefusesContradictoryOptions(t *testing.T) {
	t.Parallel()
	store, err := NewMemoryStore(MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	_, errBoth := NewLimiter(GCRA{Limit: 1, Period: time.Second}, WithStore(store), WithClock(SystemClock{}))
	_, errNil := NewLimiter(nil)
	for _, err := range []error{errBoth, errNil} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%v does not match ErrInvalid", err)
		}
	}
}

func TestConcurrentChecksAdmitExactlyTheLimit(t *testing.T) {
	t.Parallel()
	for name, strategy := range strategies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limiter, _ := manual(t, strategy, 1_700_000_000_000)
			var admitted atomic.Int64
			var wait sync.WaitGroup
			for range 8 {
				wait.Go(func() {
					for range 50 {
						if d, err := limiter.Check(t.Context(), "k"); err == nil && d.Allowed {
							admitted.Add(1)
						}
					}
				})
			}
			wait.Wait()
			if got := admitted.Load(); got != limiter.Rule().Limit() {
				t.Errorf("admitted %d of %d", got, limiter.Rule().Limit())
			}
		})
	}
}

func TestChecksDoNotAllocate(t *testing.T) {
	for name, strategy := range map[string]Strategy{
		"gcra":        GCRA{Limit: 1e6, Period: time.Hour},
		"tokenBucket": TokenBucket{Capacity: 1e6, RefillPerSec: 1},
		"fixedWindow": FixedWindow{Limit: 1e6, Window: time.Hour},
		"denied":      GCRA{Limit: 1, Period: time.Hour},
	} {
		limiter, _ := manual(t, strategy, 0)
		ctx := t.Context()
		_, _ = limiter.Check(ctx, "k")
		if n := testing.AllocsPerRun(100, func() { _, _ = limiter.Check(ctx, "k") }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestClosedLimiterSaysSo(t *testing.T) {
	t.Parallel()
	limiter, _ := manual(t, GCRA{Limit: 1, Period: time.Second}, 0)
	check(t, limiter, 1, true)
	for range 2 {
		if err := limiter.Close(); err != nil {
			t.Error(err)
		}
	}
	_, errCheck := limiter.Check(t.Context(), "k")
	_, errDenied := limiter.CheckN(t.Context(), "k", 100)
	_, errPeek := limiter.Peek(t.Context(), "k")
	_, errMany := limiter.CheckMany(t.Context(), []string{"k"}, 1)
	for _, err := range []error{errCheck, errDenied, errPeek, errMany, limiter.Reset(t.Context(), "k")} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v does not match ErrClosed", err)
		}
	}
}

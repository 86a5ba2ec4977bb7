package fair

import (
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

func TestFairShare(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(base)
	f, err := NewFairShare(ShareConfig{Limit: 10.9, Window: time.Second, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		at     int64
		tenant string
		cost   float64
		want   throttlekit.Decision
	}{
		{0, "a", 4, throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 6, ResetAtMillis: base + 1000}},
		{1, "b", 6, throttlekit.Decision{Limit: 5, Remaining: 5, ResetAtMillis: base + 1000, RetryAfterMillis: 999}},
		{1, "a", 2, throttlekit.Decision{Limit: 5, Remaining: 1, ResetAtMillis: base + 1000, RetryAfterMillis: 999}},
		{2, "b", 5, throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 0, ResetAtMillis: base + 1000}},
		{3, "c", 2, throttlekit.Decision{Limit: 3, Remaining: 3, ResetAtMillis: base + 1000, RetryAfterMillis: 997}},
		{3, "c", 1, throttlekit.Decision{Allowed: true, Limit: 3, Remaining: 2, ResetAtMillis: base + 1000}},
		{1000, "c", 1, throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 9, ResetAtMillis: base + 2000}},
		{500, "c", 10, throttlekit.Decision{Limit: 10, Remaining: 9, ResetAtMillis: base + 2000, RetryAfterMillis: 1500}},
	} {
		clock.Set(base + step.at)
		if got := check(t, f, step.tenant, step.cost); got != step.want {
			t.Errorf("step %d: got %+v, want %+v", i, got, step.want)
		}
	}
	f.Reset("c")
	if d := check(t, f, "c", 10); d.Allowed {
		t.Errorf("a reset gave back what was used: %+v", d)
	}
	if d := check(t, f, "c", 9); !d.Allowed {
		t.Errorf("a reset tenant does not start anew: %+v", d)
	}
}

func TestWeightedFairShare(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(base)
	f, err := NewWeightedFairShare(ShareConfig{
		Limit: 99, Window: time.Second, Clock: clock, WeightOf: weights(map[string]float64{"a": 6, "b": 5}),
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, f, "b", 1)
	if d := check(t, f, "a", 54); d.Allowed || d.Limit != 53 {
		t.Errorf("got %+v, want a denial with limit 53", d)
	}
	d, err := f.CheckWeighted(t.Context(), "a", 1, 1e9)
	if err != nil || d.Limit != 98 || d.Remaining != 97 {
		t.Errorf("got %+v, %v, want limit 98", d, err)
	}
	if d := check(t, f, "b", 1); d.Allowed || d.Limit != 1 {
		t.Errorf("got %+v, want a denial with limit 1, the smallest", d)
	}
	for _, weight := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if _, err := f.CheckWeighted(t.Context(), "a", 1, weight); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("weight %v: got %v", weight, err)
		}
	}
}

// TestSharesNeverExceedTheLimit floods small tables with tenants.
func TestSharesNeverExceedTheLimit(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 2))
	clock := throttlekit.NewManualClock(base)
	equal, err := NewFairShare(ShareConfig{Limit: 50, Window: time.Second, Clock: clock, MaxTenants: 2})
	if err != nil {
		t.Fatal(err)
	}
	weighted, err := NewWeightedFairShare(ShareConfig{Limit: 50, Window: time.Second, Clock: clock, MaxTenants: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []checker{equal, weighted} {
		used := 0.0
		for range 500 {
			cost := float64(1 + r.IntN(3))
			if check(t, c, strconv.Itoa(r.IntN(20)), cost).Allowed {
				used += cost
			}
		}
		if used > 50 || used < 48 {
			t.Errorf("%T admitted %v, want 50 or a little less", c, used)
		}
	}
}

func TestSharesRefuseWrongValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		config ShareConfig
		field  string
	}{
		{ShareConfig{Limit: 0.5, Window: time.Second}, "limit"},
		{ShareConfig{Limit: math.NaN(), Window: time.Second}, "limit"},
		{ShareConfig{Limit: math.Inf(1), Window: time.Second}, "limit"},
		{ShareConfig{Limit: 5}, "window"},
		{ShareConfig{Limit: 5, Window: -1}, "window"},
		{ShareConfig{Limit: 5, Window: 1, MaxTenants: -1}, "maxTenants"},
	} {
		_, err := NewFairShare(tt.config)
		_, weighted := NewWeightedFairShare(tt.config)
		for _, err := range []error{err, weighted} {
			var invalid *throttlekit.InvalidError
			if !errors.As(err, &invalid) || invalid.Field != tt.field {
				t.Errorf("%+v: got %v, want an error about %s", tt.config, err, tt.field)
			}
		}
	}
	if _, err := NewFairShare(ShareConfig{Limit: 5, Window: 1, WeightOf: weights(nil)}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("equal shares took weights: %v", err)
	}
}

// TestRequestsAreValidated gives every limiter requests that nobody may make.
func TestRequestsAreValidated(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	bad := func(tenant string) float64 {
		return map[string]float64{"zero": 0, "negative": -1, "nan": math.NaN(), "infinite": math.Inf(1)}[tenant]
	}
	weighted, err := NewWeightedFairShare(ShareConfig{Limit: 5, Window: time.Second, WeightOf: bad})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []checker{
		weighted,
		l.escrow(t, EscrowConfig{Limit: 5, WeightOf: bad}),
		l.escrow(t, EscrowConfig{Limit: 5, WeightOf: bad, Store: l.store, Quantum: 1}),
		l.federated(t, FederatedConfig{Region: "eu", Pool: newPool(t, PoolConfig{Limit: 5}), WeightOf: bad}),
	} {
		for _, tt := range []struct {
			tenant string
			cost   float64
			field  string
		}{
			{"", 1, "tenant"},
			{"x", 0, "cost"},
			{"x", -1, "cost"},
			{"x", math.NaN(), "cost"},
			{"x", math.Inf(1), "cost"},
			{"x", throttlekit.MaxSafe + 1, "cost"},
			{"zero", 1, "weight"},
			{"negative", 1, "weight"},
			{"nan", 1, "weight"},
			{"infinite", 1, "weight"},
		} {
			_, err := c.CheckN(t.Context(), tt.tenant, tt.cost)
			var invalid *throttlekit.InvalidError
			if !errors.As(err, &invalid) || invalid.Field != tt.field {
				t.Errorf("%T, %q, %v: got %v, want an error about %s", c, tt.tenant, tt.cost, err, tt.field)
			}
		}
	}
}

func TestWeights(t *testing.T) {
	t.Parallel()
	of, err := Weights(map[string]float64{"a": 2.5})
	if err != nil || of("a") != 2.5 || of("b") != 1 {
		t.Errorf("got %v, %v, %v", of("a"), of("b"), err)
	}
	for _, table := range []map[string]float64{{"a": 0}, {"a": -1}, {"a": math.NaN()}, {"a": math.Inf(1)}, {"": 1}} {
		if _, err := Weights(table); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%v: got %v", table, err)
		}
	}
}

package throttlekit

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func window(limit float64, width time.Duration) Strategy {
	return FixedWindow{Limit: limit, Window: width}
}

func multi(t *testing.T, build func([]Dimension, ...Option) (*MultiLimiter, error), dimensions ...Dimension) *MultiLimiter {
	t.Helper()
	limiter, err := build(dimensions, WithClock(NewManualClock(0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = limiter.Close() })
	return limiter
}

func TestAllChargesEveryDimensionOrNone(t *testing.T) {
	t.Parallel()
	limiter := multi(t, All,
		Dimension{Name: "user", Strategy: window(2, time.Second)},
		Dimension{Name: "tenant", Strategy: window(10, time.Minute), Weight: 2},
		Dimension{Name: "region", Strategy: GCRA{Limit: 5, Period: time.Second}},
	)
	keys := Keys{"user": "u", "tenant": "t", "region": "r"}
	ctx := t.Context()
	for i, want := range []MultiDecision{
		{Dimension: "user", Decision: Decision{true, 2, 1, 1000, 0}},
		{Dimension: "user", Decision: Decision{true, 2, 0, 1000, 0}},
		{Dimension: "user", Decision: Decision{false, 2, 0, 1000, 1000}},
		{Dimension: "user", Decision: Decision{false, 2, 0, 1000, 1000}},
	} {
		got, err := limiter.Check(ctx, keys, 1)
		if err != nil || got.Decision != want.Decision || got.Dimension != want.Dimension {
			t.Errorf("check %d: %+v, %v; want %+v", i, got, err, want)
		}
	}
	// Another user of the tenant finds what the first two checks left, and nothing less.
	got, err := limiter.Check(ctx, Keys{"user": "v", "tenant": "t", "region": "r"}, 1)
	if err != nil || !got.Allowed || got.Each[1].Remaining != 4 || got.Each[2].Remaining != 2 {
		t.Errorf("denied checks were charged: %+v, %v", got, err)
	}
	if err := limiter.Reset(ctx, keys); err != nil {
		t.Error(err)
	}
	if got, err := limiter.Check(ctx, keys, 1); err != nil || !got.Allowed {
		t.Errorf("after reset: %+v, %v", got, err)
	}
}

func TestAllReportsTheLongestWait(t *testing.T) {
	t.Parallel()
	limiter := multi(t, All,
		Dimension{Name: "second", Strategy: window(1, time.Second)},
		Dimension{Name: "minute", Strategy: window(1, time.Minute)},
	)
	keys := Keys{"second": "k", "minute": "k"}
	if _, err := limiter.Check(t.Context(), keys, 1); err != nil {
		t.Fatal(err)
	}
	got, err := limiter.Check(t.Context(), keys, 1)
	if err != nil || got.Allowed || got.Dimension != "minute" || got.RetryAfterMillis != 60_000 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAnyChargesWhatAdmits(t *testing.T) {
	t.Parallel()
	limiter := multi(t, Any,
		Dimension{Name: "small", Strategy: window(1, time.Second)},
		Dimension{Name: "large", Strategy: window(3, time.Minute)},
	)
	keys := Keys{"small": "k", "large": "k"}
	for i, want := range []struct {
		allowed   bool
		dimension string
		remaining int64
	}{{true, "large", 2}, {true, "large", 1}, {true, "large", 0}, {false, "small", 0}} {
		got, err := limiter.Check(t.Context(), keys, 1)
		if err != nil || got.Allowed != want.allowed || got.Dimension != want.dimension || got.Remaining != want.remaining {
			t.Errorf("check %d: %+v, %v; want %+v", i, got, err, want)
		}
	}
}

func TestTiesGoToTheEarliestDimension(t *testing.T) {
	t.Parallel()
	for name, build := range map[string]func([]Dimension, ...Option) (*MultiLimiter, error){"all": All, "any": Any} {
		limiter := multi(t, build,
			Dimension{Name: "first", Strategy: window(1, time.Second)},
			Dimension{Name: "second", Strategy: window(1, time.Second)},
		)
		for range 2 {
			got, err := limiter.Check(t.Context(), Keys{"first": "k", "second": "k"}, 1)
			if err != nil || got.Dimension != "first" {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
	}
}

func TestMultiRefusesBadInput(t *testing.T) {
	t.Parallel()
	_, err := All([]Dimension{{}, {Name: "a", Strategy: GCRA{}}, {Name: "a", Strategy: window(1, time.Second), Weight: -1}})
	for _, want := range []string{
		`dimensions[0].name must be unique and not empty, got ""`, "dimensions[0].strategy must be given",
		"dimensions[1].strategy: limit must be", `dimensions[2].name must be unique and not empty, got "a"`, "dimensions[2].weight must be",
	} {
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if _, err := Any(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no dimension: %v", err)
	}
	limiter := multi(t, All, Dimension{Name: "a", Strategy: window(5, time.Second), Weight: 3})
	for _, test := range []struct {
		keys Keys
		cost float64
		want string
	}{
		{Keys{}, 1, "keys.a must name a key"},
		{Keys{"a": "k", "b": "k"}, 1, "keys must name no key beyond the dimensions"},
		{Keys{"a": "k"}, 0, "cost must be"},
		{Keys{"a": "k"}, MaxSafe, "after weighting for a"},
	} {
		if _, err := limiter.Check(t.Context(), test.keys, test.cost); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v × %v: %v", test.keys, test.cost, err)
		}
	}
}

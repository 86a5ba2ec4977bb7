package vectors_test

import (
	"maps"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// The numbers of this file are typed from the specification, not produced by the core.

// base is the instant that §2.6 counts from.
const base = 1_700_000_000_000

func yes(limit, remaining, resetAt int64) throttlekit.Decision {
	return throttlekit.Decision{Allowed: true, Limit: limit, Remaining: remaining, ResetAtMillis: resetAt}
}

func no(limit, remaining, resetAt, retry int64) throttlekit.Decision {
	return throttlekit.Decision{Limit: limit, Remaining: remaining, ResetAtMillis: resetAt, RetryAfterMillis: retry}
}

// since shifts ops whose times count from start.
func since(start int64, ops ...vectors.Op) []vectors.Op {
	for i := range ops {
		ops[i].Now += start
		ops[i].Expect.ResetAtMillis += start
	}
	return ops
}

func suite(name, kind string, options vectors.Options, ops ...vectors.Op) vectors.Suite {
	return vectors.Suite{
		Primitive: vectors.RateLimit, Name: name, Key: "k", Ops: ops,
		Strategy: vectors.Strategy{Kind: kind, Options: options},
	}
}

func TestWorkedVectors(t *testing.T) {
	t.Parallel()
	type opts = vectors.Options
	replay(t, vectors.NewDocument(
		suite("§2.6 gcra 7 per 1000", "gcra", opts{"limit": 7., "periodMs": 1000., "burst": 7.}, since(base,
			vectors.Op{Now: 0, Cost: 1, Expect: yes(7, 5, 143)},
			vectors.Op{Now: 0, Cost: 1, Expect: yes(7, 4, 286)},
			vectors.Op{Now: 0, Cost: 1, Expect: yes(7, 3, 429)},
			vectors.Op{Now: 0, Cost: 1, Expect: yes(7, 2, 572)},
			vectors.Op{Now: 0, Cost: 1, Expect: yes(7, 1, 715)},
			vectors.Op{Now: 0, Cost: 1, Expect: yes(7, 0, 858)},
			vectors.Op{Now: 0, Cost: 1, Expect: no(7, 0, 858, 1)},
			vectors.Op{Now: 0, Cost: 1, Expect: no(7, 0, 858, 1)},
		)...),
		suite("§2.6 gcra 3 per 1000", "gcra", opts{"limit": 3., "periodMs": 1000., "burst": 3.}, since(base,
			vectors.Op{Now: 0, Cost: 1, Expect: yes(3, 2, 334)},
			vectors.Op{Now: 0, Cost: 1, Expect: yes(3, 1, 667)},
			vectors.Op{Now: 0, Cost: 1, Expect: yes(3, 0, 1000)},
			vectors.Op{Now: 0, Cost: 1, Expect: no(3, 0, 1000, 334)},
			vectors.Op{Now: 333, Cost: 1, Expect: no(3, 0, 1000, 1)},
			vectors.Op{Now: 334, Cost: 1, Expect: yes(3, 0, 1334)},
		)...),
		suite("§2.6 token bucket 20 at 3.5", "tokenBucket", opts{"capacity": 20., "refillPerSec": 3.5}, since(base,
			vectors.Op{Now: 0, Cost: 18, Expect: yes(20, 2, 5143)},
			vectors.Op{Now: 0, Cost: 3, Expect: no(20, 2, 5143, 286)},
			vectors.Op{Now: 285, Cost: 3, Expect: no(20, 2, 5143, 1)},
			vectors.Op{Now: 286, Cost: 3, Expect: yes(20, 0, 6000)},
			vectors.Op{Now: 1000, Cost: 2.5, Expect: yes(20, 0, 6715)},
			vectors.Op{Now: 1001, Cost: 0.5, Expect: no(20, 0, 6715, 142)},
		)...),
		suite("§2.6 sliding window 20 in 3", "slidingWindow", opts{"limit": 20., "windowMs": 1000., "buckets": 3.}, since(base,
			vectors.Op{Now: 0, Cost: 12, Expect: yes(20, 8, 1334)},
			vectors.Op{Now: 400, Cost: 6, Expect: yes(20, 2, 1667)},
			vectors.Op{Now: 700, Cost: 3, Expect: no(20, 2, 2000, 300)},
			vectors.Op{Now: 1000, Cost: 4, Expect: no(20, 2, 2334, 56)},
			vectors.Op{Now: 1100, Cost: 4, Expect: yes(20, 1, 2334)},
			vectors.Op{Now: 1200, Cost: 4, Expect: yes(20, 1, 2334)},
			vectors.Op{Now: 1334, Cost: 4, Expect: yes(20, 2, 2667)},
		)...),
		suite("§2.6 sliding log 5", "slidingWindowLog", opts{"limit": 5., "windowMs": 1000.}, since(base,
			vectors.Op{Now: 0, Cost: 9, Expect: no(5, 5, 1000, 1000)},
			vectors.Op{Now: 0, Cost: 3, Expect: yes(5, 2, 1000)},
			vectors.Op{Now: 100, Cost: 9, Expect: no(5, 2, 1000, 900)},
		)...),
		suite("§2.6 gcra backwards", "gcra", opts{"limit": 10., "periodMs": 1000., "burst": 5.},
			vectors.Op{Now: 5000, Cost: 5, Expect: yes(5, 0, 5500)},
			vectors.Op{Now: 4000, Cost: 1, Expect: no(5, 0, 5500, 1100)},
		),
		suite("§2.3 fixed window 333.5", "fixedWindow", opts{"limit": 2., "windowMs": 333.5},
			vectors.Op{Now: base, Cost: 1, Expect: yes(2, 1, 1_700_000_000_213)},
		),
	), vectors.Memory())
}

// windowCase is a window of §3.1: its start, its end, and an instant in it.
type windowCase struct {
	name            string
	options         vectors.Options
	now, start, end int64
}

func TestWorkedQuotaWindows(t *testing.T) {
	t.Parallel()
	const now = 1_709_210_096_000 // 2024-02-29T12:34:56Z
	for _, c := range []windowCase{
		{"month", vectors.Options{"resetCadence": "calendar-month"}, now, 1_706_745_600_000, 1_709_251_200_000},
		{"week from Monday", vectors.Options{"resetCadence": "calendar-week"}, now, 1_708_905_600_000, 1_709_510_400_000},
		{"week from Sunday", vectors.Options{"resetCadence": "calendar-week", "weekStartsOn": 0.}, now, 1_708_819_200_000, 1_709_424_000_000},
		{"month +330", vectors.Options{"resetCadence": "calendar-month", "offsetMinutes": 330.}, 1_709_231_400_000, 1_709_231_400_000, 1_711_909_800_000},
		{"month +330 before", vectors.Options{"resetCadence": "calendar-month", "offsetMinutes": 330.}, 1_709_231_399_999, 1_706_725_800_000, 1_709_231_400_000},
		{"day -300", vectors.Options{"resetCadence": "calendar-day", "offsetMinutes": -300.}, 1_735_614_000_000, 1_735_534_800_000, 1_735_621_200_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			options := vectors.Options{"limit": 9.}
			maps.Copy(options, c.options)
			// Each probe is a suite of its own, so that none sees another's window.
			probe := func(name string, now, resetAt int64) vectors.Suite {
				return suite(name, "quota", options, vectors.Op{Now: now, Cost: 1, Expect: yes(9, 8, resetAt)})
			}
			replay(t, vectors.NewDocument(
				probe("now", c.now, c.end), probe("start", c.start, c.end), probe("before the start", c.start-1, c.start),
				probe("before the end", c.end-1, c.end),
			), vectors.Memory())
		})
	}
}

// The worked token bucket leaves the tokens that binary64 leaves.
func TestWorkedTokenBucketState(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(base)
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	rule, err := throttlekit.TokenBucket{Capacity: 20, RefillPerSec: 3.5}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		after time.Duration
		cost  float64
	}{{0, 18}, {286 * time.Millisecond, 3}, {714 * time.Millisecond, 2.5}} {
		clock.Advance(s.after)
		if d, err := store.Apply(t.Context(), "k", rule, s.cost); err != nil || !d.Allowed {
			t.Fatalf("cost %g: %+v, %v", s.cost, d, err)
		}
	}
	rec, _, err := store.Load(t.Context(), "k", rule)
	if err != nil {
		t.Fatal(err)
	}
	text, err := rule.Encode(rec)
	if want := `{"tokens":4.4408920985006262e-16,"last":1700000001000}`; err != nil || !sameNumbers(string(text), want) {
		t.Errorf("record %s, want %s (%v)", text, want, err)
	}
}

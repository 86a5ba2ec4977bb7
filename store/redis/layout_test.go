package redisstore_test

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
)

// check is one row of a table: a check at base plus an offset, and what the specification says.
type check struct {
	after, cost               float64
	allowed                   bool
	remaining, resetAt, retry int64
}

// raw is what a key holds: the type, the texts in a fixed order, and the time to live.
type raw struct {
	kind  string
	texts []string
	ttl   int64
}

// look reads a key as a client that knows nothing of the store would.
func look(t *testing.T, key string) raw {
	t.Helper()
	conn := dial(t, shared)
	kind := do(t, conn, "TYPE", key).(string)
	r := raw{kind: kind, ttl: do(t, conn, "PTTL", key).(int64)}
	command := map[string][]string{
		"none": nil, "string": {"GET", key}, "hash": {"HGETALL", key}, "zset": {"ZRANGE", key, "0", "-1", "WITHSCORES"},
	}[kind]
	if command == nil {
		return r
	}
	switch reply := do(t, conn, command...).(type) {
	case string:
		r.texts = []string{reply}
	case []any:
		for _, text := range reply {
			r.texts = append(r.texts, text.(string))
		}
	}
	return r
}

func at(offset int64) string { return strconv.FormatInt(base+offset, 10) }

// TestLayouts runs the worked examples of the specification's §2.6, and looks at what each leaves behind.
func TestLayouts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		strategy throttlekit.Strategy
		limit    int64
		checks   []check
		want     raw // ttl is the one that was set, in milliseconds
	}{
		{
			name: "gcra", strategy: throttlekit.GCRA{Limit: 3, Period: time.Second}, limit: 3,
			checks: []check{
				{0, 1, true, 2, 334, 0},
				{0, 1, true, 1, 667, 0},
				{0, 1, true, 0, 1000, 0},
				{0, 1, false, 0, 1000, 334},
				{333, 1, false, 0, 1000, 1},
				{334, 1, true, 0, 1334, 0},
			},
			want: raw{"string", []string{at(1333) + ".333"}, 1000},
		},
		{
			name: "gcra at a real epoch", strategy: throttlekit.GCRA{Limit: 7, Period: time.Second}, limit: 7,
			checks: []check{
				{0, 1, true, 5, 143, 0},
				{0, 1, true, 4, 286, 0},
				{0, 1, true, 3, 429, 0},
				{0, 1, true, 2, 572, 0},
				{0, 1, true, 1, 715, 0},
				{0, 1, true, 0, 858, 0},
				{0, 1, false, 0, 858, 1},
			},
			want: raw{"string", []string{at(857) + ".1431"}, 858},
		},
		{
			name: "token bucket", strategy: throttlekit.TokenBucket{Capacity: 20, RefillPerSec: 3.5}, limit: 20,
			checks: []check{
				{0, 18, true, 2, 5143, 0},
				{0, 3, false, 2, 5143, 286},
				{285, 3, false, 2, 5143, 1},
				{286, 3, true, 0, 6000, 0},
				{1000, 2.5, true, 0, 6715, 0},
			},
			want: raw{"hash", []string{"t", "4.4408920985006262e-16", "l", at(1000)}, 5715},
		},
		{
			name: "fixed window", strategy: throttlekit.FixedWindow{Limit: 5, Window: time.Second}, limit: 5,
			checks: []check{{0, 2, true, 3, 1000, 0}, {250, 2.5, true, 0, 1000, 0}, {300, 1, false, 0, 1000, 700}},
			want:   raw{"hash", []string{"s", at(0), "c", "4.5"}, 750},
		},
		{
			// The core rounds the reset up; other implementations truncate it on Redis. The state is the same.
			name: "fixed window of a fraction", strategy: throttlekit.FixedWindow{Limit: 5, Window: 333*time.Millisecond + 500*time.Microsecond}, limit: 5,
			checks: []check{{0, 1, true, 4, 213, 0}},
			want:   raw{"hash", []string{"s", "1699999999879", "c", "1"}, 213},
		},
		{
			name: "sliding window", strategy: throttlekit.SlidingWindow{Limit: 20, Window: time.Second, Buckets: 3}, limit: 20,
			checks: []check{
				{0, 12, true, 8, 1334, 0},
				{400, 6, true, 2, 1667, 0},
				{700, 3, false, 2, 2000, 300},
				{1000, 4, false, 2, 2334, 56},
				{1100, 4, true, 1, 2334, 0},
				{1200, 4, true, 1, 2334, 0},
				{1334, 4, true, 2, 2667, 0},
			},
			want: raw{"hash", []string{"0", "5100000004:4", "1", "5100000001:6", "3", "5100000003:8"}, 1334},
		},
		{
			name: "sliding log", strategy: throttlekit.SlidingWindowLog{Limit: 5, Window: time.Second}, limit: 5,
			checks: []check{{0, 9, false, 5, 1000, 1000}, {0, 3, true, 2, 1000, 0}, {100, 9, false, 2, 1000, 900}, {100, 1.5, true, 0, 1000, 0}},
			want: raw{"zset", []string{
				at(0) + "-1", at(0), at(0) + "-2", at(0), at(0) + "-3", at(0), at(100) + "-4", at(100), at(100) + "-5", at(100),
			}, 1000},
		},
		{
			name: "monthly quota", strategy: throttlekit.Quota{Limit: 3, Cadence: throttlekit.CalendarMonth}, limit: 3,
			checks: []check{{0, 2, true, 1, 1_388_800_000 - 0, 0}},
			want:   raw{"hash", []string{"s", "1698796800000", "c", "2"}, 1_388_800_000},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			clock := throttlekit.NewManualClock(base)
			prefix := freshPrefix()
			store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Clock: clock})
			rule := ruleOf(t, test.strategy)
			for i, c := range test.checks {
				clock.Set(base + int64(c.after))
				got, err := store.Apply(t.Context(), "k", rule, c.cost)
				want := throttlekit.Decision{
					Allowed: c.allowed, Limit: test.limit, Remaining: c.remaining, ResetAtMillis: base + c.resetAt, RetryAfterMillis: c.retry,
				}
				if err != nil || got != want {
					t.Errorf("check %d: got %+v, want %+v, error %v", i, got, want, err)
				}
			}
			got := look(t, prefix+":k")
			if test.name == "sliding window" { // hashes keep the order in which fields were first set
				got.texts = sortedPairs(got.texts)
			}
			if got.kind != test.want.kind || !slices.Equal(got.texts, test.want.texts) {
				t.Errorf("got %q, want %q", got.texts, test.want.texts)
			}
			if slack := test.want.ttl - got.ttl; slack < 0 || slack > 500 && test.want.ttl < 1e6 {
				t.Errorf("time to live is %d ms, was to be set to %d ms", got.ttl, test.want.ttl)
			}
		})
	}
}

func sortedPairs(texts []string) []string {
	byField := map[string]string{}
	for i := 0; i < len(texts); i += 2 {
		byField[texts[i]] = texts[i+1]
	}
	var sorted []string
	for i := range 20 {
		field := strconv.Itoa(i)
		if value, ok := byField[field]; ok {
			sorted = append(sorted, field, value)
		}
	}
	return sorted
}

func TestDenialWritesNothing(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(base)
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Clock: clock})
	for _, strategy := range []throttlekit.Strategy{
		throttlekit.GCRA{Limit: 2, Period: time.Hour},
		throttlekit.TokenBucket{Capacity: 2, RefillPerSec: 0.001},
		throttlekit.FixedWindow{Limit: 2, Window: time.Hour},
		throttlekit.SlidingWindow{Limit: 2, Window: time.Hour},
		throttlekit.SlidingWindowLog{Limit: 2, Window: time.Hour},
		throttlekit.Quota{Limit: 2, Cadence: throttlekit.CalendarDay},
	} {
		rule := ruleOf(t, strategy)
		key := prefix + ":" + rule.Name()
		for _, cost := range []float64{3, 2, 1} { // denied on a fresh key, allowed, denied
			before := look(t, key)
			d, err := store.Apply(t.Context(), rule.Name(), rule, cost)
			if err != nil || d.Allowed != (cost == 2) {
				t.Errorf("%s: %+v, %v", rule.Name(), d, err)
			}
			after := look(t, key)
			if !d.Allowed && (!reflect.DeepEqual(before.texts, after.texts) || after.ttl > before.ttl) {
				t.Errorf("%s: a denial changed %+v to %+v", rule.Name(), before, after)
			}
			clock.Advance(time.Millisecond)
		}
	}
}

// TestTTLsReachRedisAsIntegers uses strategies whose records live for longer than anything, and shorter.
func TestTTLsReachRedisAsIntegers(t *testing.T) {
	t.Parallel()
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
	const century = 100 * 365 * 24 * time.Hour
	for i, strategy := range []throttlekit.Strategy{
		throttlekit.GCRA{Limit: 1e-3, Period: century, Burst: 1e9},
		throttlekit.TokenBucket{Capacity: 9e12, RefillPerSec: 1},
		throttlekit.FixedWindow{Limit: 1, Window: 2 * century},
		throttlekit.SlidingWindow{Limit: 1, Window: 2 * century, Buckets: 1},
		throttlekit.SlidingWindowLog{Limit: 1, Window: 2 * century},
		throttlekit.GCRA{Limit: 1e12, Period: time.Millisecond},
		throttlekit.TokenBucket{Capacity: 1, RefillPerSec: 1e12},
		throttlekit.FixedWindow{Limit: 1, Window: time.Nanosecond},
		throttlekit.SlidingWindow{Limit: 1, Window: 500 * time.Nanosecond},
		throttlekit.SlidingWindowLog{Limit: 1, Window: time.Microsecond},
	} {
		key := strconv.Itoa(i)
		if d, err := store.Apply(t.Context(), key, ruleOf(t, strategy), 1); err != nil || !d.Allowed {
			t.Errorf("%+v: %+v, %v", strategy, d, err)
		}
		if ttl := look(t, prefix+":"+key).ttl; i < 5 && ttl < century.Milliseconds() || ttl == -1 {
			t.Errorf("%+v: time to live is %d", strategy, ttl)
		}
	}
	huge := tally{limit: 1e9, ttl: 1<<63 - 1}
	if _, err := store.Apply(t.Context(), "huge", huge, 1); err != nil {
		t.Error(err)
	}
	if ttl := look(t, prefix+":huge").ttl; ttl > throttlekit.MaxSafe || ttl < throttlekit.MaxSafe-60_000 {
		t.Errorf("time to live is %d", ttl)
	}
}

func TestTTLFloorExtends(t *testing.T) {
	t.Parallel()
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, TTLFloor: time.Hour})
	gcra := ruleOf(t, throttlekit.GCRA{Limit: 10, Period: time.Second})
	day := ruleOf(t, throttlekit.FixedWindow{Limit: 10, Window: 240 * time.Hour})
	for key, want := range map[string]struct {
		transition throttlekit.Transition
		least      time.Duration
		most       time.Duration
	}{
		"short": {gcra, 59 * time.Minute, time.Hour}, "long": {day, 59 * time.Minute, 240 * time.Hour},
		"custom": {tally{limit: 9, ttl: 5}, 59 * time.Minute, time.Hour},
	} {
		for _, commit := range []throttlekit.Commit{throttlekit.CommitEach, throttlekit.CommitAll} {
			full := fmt.Sprint(key, commit)
			if _, err := store.Batch(t.Context(), []throttlekit.Op{{Key: full, Transition: want.transition, Cost: 1}}, commit); err != nil {
				t.Error(err)
			}
			if ttl := time.Duration(look(t, prefix+":"+full).ttl) * time.Millisecond; ttl < want.least || ttl > want.most {
				t.Errorf("%s: time to live is %v", full, ttl)
			}
		}
	}
	// Looking never extends anything.
	conn := dial(t, shared)
	do(t, conn, "PEXPIRE", prefix+":short0", "5000")
	if _, _, err := store.Load(t.Context(), "short0", gcra); err != nil {
		t.Error(err)
	}
	if ttl := do(t, conn, "PTTL", prefix+":short0").(int64); ttl > 5000 {
		t.Errorf("Load extended the time to live to %d", ttl)
	}
}

// TestExplicitEpoch has a clock stand where its argument would read as the server's clock.
func TestExplicitEpoch(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	store := open(t, shared.URL(), redisstore.Config{Clock: clock, TTLFloor: far})
	rule := ruleOf(t, throttlekit.GCRA{Limit: 7, Period: time.Second})
	d, err := store.Apply(t.Context(), "k", rule, 1)
	if err != nil || d.ResetAtMillis != 143 || d.Remaining != 6 {
		t.Errorf("a clock at 0 was not taken at its word: %+v, %v", d, err)
	}
	if _, now, err := store.Load(t.Context(), "k", rule); now != 0 || err != nil {
		t.Errorf("load at %d, %v", now, err)
	}
}

// TestAnotherNumberOfBuckets changes the resolution of a window that has a record: what other slots hold must
// not be taken for something else, nor be an error.
func TestAnotherNumberOfBuckets(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(base)
	store := open(t, shared.URL(), redisstore.Config{Clock: clock, TTLFloor: far})
	for _, buckets := range []int{3, 10, 1, 60, 3} {
		rule := ruleOf(t, throttlekit.SlidingWindow{Limit: 1000, Window: time.Second, Buckets: buckets})
		d, err := store.Apply(t.Context(), "k", rule, 1)
		if err != nil || !d.Allowed || d.Remaining < 990 {
			t.Errorf("%d buckets: %+v, %v", buckets, d, err)
		}
		rec, now, err := store.Load(t.Context(), "k", rule)
		if err != nil {
			t.Errorf("%d buckets: %v", buckets, err)
		}
		if p := rule.Peek(rec, now); p.Remaining != d.Remaining {
			t.Errorf("%d buckets: %d left after a charge, and %d by the record", buckets, d.Remaining, p.Remaining)
		}
	}
}

package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// TestStrategies reads every strategy in every spelling of its fields, as YAML and as JSON.
func TestStrategies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fields string // of a YAML flow mapping
		want   throttlekit.Strategy
		limit  int64
	}{
		{"strategy: gcra, limit: 100, period: 1m, burst: 20", throttlekit.GCRA{Limit: 100, Period: time.Minute, Burst: 20}, 20},
		{"strategy: gcra, limit: 2.5, period: 250us", throttlekit.GCRA{Limit: 2.5, Period: 250 * time.Microsecond, Burst: 2.5}, 2},
		{"strategy: gcra, limit: 1e3, periodMs: 1500", throttlekit.GCRA{Limit: 1000, Period: 1500 * time.Millisecond, Burst: 1000}, 1000},
		{"strategy: gcra, limit: 5, windowMs: 0.5", throttlekit.GCRA{Limit: 5, Period: 500 * time.Microsecond, Burst: 5}, 5},
		{"strategy: gcra, limit: 5, period: 1s, periodMs: 1000, windowMs: 1e3", throttlekit.GCRA{Limit: 5, Period: time.Second, Burst: 5}, 5},
		{"strategy: gcra, limit: 5, period: null, windowMs: 1000, burst: null", throttlekit.GCRA{Limit: 5, Period: time.Second, Burst: 5}, 5},
		{"strategy: tokenBucket, capacity: 50, refillPerSec: 0.1", throttlekit.TokenBucket{Capacity: 50, RefillPerSec: 0.1}, 50},
		{"strategy: fixedWindow, limit: 5, period: 60000", throttlekit.FixedWindow{Limit: 5, Window: time.Minute}, 5},
		{"strategy: fixedWindow, limit: 5, windowMs: 60000", throttlekit.FixedWindow{Limit: 5, Window: time.Minute}, 5},
		{"strategy: slidingWindow, limit: 5, period: 1h30m", throttlekit.SlidingWindow{Limit: 5, Window: 90 * time.Minute, Buckets: 10}, 5},
		{"strategy: slidingWindow, limit: 5, windowMs: 10, buckets: 3", throttlekit.SlidingWindow{Limit: 5, Window: 10 * time.Millisecond, Buckets: 3}, 5},
		{"strategy: slidingWindowLog, limit: 5, period: 1.5 h", throttlekit.SlidingWindowLog{Limit: 5, Window: 90 * time.Minute}, 5},
		{"strategy: quota, limit: 5, resetCadence: calendar-month", throttlekit.Quota{Limit: 5, Cadence: throttlekit.CalendarMonth, WeekStart: 1}, 5},
		{"strategy: quota, limit: 5, resetCadence: calendar-week, weekStartsOn: 0, offsetMinutes: -840", throttlekit.Quota{Limit: 5, Cadence: throttlekit.CalendarWeek, WeekStart: 7, Offset: -14 * time.Hour}, 5},
		{"strategy: quota, limit: 5, resetCadence: calendar-week, weekStartsOn: 6", throttlekit.Quota{Limit: 5, Cadence: throttlekit.CalendarWeek, WeekStart: 6}, 5},
		{"strategy: quota, limit: 5, resetCadence: calendar-day, offsetMinutes: 840", throttlekit.Quota{Limit: 5, Cadence: throttlekit.CalendarDay, WeekStart: 1, Offset: 14 * time.Hour}, 5},
		{"strategy: quota, limit: 5, resetCadence: fixed, periodMs: 1000, anchor: -250", throttlekit.Quota{Limit: 5, Cadence: throttlekit.Fixed, WeekStart: 1, Period: time.Second, Anchor: -250}, 5},
		{"strategy: quota, limit: 5, resetCadence: rolling, period: 7d, buckets: 7", throttlekit.Quota{Limit: 5, Cadence: throttlekit.Rolling, Period: 7 * 24 * time.Hour, Buckets: 7}, 5},
	} {
		t.Run(tt.fields, func(t *testing.T) {
			t.Parallel()
			for _, text := range []string{"limiters: {p: {" + tt.fields + "}}", flowToJSON(tt.fields)} {
				f, err := Parse("test", []byte(text))
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				s := f.specs[0]
				if got := s.rule.Strategy(); got != tt.want {
					t.Errorf("%s: got %+v, want %+v", text, got, tt.want)
				}
				if s.info.Limit != tt.limit || s.info.Kind != "plain" || s.info.Strategy != s.rule.Name() {
					t.Errorf("%s: got %+v", text, s.info)
				}
			}
		})
	}
}

// flowToJSON turns `a: b, c: 1` into a policy file in JSON.
func flowToJSON(fields string) string {
	parts := strings.Split(fields, ", ")
	for i, part := range parts {
		key, value, _ := strings.Cut(part, ": ")
		if !json.Valid([]byte(value)) {
			value = `"` + value + `"`
		}
		parts[i] = `"` + key + `": ` + value
	}
	return `{"limiters": {"p": {` + strings.Join(parts, ", ") + `}}}`
}

// TestStrategyFields holds the lists of fields, which messages show, to what is read.
func TestStrategyFields(t *testing.T) {
	t.Parallel()
	for _, known := range strategies {
		s := newScope(&report{}, "", position{}, &node{kind: mapNode})
		known.read(s)
		if got, want := distinct(s.asked), distinct(known.fields); !slices.Equal(got, want) {
			t.Errorf("%s reads %v, its fields are %v", known.name, got, want)
		}
	}
}

// TestFieldsRefuseWrongValues gives every field of every strategy values of wrong kinds.
// Each must be reported at its own place, and nothing else must be.
func TestFieldsRefuseWrongValues(t *testing.T) {
	t.Parallel()
	valid := map[string]map[string]string{
		"gcra":             {"limit": "5", "period": "1m"},
		"tokenBucket":      {"capacity": "5", "refillPerSec": "1"},
		"fixedWindow":      {"limit": "5", "period": "1m"},
		"slidingWindow":    {"limit": "5", "period": "1m"},
		"slidingWindowLog": {"limit": "5", "period": "1m"},
		"quota":            {"limit": "5", "period": "1m", "resetCadence": "rolling"},
	}
	wrong := []string{"true", "[]", "{}", "[5]", "''", "x", "'5x'", "-1x", ".nan", ".inf", "-.inf", "0x5", "0o5", "05", "1_0", "+5", ".5", "1e999"}
	for _, known := range strategies {
		for _, field := range append([]string{"prefix", "failMode", "strategy"}, known.fields...) {
			for _, value := range wrong {
				if field == "prefix" && slices.Contains([]string{"''", "x", "'5x'", "-1x"}, value) {
					continue // good prefixes
				}
				fields := maps.Clone(valid[known.name])
				fields["strategy"] = known.name
				if strings.HasSuffix(field, "Ms") {
					delete(fields, "period") // so that the two cannot differ
				}
				fields[field] = value
				var text strings.Builder
				text.WriteString("limiters:\n  p:\n")
				line := 3
				at := 0
				for _, name := range slices.Sorted(maps.Keys(fields)) {
					fmt.Fprintf(&text, "    %s: %s\n", name, fields[name])
					if name == field {
						at = line
					}
					line++
				}
				e := problems(t, text.String())
				if len(e) != 1 || e[0].Path != "limiters.p."+field || e[0].Line != at || e[0].Column != 7+len(field) {
					t.Errorf("%s:\n%s\ngot %v", known.name, text.String(), e)
				}
			}
		}
	}
}

// problems is what is wrong with a text.
func problems(t *testing.T, text string) []Problem {
	t.Helper()
	_, err := Parse("test", []byte(text))
	var e *Error
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("got %T, want *Error", err)
	}
	if e == nil {
		return nil
	}
	return e.Problems
}

// TestRules holds the exact line of each rule about a policy.
func TestRules(t *testing.T) {
	t.Parallel()
	const window = "strategy: fixedWindow, limit: 5, "
	for _, tt := range []struct{ policy, want string }{
		{"limit: 5", "1:12: limiters.p.strategy: must be given: gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog or quota"},
		{"strategy: , limit: 5", "1:26: limiters.p.strategy: must be given: gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog or quota, got null"},
		{"strategy: GCRA, limit: 5", "1:26: limiters.p.strategy: must be gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog or quota, got \"GCRA\"; did you mean `gcra`?"},
		{"strategy: leakyBucket", `1:26: limiters.p.strategy: must be gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog or quota, got "leakyBucket"`},
		{"strategy: sliding-window, colour: 5", "1:26: limiters.p.strategy: must be gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog or quota, got \"sliding-window\"; did you mean `slidingWindow`?\n" +
			"test:1:42: limiters.p.colour: is not a known field; known are anchor, buckets, burst, capacity, concurrency, distributedConcurrency, failMode, fairEscrow, federated, federatedFairEscrow, fleetBudget, limit, offsetMinutes, period, periodMs, prefix, refillPerSec, resetCadence, strategy, tokenBudget, twoTier, weekStartsOn and windowMs"},
		{"strategy: gcra", "1:12: limiters.p.limit: must be given\ntest:1:12: limiters.p.period: must be given, or periodMs or windowMs"},
		{"strategy: gcra, limit: ~, period: 1m", "1:39: limiters.p.limit: must be given, got null"},
		{"strategy: gcra, limit: 0, period: 1m", "1:39: limiters.p.limit: must be a positive finite number, got 0"},
		{"strategy: gcra, limit: 0.5, period: 1m", "1:12: limiters.p.burst: must be a finite number >= 1, got 0.5; this is its default here"},
		{"strategy: gcra, limit: 5, burst: 0.5, period: 1m", "1:49: limiters.p.burst: must be a finite number >= 1, got 0.5"},
		{"strategy: gcra, limit: 5, burst: -1, windowMs: 0", "1:49: limiters.p.burst: must be a finite number >= 1, got -1\ntest:1:63: limiters.p.windowMs: must be a positive duration, got 0"},
		{"strategy: gcra, limit: 1e-300, period: 1m, burst: 1", "1:39: limiters.p.limit: must give an interval between units of more than 0 and at most 9007199254740991 ms, got 1e-300"},
		{"strategy: tokenBucket, capacity: 5, refilPerSec: 3", "1:12: limiters.p.refillPerSec: must be given\ntest:1:52: limiters.p.refilPerSec: is not a known field; did you mean `refillPerSec`?"},
		{"strategy: tokenBucket, capacity: 5, refill_per_sec: 3, refillPerSec: 1", "1:52: limiters.p.refill_per_sec: is not a known field; did you mean `refillPerSec`?"},
		{"strategy: tokenBucket, capacity: 1e300, refillPerSec: 1e-9", "1:70: limiters.p.refillPerSec: must fill the capacity within 9007199254740991 ms, got 1e-9"},
		{"strategy: tokenBucket, capacity: 5, refillPerSec: 3, period: 1m", "1:69: limiters.p.period: is not a field of strategy tokenBucket, which has capacity and refillPerSec"},
		{window + "period: 0", "1:57: limiters.p.period: must be a positive duration, got 0"},
		{window + "period: 0s", `1:57: limiters.p.period: must be a positive duration, got "0s"`},
		{window + "period: 0.1ns", `1:57: limiters.p.period: must be a positive duration, got "0.1ns"`},
		{window + "period: 0.0000001", "1:57: limiters.p.period: must be at least 1 nanosecond, got 0.0000001"},
		{window + "period: 106752d", `1:57: limiters.p.period: must be at most 106751 days, the longest duration, got "106752d"`},
		{window + "period: 9999999h1m", `1:57: limiters.p.period: must be at most 106751 days, the longest duration, got "9999999h1m"`},
		{window + "windowMs: 1e16", "1:59: limiters.p.windowMs: must be at most 106751 days, the longest duration, got 1e16"},
		{window + "windowMs: '60000'", `1:59: limiters.p.windowMs: must be a number of milliseconds, got "60000"; remove the quotes`},
		{window + "windowMs: 1m", `1:59: limiters.p.windowMs: must be a number of milliseconds, got "1m"; give a duration with a unit as period`},
		{window + "period: 1s, windowMs: 999", "1:71: limiters.p.windowMs: must be the same as period, which is 1000 ms, got 999; give only one of them"},
		{window + "period: 1 week", `1:57: limiters.p.period: must be a duration such as 500ms, 15m or 1h30m, or a number of milliseconds, got "1 week"`},
		{window + "period: 1M", `1:57: limiters.p.period: must be a duration such as 500ms, 15m or 1h30m, or a number of milliseconds, got "1M"`},
		{window + "period: 1m, prefix: 5", "1:69: limiters.p.prefix: must be a string, got 5; put it in quotes"},
		{window + "period: 1m, prefix: \"a\\nb\"", `1:69: limiters.p.prefix: must be at most 256 bytes long, without control characters, got "a\nb"`},
		{window + "period: 1m, failMode: Closed", "1:71: limiters.p.failMode: must be open or closed, got \"Closed\"; did you mean `closed`?"},
		{"strategy: slidingWindow, limit: 5, period: 1m, buckets: 0", "1:72: limiters.p.buckets: must be an integer from 1 to 100000, got 0"},
		{"strategy: slidingWindow, limit: 5, period: 1m, buckets: 2.5", "1:72: limiters.p.buckets: must be an integer from 1 to 100000, got 2.5"},
		{"strategy: quota, limit: 5", "1:12: limiters.p.resetCadence: must be given: calendar-month, calendar-week, calendar-day, fixed or rolling"},
		{"strategy: quota, limit: 5, resetCadence: calender-day", "1:57: limiters.p.resetCadence: must be calendar-month, calendar-week, calendar-day, fixed or rolling, got \"calender-day\"; did you mean `calendar-day`?"},
		{"strategy: quota, limit: 5, resetCadence: fixed", "1:12: limiters.p.period: must be given, or periodMs"},
		{"strategy: quota, limit: -5, resetCadence: rolling, periodMs: -5", "1:40: limiters.p.limit: must be a positive finite number, got -5\ntest:1:77: limiters.p.periodMs: must be a positive duration, got -5"},
		{"strategy: quota, limit: 5, resetCadence: calendar-day, offsetMinutes: 841", "1:86: limiters.p.offsetMinutes: must be an integer from -840 to 840, got 841"},
		{"strategy: quota, limit: 5, resetCadence: calendar-day, weekStartsOn: 7", "1:85: limiters.p.weekStartsOn: must be an integer from 0 to 6, got 7"},
		{"strategy: quota, limit: 5, resetCadence: calendar-day, anchor: 1e17", "1:79: limiters.p.anchor: must be an integer from -9007199254740991 to 9007199254740991, got 1e17"},
		{"tokenBudget: , burst: 4", "1:29: limiters.p.tokenBudget: must be a mapping, got null; write {} for the defaults\ntest:1:31: limiters.p.burst: must not be given for a tokenBudget policy, which is its own strategy"},
		{"concurrency: {}, strategy: gcra, limit: 0, period: 1m", "1:56: limiters.p.limit: must be a positive finite number, got 0"},
		{"twoTeir: {}, strategy: gcra, limit: 5, period: 1m", "1:16: limiters.p.twoTeir: is not a known field; did you mean `twoTier`?"},
		{"federated: , twoTier: {}, strategy: gcra", "1:29: limiters.p: must have at most one of tokenBudget, fleetBudget, fairEscrow, federatedFairEscrow, concurrency, distributedConcurrency, twoTier and federated, got federated and twoTier"},
	} {
		t.Run(tt.policy, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("test", []byte("limiters: {p: {"+tt.policy+"}}"))
			if err == nil || err.Error() != "test:"+tt.want {
				t.Errorf("got  %v\nwant test:%s", err, tt.want)
			}
		})
	}
}

func TestTopLevelRules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"version: 1\nlimiters: {}", ""},
		{"version: \nlimiters: {}", ""},
		{"version: 'two'\nlimiters: {}", ""},
		{"version: {}\nlimiters: {}", "1:10: version: must be a number or a string, got a mapping"},
		{"defaults: \nlimiters: {}", ""},
		{"defaults: x\nlimiters: {}", `1:11: defaults: must be a mapping, got "x"`},
		{"defaults: {prefx: x}\nlimiters: {}", "1:12: defaults.prefx: is not a known field; did you mean `prefix`?"},
		{"replay: {enabled: false}\nlimiters: {}", "1:1: replay: is not supported by this build"},
		{"capture:\nlimiters: {}", "1:1: capture: is not supported by this build"},
		{"Limiters: {}", "1:1: missing limiters map\ntest:1:1: Limiters: is not a known field; did you mean `limiters`?"},
		{"limiters: {'': {}}", `1:12: limiters[""]: must be a name of 1 to 256 bytes, without control characters` + "\n" +
			`test:1:12: limiters[""].strategy: must be given: gcra, tokenBucket, fixedWindow, slidingWindow, slidingWindowLog or quota`},
		{"limiters: {a b: 1}", `1:17: limiters["a b"]: must be a mapping, got 1`},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("test", []byte(tt.text))
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tt.want != "" && (err == nil || err.Error() != "test:"+tt.want):
				t.Errorf("got  %v\nwant test:%s", err, tt.want)
			}
		})
	}
}

func TestFailModePrecedence(t *testing.T) {
	t.Parallel()
	f, err := Parse("test", []byte(`defaults: {failMode: closed}
limiters:
  a: {strategy: fixedWindow, limit: 1, period: 1s}
  b: {strategy: fixedWindow, limit: 1, period: 1s, failMode: open}
  c: {strategy: fixedWindow, limit: 1, period: 1s, failMode: null}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []service.FailMode{service.FailClosed, service.FailOpen, service.FailClosed}
	for i, info := range f.Policies() {
		if info.FailMode != want[i] {
			t.Errorf("%s: got %q, want %q", info.Name, info.FailMode, want[i])
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want time.Duration
		rule string
	}{
		{"1", time.Millisecond, ""},
		{"  1.5  ", 1500 * time.Microsecond, ""},
		{"2ms", 2 * time.Millisecond, ""},
		{"1 s", time.Second, ""},
		{" 15m ", 15 * time.Minute, ""},
		{"0.5h", 30 * time.Minute, ""},
		{"7d", 7 * 24 * time.Hour, ""},
		{"1h30m", 90 * time.Minute, ""},
		{"1m30s", 90 * time.Second, ""},
		{"250us", 250 * time.Microsecond, ""},
		{"3µs", 3 * time.Microsecond, ""},
		{"106751d", 106751 * 24 * time.Hour, ""},
		{"9223372036854775807ns", math.MaxInt64, ""},
		{"9223372036854775808ns", 0, longestRule},
		{"1e3", 0, durationRule},
		{"", 0, durationRule},
		{".", 0, durationRule},
		{"1.", 0, durationRule},
		{"1D", 0, durationRule},
		{"1d12h", 0, durationRule},
		{"1h 30m", 0, durationRule},
		{"1\tm", 0, durationRule},
		{"0", 0, positiveRule},
		{"0d", 0, positiveRule},
		{"-1s", 0, positiveRule},
		{"0.0000001", 0, shortestRule},
		{strings.Repeat("9", 400) + "d", 0, longestRule},
	} {
		if got, rule := parseDuration(tt.text); got != tt.want || rule != tt.rule {
			t.Errorf("%.30q: got %v, %q, want %v, %q", tt.text, got, rule, tt.want, tt.rule)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	known := []string{"limit", "period", "refillPerSec", "windowMs", "open"}
	for word, want := range map[string]string{
		"limits": "limit", "limt": "limit", "ilmit": "limit", "LIMIT": "limit", "refill_per_sec": "refillPerSec",
		"window-ms": "windowMs", "peroid": "period", "opne": "open", "": "", "x": "", "colour": "", "refill": "", "fail": "",
		strings.Repeat("limit", 1000): "",
	} {
		if want != "" {
			want = "did you mean `" + want + "`?"
		}
		if got := didYouMean(word, known); got != want {
			t.Errorf("%.20q: got %q, want %q", word, got, want)
		}
	}
}

// TestKindsAreReady holds the table of kinds to the specification.
func TestKindsAreReady(t *testing.T) {
	t.Parallel()
	if len(kinds) != 8 {
		t.Errorf("got %d kinds, want 8", len(kinds))
	}
	for _, k := range kinds {
		if slices.Contains(strategyFields(), k.name) {
			t.Errorf("%s is a field of a strategy as well", k.name)
		}
	}
}

// closer is a policy that knows whether it was closed.
type closer struct {
	info   service.Info
	closed *int
}

func (c closer) Info() service.Info { return c.info }

func (c closer) Close() error { *c.closed++; return nil }

func TestBuildAllOrNone(t *testing.T) {
	t.Parallel()
	closed := 0
	good := func(s *spec, _ Env) (service.Policy, error) { return closer{s.info, &closed}, nil }
	bad := func(_ *spec, _ Env) (service.Policy, error) { return nil, errors.New("it has no store") }
	f := &File{name: "test", specs: []*spec{
		{path: "limiters.a", at: position{1, 1}, make: good},
		{path: "limiters.b", at: position{2, 1}, make: bad},
		{path: "limiters.c", at: position{3, 1}, make: good},
		{path: "limiters.d", at: position{4, 1}, make: bad},
	}}
	built, err := f.Build(Env{})
	const want = "test:2:1: limiters.b: cannot be built: it has no store\ntest:4:1: limiters.d: cannot be built: it has no store"
	if built != nil || err == nil || err.Error() != want {
		t.Errorf("got %v, %v, want %s", built, err, want)
	}
	if closed != 2 {
		t.Errorf("%d policies were closed, want 2", closed)
	}
}

package budget_test

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/lease"
)

// century is a window that no test sees end.
const century = 100 * 365 * 24 * time.Hour

func window(limit float64, width time.Duration) *budget.Budget {
	return &budget.Budget{Windows: []budget.Window{{Limit: limit, Width: width}}}
}

// TestManyStreamsOneBudget: what 500 streams meter never exceeds the budget by more than the last debit less one.
func TestManyStreamsOneBudget(t *testing.T) {
	t.Parallel()
	const streams, limit = 500, 20_000
	for _, chunk := range []int64{1, 17} {
		for _, levels := range []int{1, 2} {
			for _, shared := range []bool{false, true} {
				t.Run(fmt.Sprint(chunk, " tokens, ", levels, " levels, shared ", shared), func(t *testing.T) {
					t.Parallel()
					b := window(limit, century)
					if levels == 2 {
						b.Parent = &budget.Budget{Name: "all", Windows: []budget.Window{{Limit: limit + 5, Width: century}}}
					}
					config := budget.Config{Budget: b}
					if shared {
						config.Store = memory(t, nil)
					}
					m := meter(t, config)
					var metered atomic.Int64
					var streaming sync.WaitGroup
					for range streams {
						streaming.Go(func() {
							for debit(t, m, "k", chunk).Allowed {
								metered.Add(chunk)
							}
						})
					}
					streaming.Wait()
					if n := metered.Load(); n < limit || n > limit+chunk-1 {
						t.Errorf("%d tokens were metered of %d", n, limit)
					}
				})
			}
		}
	}
}

// TestExactly: 250 concurrent debits of one token on a budget of 100 admit exactly 100.
func TestExactly(t *testing.T) {
	t.Parallel()
	for place, config := range places(t, window(100, century), throttlekit.NewManualClock(5)) {
		m := meter(t, config)
		var allowed atomic.Int64
		var all sync.WaitGroup
		for range 250 {
			all.Go(func() {
				if debit(t, m, "k", 1).Allowed {
					allowed.Add(1)
				}
			})
		}
		all.Wait()
		if allowed.Load() != 100 {
			t.Errorf("%s: %d of 100", place, allowed.Load())
		}
		if d := debit(t, m, "other", 1); !d.Allowed || d.Remaining != 99 {
			t.Errorf("%s: another key has a budget of its own: %+v", place, d)
		}
	}
}

// TestLevels: a debit charges all windows of all levels or none, and a refusal says which one bound.
func TestLevels(t *testing.T) {
	t.Parallel()
	organisation := &budget.Budget{Name: "org", Windows: []budget.Window{{Name: "month", Limit: 100, Cadence: throttlekit.CalendarMonth}}}
	team := &budget.Budget{
		Name: "team", Windows: []budget.Window{{Name: "day", Limit: 60, Cadence: throttlekit.CalendarDay}}, Parent: organisation,
	}
	key := &budget.Budget{
		Windows:   []budget.Window{{Name: "minute", Limit: 20, Width: minute}, {Name: "hour", Limit: 50, Width: time.Hour}},
		Parent:    team,
		ParentKey: func(key string) string { return strings.Split(key, "/")[0] },
	}
	clock := throttlekit.NewManualClock(0)
	for place, config := range places(t, key, clock) {
		clock.Set(time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC).UnixMilli())
		m := meter(t, config)
		expect := func(key string, tokens int64, want string) {
			t.Helper()
			v, err := m.DebitExplained(t.Context(), key, tokens)
			if got := fmt.Sprint(v.Allowed, " ", v.Level, "/", v.Window, " ", v.Remaining); err != nil || got != want {
				t.Errorf("%s: %d tokens for %s: %s, want %s, %v", place, tokens, key, got, want, err)
			}
		}
		expect("a/1", 18, "true key/minute 2")
		expect("a/1", 7, "true key/minute 0")
		expect("a/1", 1, "false key/minute 0")
		expect("a/2", 20, "true key/minute 0")
		expect("a/3", 15, "true team/day 0") // 60 of 60
		expect("a/4", 1, "false team/day 0")
		expect("b/1", 19, "true key/minute 1") // the organisation has 79 of 100
		clock.Advance(minute)
		expect("b/1", 15, "true key/minute 5")
		expect("b/2", 5, "true org/month 1")
		expect("b/2", 5, "true org/month 0")
		expect("b/3", 1, "false org/month 0")
		clock.Set(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
		expect("a/4", 1, "true key/minute 19") // it had been charged nothing
		v, err := m.Peek(t.Context(), "a/4")
		if err != nil || !v.Allowed || v.Remaining != 19 {
			t.Errorf("%s: a look: %+v, %v", place, v, err)
		}
		if err := m.Reset(t.Context(), "a/4"); err != nil {
			t.Error(err)
		}
		if store, ok := config.Store.(*textStore); ok {
			before := store.calls
			expect("a/4", 2, "true key/minute 18")
			if store.calls != before+1 {
				t.Errorf("one debit took %d round trips", store.calls-before)
			}
		}
	}
}

// TestDaysOfATimeZone: local days begin at local midnight, also where clocks change, and have 23 to 25 hours.
func TestDaysOfATimeZone(t *testing.T) {
	t.Parallel()
	at := func(text string) int64 {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.UnixMilli()
	}
	for _, c := range []struct {
		cadence   throttlekit.Cadence
		zone      string
		weekStart int
		now       string
		reset     string
	}{
		{throttlekit.CalendarDay, "", 0, "2026-03-10T12:00:00Z", "2026-03-11T00:00:00Z"},
		{throttlekit.CalendarDay, "Europe/Berlin", 0, "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}, // 23 h
		{throttlekit.CalendarDay, "Europe/Berlin", 0, "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"}, // 25 h
		{throttlekit.CalendarDay, "Asia/Kathmandu", 0, "2026-01-01T00:00:00+05:45", "2026-01-02T00:00:00+05:45"},
		{throttlekit.CalendarDay, "Africa/Cairo", 0, "2026-04-23T12:00:00+02:00", "2026-04-24T01:00:00+03:00"}, // no midnight
		{throttlekit.CalendarDay, "Pacific/Apia", 0, "2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00"}, // no 30th
		{throttlekit.CalendarWeek, "America/New_York", 0, "2026-03-08T12:00:00-04:00", "2026-03-09T00:00:00-04:00"},
		{throttlekit.CalendarWeek, "America/New_York", 7, "2026-03-08T00:00:00-05:00", "2026-03-15T00:00:00-04:00"},
		{throttlekit.CalendarMonth, "America/New_York", 0, "2026-03-01T00:00:00-05:00", "2026-04-01T00:00:00-04:00"},
		{throttlekit.CalendarMonth, "", 0, "2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"},
		{throttlekit.CalendarMonth, "", 0, "2025-12-31T00:00:00Z", "2026-01-01T00:00:00Z"},
	} {
		clock := throttlekit.NewManualClock(at(c.now))
		b := &budget.Budget{Windows: []budget.Window{{Limit: 5, Cadence: c.cadence, Zone: c.zone, WeekStart: c.weekStart}}}
		for place, config := range places(t, b, clock) {
			clock.Set(at(c.now))
			m := meter(t, config)
			d := debit(t, m, "k", 5)
			if d.ResetAtMillis != at(c.reset) || !d.Allowed {
				t.Errorf("%s, %s %s from %s: it ends at %s, want %s", place, c.zone, c.cadence, c.now, d.ResetAt().UTC(), c.reset)
			}
			clock.Set(at(c.reset) - 1)
			if d := debit(t, m, "k", 1); d.Allowed || d.RetryAfterMillis != 1 {
				t.Errorf("%s, %s: a millisecond before: %+v", place, c.zone, d)
			}
			clock.Set(at(c.reset))
			if d := debit(t, m, "k", 1); !d.Allowed {
				t.Errorf("%s, %s: at the reset: %+v", place, c.zone, d)
			}
		}
	}
}

func TestBadBudgets(t *testing.T) {
	t.Parallel()
	cycle := &budget.Budget{Name: "a", Windows: []budget.Window{{Limit: 1, Width: minute}}}
	cycle.Parent = &budget.Budget{Name: "b", Windows: []budget.Window{{Limit: 1, Width: minute}}, Parent: cycle}
	deep := window(1, minute)
	for i := range 16 {
		deep = &budget.Budget{Name: fmt.Sprint("l", i), Windows: []budget.Window{{Limit: 1, Width: minute}}, Parent: deep}
	}
	one := func(w budget.Window) *budget.Budget { return &budget.Budget{Windows: []budget.Window{w}} }
	for _, c := range []struct {
		what   string
		budget *budget.Budget
		fields []string
	}{
		{"no budget", nil, []string{"budget"}},
		{"no windows", &budget.Budget{}, []string{"windows"}},
		{"zero", window(0, minute), []string{"budget"}},
		{"between 0 and 1", window(0.5, minute), []string{"budget"}},
		{"negative", window(-1, minute), []string{"budget"}},
		{"not a number", window(math.NaN(), minute), []string{"budget"}},
		{"infinite", window(math.Inf(1), minute), []string{"budget"}},
		{"too large", window(1<<52+1, minute), []string{"budget"}},
		{"no width", window(1, 0), []string{"window"}},
		{"too short a window", window(1, time.Microsecond), []string{"window"}},
		{"a negative window", window(1, -minute), []string{"window"}},
		{"both wrong", window(0, 0), []string{"budget", "window"}},
		{"an unknown zone", one(budget.Window{Limit: 1, Cadence: throttlekit.CalendarDay, Zone: "Mars/Phobos"}), []string{"zone"}},
		{"a zone that depends", one(budget.Window{Limit: 1, Cadence: throttlekit.CalendarDay, Zone: "Local"}), []string{"zone"}},
		{"a zone without calendar", one(budget.Window{Limit: 1, Width: minute, Zone: "UTC"}), []string{"zone"}},
		{"a cadence of no calendar", one(budget.Window{Limit: 1, Cadence: throttlekit.Rolling}), []string{"resetCadence"}},
		{"a cadence and a width", one(budget.Window{Limit: 1, Cadence: throttlekit.CalendarDay, Width: minute}), []string{"window"}},
		{"an eighth weekday", one(budget.Window{Limit: 1, Cadence: throttlekit.CalendarWeek, WeekStart: 8}), []string{"weekStart"}},
		{"a name with a colon", one(budget.Window{Name: "a:b", Limit: 1, Width: minute}), []string{"name"}},
		{
			"equal windows", &budget.Budget{Windows: []budget.Window{{Limit: 1, Width: minute}, {Limit: 1, Width: minute}}},
			[]string{"windows[1].name", "windows[1].budget"},
		},
		{"a cycle of parents", cycle, []string{"parent.parent.name"}},
		{"too many levels", deep, []string{strings.Repeat("parent.", 16) + "name"}},
		{"levels of one name", &budget.Budget{Windows: cycle.Windows, Parent: window(1, minute)}, []string{"parent.name"}},
	} {
		_, err := budget.NewMeter(budget.Config{Budget: c.budget})
		breaks(t, c.what, err, c.fields...)
	}
	_, err := budget.NewMeter(budget.Config{Budget: window(1, minute), MaxKeys: -1})
	breaks(t, "negative keys", err, "maxKeys")
	_, err = budget.NewMeter(budget.Config{Budget: window(1, minute), Store: memory(t, nil), Clock: throttlekit.SystemClock{}})
	breaks(t, "two clocks", err, "clock")
	if d := debit(t, meter(t, budget.Config{Budget: window(1.9, math.MaxInt64)}), "k", throttlekit.MaxSafe); !d.Allowed || d.Limit != 1 {
		t.Errorf("the longest window, a fraction and the largest debit: %+v", d)
	}
}

func TestBadDebits(t *testing.T) {
	t.Parallel()
	for place, config := range places(t, window(10, century), throttlekit.NewManualClock(1)) {
		m := meter(t, config)
		g, err := budget.NewGranted(budget.GrantedConfig{Meter: m, Batch: 3})
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.Debit(t.Context(), "k", budget.MaxTokens+1)
		breaks(t, place+", more than any budget", err, "tokens")
		for _, tokens := range []int64{0, -1, math.MinInt64, math.MaxInt64, throttlekit.MaxSafe + 1} {
			_, err := m.Debit(t.Context(), "k", tokens)
			breaks(t, fmt.Sprint(place, " ", tokens), err, "tokens")
			_, err = m.DebitExplained(t.Context(), "k", tokens)
			breaks(t, fmt.Sprint(place, " ", tokens), err, "tokens")
			_, err = g.Debit(t.Context(), "k", tokens)
			breaks(t, fmt.Sprint(place, " ", tokens), err, "tokens")
		}
		if v, err := m.Peek(t.Context(), "k"); err != nil || v.Remaining != 10 {
			t.Errorf("%s: bad debits were charged: %+v, %v", place, v, err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if _, err := m.Debit(t.Context(), "k", 1); !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("%s: after Close: %v", place, err)
		}
		if err := m.Reset(t.Context(), "k"); !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("%s: after Close: %v", place, err)
		}
	}
}

// TestFullTable: a new key beyond the bound is refused as long as the windows of all others are open, and no
// use is forgotten.
func TestFullTable(t *testing.T) {
	t.Parallel()
	const keys = 1000
	clock := throttlekit.NewManualClock(0)
	m := meter(t, budget.Config{Budget: window(2, minute), Clock: clock, MaxKeys: keys})
	name := func(i int) string { return fmt.Sprint("key", i) }
	for i := range keys {
		if d := debit(t, m, name(i), 2); !d.Allowed {
			t.Fatal(i, d)
		}
	}
	for i := range 3 * keys {
		clock.Set(int64(i))
		if _, err := m.Debit(t.Context(), "new"+name(i), 1); !errors.Is(err, throttlekit.ErrStoreFull) {
			t.Fatalf("key %d beyond the bound: %v", i, err)
		}
		if d := debit(t, m, name(i%keys), 1); d.Allowed {
			t.Fatalf("key %d was forgotten: %+v", i%keys, d)
		}
	}
	clock.Set(minute.Milliseconds())
	for i := range keys {
		if d := debit(t, m, "new"+name(i), 1); !d.Allowed {
			t.Fatal(i, d)
		}
	}
	if _, err := m.Debit(t.Context(), name(1), 1); !errors.Is(err, throttlekit.ErrStoreFull) {
		t.Errorf("one more: %v", err)
	}
}

// TestTableUnderFire: keys that come and go while others debit them lose no use.
func TestTableUnderFire(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	m := meter(t, budget.Config{Budget: window(50, minute), Clock: clock, MaxKeys: 300})
	var allowed [64]atomic.Int64
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 4000 {
				key := (i + worker) % len(allowed)
				if debit(t, m, strconv.Itoa(key), 1).Allowed {
					allowed[key].Add(1)
				}
				_, _ = m.Debit(t.Context(), fmt.Sprint("passing", worker, i%200), 1)
			}
		})
	}
	all.Wait()
	for key := range allowed {
		if n := allowed[key].Load(); n != 50 {
			t.Errorf("key %d was allowed %d of 50", key, n)
		}
	}
}

func TestGranted(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	parent := &budget.Budget{Name: "all", Windows: []budget.Window{{Limit: 150, Width: time.Hour}}}
	for place, config := range places(t, &budget.Budget{Windows: window(100, minute).Windows, Parent: parent}, clock) {
		clock.Set(0)
		m := meter(t, config)
		var processes [3]*budget.Granted
		for i := range processes {
			var err error
			processes[i], err = budget.NewGranted(budget.GrantedConfig{
				Meter: m, Batch: 40, Elapsed: func() time.Duration { return time.Duration(clock.NowMillis()) * time.Millisecond },
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		left := func(want int64) {
			t.Helper()
			if v, err := m.Peek(t.Context(), "k"); err != nil || v.Remaining != want {
				t.Errorf("%s: %d tokens are left, want %d, %v", place, v.Remaining, want, err)
			}
		}
		spend := func(process, most int) (n int) {
			for n < most && debit(t, processes[process], "k", 1).Allowed {
				n++
			}
			return n
		}
		if d := debit(t, processes[0], "k", 1); !d.Allowed || d.Remaining != 39 {
			t.Errorf("%s: the first debit draws a batch: %+v", place, d)
		}
		left(60)
		if n := spend(1, 1000) + spend(2, 1000) + spend(0, 1000); n != 99 {
			t.Errorf("%s: %d tokens were metered of the 99 that were left", place, n)
		}
		if d := debit(t, processes[0], "k", 1); d.Allowed || d.RetryAfterMillis != 60_000 {
			t.Errorf("%s: when all is spent: %+v", place, d)
		}
		clock.Advance(minute)
		if n := spend(0, 5) + spend(1, 5); n != 10 { // of 50 that the parent has
			t.Errorf("%s: %d tokens in the next window", place, n)
		}
		left(0)
		for i := range 2 {
			if err := processes[i].Return(t.Context(), "k"); err != nil {
				t.Error(err)
			}
		}
		left(40)
		if n := spend(2, 7); n != 7 {
			t.Errorf("%s: %d tokens of what was returned", place, n)
		}
		clock.Advance(minute)
		if err := processes[2].Close(t.Context()); err != nil { // another window: nothing is given back
			t.Error(err)
		}
		left(0)
		if _, err := processes[2].Debit(t.Context(), "k", 1); !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("%s: after Close: %v", place, err)
		}
	}
}

// TestGrantedBeyondItsTable: keys that find no room are metered one by one.
func TestGrantedBeyondItsTable(t *testing.T) {
	t.Parallel()
	m := meter(t, budget.Config{Budget: window(10, century)})
	g, err := budget.NewGranted(budget.GrantedConfig{Meter: m, Sizer: sizer(t), MaxKeys: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c"} {
		for i := range 12 {
			if d := debit(t, g, key, 1); d.Allowed != (i < 10) {
				t.Errorf("debit %d of %s: %+v", i, key, d)
			}
		}
	}
	_, err = budget.NewGranted(budget.GrantedConfig{Batch: -1, LowWater: -1, Timeout: -1, MaxKeys: -1})
	breaks(t, "a bad configuration", err, "meter", "batch", "lowWater", "timeout", "maxKeys")
	if g, err = budget.NewGranted(budget.GrantedConfig{Meter: m}); err != nil || !debit(t, g, "learning", 10).Allowed {
		t.Errorf("with a sizer of its own: %v", err)
	}
	if d := debit(t, g, "learning", 1); d.Allowed {
		t.Errorf("beyond the budget: %+v", d)
	}
}

func sizer(tb testing.TB) func() lease.Sizer {
	tb.Helper()
	return func() lease.Sizer {
		l, err := lease.NewLearner(lease.LearnerConfig{InitialSize: 4})
		if err != nil {
			tb.Error(err)
		}
		return l
	}
}

func TestDebitAllocatesNothing(t *testing.T) {
	m := meter(t, budget.Config{Budget: window(1<<52, century)})
	if n := testing.AllocsPerRun(1000, func() { _, _ = m.Debit(t.Context(), "k", 3) }); n != 0 {
		t.Errorf("a debit allocates %v times", n)
	}
}

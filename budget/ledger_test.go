package budget_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
)

// expects are reservations of always this size, since nothing is learned between 50 and 50.
func expects(tokens float64) budget.PredictiveConfig {
	return budget.PredictiveConfig{LearnedConfig: budget.LearnedConfig{Min: tokens, Max: tokens, StepScale: 1}}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	for place, config := range places(t, window(1000, minute), clock) {
		clock.Set(0)
		l := ledger(t, budget.LedgerConfig{Config: config, Learning: expects(200)})
		holds := func(requests, expected, left int64) {
			t.Helper()
			v, err := l.Peek(t.Context(), "k")
			if f := inFlight(t, l, "k"); f != (budget.InFlight{Requests: requests, Expected: expected}) || v.Remaining != left || err != nil {
				t.Errorf("%s: %+v and %d left, want %d, %d and %d, %v", place, f, v.Remaining, requests, expected, left, err)
			}
		}
		a := admit(t, l, budget.Request{Key: "k", Input: 300})
		if v := a.Verdict(); !v.Allowed || v.Remaining != 700 || a.MaxOutput() != 700 || len(a.ID()) != 32 {
			t.Errorf("%s: the first: %+v, at most %d, ID %q", place, v, a.MaxOutput(), a.ID())
		}
		holds(1, 200, 700)
		b := admit(t, l, budget.Request{Key: "k", Input: 100, MaxOutput: 80})
		if v := b.Verdict(); !v.Allowed || v.Remaining != 400 || b.MaxOutput() != 80 {
			t.Errorf("%s: the second: %+v, at most %d", place, v, b.MaxOutput())
		}
		holds(2, 280, 600)
		c := admit(t, l, budget.Request{Key: "k", Input: 200}) // 400 used, 280 expected, 200 + 200 more
		if v := c.Verdict(); v.Allowed || v.Window != "1m0s" || v.RetryAfterMillis != 60_000 || c.ID() != "" || c.MaxOutput() != 0 {
			t.Errorf("%s: what does not fit: %+v", place, v)
		}
		holds(2, 280, 600)
		for range 30 {
			if v, err := b.Debit(t.Context(), 1); err != nil || !v.Allowed {
				t.Errorf("%s: %+v, %v", place, v, err)
			}
		}
		holds(2, 250, 570)
		receipt, err := b.Settle(t.Context(), budget.Usage{Input: 90, Output: 30})
		if err != nil || receipt != (budget.Receipt{Metered: 130, Reported: 120, Refund: 10}) {
			t.Errorf("%s: settling for less: %+v, %v", place, receipt, err)
		}
		holds(1, 200, 580)
		for _, late := range []func() error{
			func() error { _, err := b.Settle(t.Context(), budget.Usage{}); return err },
			func() error { _, err := b.Debit(t.Context(), 1); return err },
			func() error { _, err := b.Renew(t.Context()); return err },
			func() error { _, err := c.Debit(t.Context(), 1); return err },
			func() error { _, err := c.Settle(t.Context(), budget.Usage{Output: 3}); return err },
		} {
			if err := late(); !errors.Is(err, throttlekit.ErrClosed) {
				t.Errorf("%s: after the end: %v", place, err)
			}
		}
		if receipt, err = a.Settle(t.Context(), budget.Usage{Input: 300, Output: 800}); err != nil || receipt.Debt != 800 || receipt.Refund != 0 {
			t.Errorf("%s: settling for more: %+v, %v", place, receipt, err)
		}
		holds(0, 0, 0)
		if err := errors.Join(a.Close(), b.Close(), b.Close(), c.Close()); err != nil {
			t.Errorf("%s: %v", place, err)
		}
		want := budget.Stats{Admitted: 2, Refused: 1, Metered: 430, Debt: 800, Refunded: 10}
		if got := l.Stats(); got != want {
			t.Errorf("%s: %+v, want %+v", place, got, want)
		}
		if v, err := l.Peek(t.Context(), "k"); err != nil || v.Allowed {
			t.Errorf("%s: a debt binds: %+v, %v", place, v, err)
		}
	}
}

// TestTinyBudgets: an expectation beyond the whole budget does not shut everybody out, nor lets everybody in.
func TestTinyBudgets(t *testing.T) {
	t.Parallel()
	for place, config := range places(t, window(50, minute), throttlekit.NewManualClock(0)) {
		l := ledger(t, budget.LedgerConfig{Config: config, Learning: expects(4000)})
		a := admit(t, l, budget.Request{Key: "k", Input: 10})
		if !a.Verdict().Allowed || a.MaxOutput() != 40 {
			t.Errorf("%s: alone: %+v", place, a.Verdict())
		}
		if b := admit(t, l, budget.Request{Key: "k", Input: 1}); b.Verdict().Allowed {
			t.Errorf("%s: beside it: %+v", place, b.Verdict())
		}
		if b := admit(t, l, budget.Request{Key: "other", Input: 50}); !b.Verdict().Allowed || b.MaxOutput() != 0 {
			t.Errorf("%s: input that takes all: %+v", place, b.Verdict())
		}
		if b := admit(t, l, budget.Request{Key: "third", Input: 51}); b.Verdict().Allowed {
			t.Errorf("%s: input beyond all: %+v", place, b.Verdict())
		}
	}
}

// TestLapse: a reservation is dropped at its TTL after the latest sign of life; the use stays, and is settled all the same.
func TestLapse(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	for place, config := range places(t, window(1000, time.Hour), clock) {
		clock.Set(0)
		l := ledger(t, budget.LedgerConfig{
			Config: config, Learning: expects(300), TTL: minute,
			Elapsed: func() time.Duration { return time.Duration(clock.NowMillis()) * time.Millisecond },
		})
		a := admit(t, l, budget.Request{Key: "k", Input: 100})
		orphan := admit(t, l, budget.Request{Key: "k", Input: 50})
		clock.Set(50_000)
		if _, err := a.Debit(t.Context(), 10); err != nil {
			t.Error(err)
		}
		clock.Set(59_999)
		if f := inFlight(t, l, "k"); f.Requests != 2 || !a.Stands() || orphan.Stands() != (place == "process") { // on a store, clocks may drift
			t.Errorf("%s: before the TTL: %+v, stands %v and %v", place, f, a.Stands(), orphan.Stands())
		}
		clock.Set(60_000)
		if f := inFlight(t, l, "k"); f != (budget.InFlight{Requests: 1, Expected: 290}) {
			t.Errorf("%s: at the TTL: %+v", place, f)
		}
		if alive, err := a.Renew(t.Context()); !alive || err != nil {
			t.Errorf("%s: renewing: %v, %v", place, alive, err)
		}
		if alive, err := orphan.Renew(t.Context()); alive || err != nil {
			t.Errorf("%s: renewing what is gone: %v, %v", place, alive, err)
		}
		clock.Set(119_999)
		if f := inFlight(t, l, "k"); f.Requests != 1 {
			t.Errorf("%s: after renewal: %+v", place, f)
		}
		if v, err := orphan.Debit(t.Context(), 5); !v.Allowed || err != nil {
			t.Errorf("%s: what is gone is metered: %+v, %v", place, v, err)
		}
		if orphan.Stands() {
			t.Errorf("%s: what is gone stands", place)
		}
		left := func(want int64) {
			t.Helper()
			if v, err := l.Peek(t.Context(), "k"); v.Remaining != want || err != nil {
				t.Errorf("%s: %d are left, want %d, %v", place, v.Remaining, want, err)
			}
		}
		left(1000 - 100 - 50 - 10 - 5)
		if r, err := orphan.Settle(t.Context(), budget.Usage{Input: 50, Output: 1}); !r.Lapsed || r.Refund != 0 || err != nil {
			t.Errorf("%s: nothing is given back for what is gone: %+v, %v", place, r, err)
		}
		left(835)
		late := admit(t, l, budget.Request{Key: "k", Input: 35})
		quiet := admit(t, l, budget.Request{Key: "other", Input: 1})
		clock.Set(400_000)
		if v, err := quiet.Debit(t.Context(), 1); !v.Allowed || err != nil || quiet.Stands() {
			t.Errorf("%s: a debit after the TTL: %+v, %v, stands %v", place, v, err, quiet.Stands())
		}
		if r, err := late.Settle(t.Context(), budget.Usage{Input: 35, Output: 100}); r.Debt != 100 || err != nil {
			t.Errorf("%s: a debt of what is gone is charged: %+v, %v", place, r, err)
		}
		left(700)
	}
}

// TestRefundsStayInTheirWindow: a refund reaches no other window, and gives back no more than was charged there.
func TestRefundsStayInTheirWindow(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	b := &budget.Budget{Windows: []budget.Window{{Name: "minute", Limit: 1000, Width: minute}, {Name: "hour", Limit: 1500, Width: time.Hour}}}
	for place, config := range places(t, b, clock) {
		clock.Set(59_000)
		l := ledger(t, budget.LedgerConfig{Config: config, Learning: expects(10)})
		a := admit(t, l, budget.Request{Key: "k", Input: 400})
		clock.Set(60_000)
		if v, err := a.Debit(t.Context(), 30); err != nil || v.Remaining != 970 || v.Window != "minute" {
			t.Errorf("%s: %+v, %v", place, v, err)
		}
		other := admit(t, l, budget.Request{Key: "k", Input: 100})
		if r, err := a.Settle(t.Context(), budget.Usage{}); err != nil || r.Refund != 430 {
			t.Errorf("%s: %+v, %v", place, r, err)
		}
		// The minute takes back 30 and keeps the other's 100, the hour takes back all 430.
		if v, err := l.Peek(t.Context(), "k"); err != nil || v.Remaining != 900 || v.Window != "minute" {
			t.Errorf("%s: %+v, %v", place, v, err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		clock.Set(120_000)
		probe := admit(t, l, budget.Request{Key: "k", Input: 999, MaxOutput: 1})
		if v := probe.Verdict(); !v.Allowed || v.Remaining != 1 {
			t.Errorf("%s: a new minute: %+v", place, v)
		}
		clock.Set(180_000)
		if v, err := l.Peek(t.Context(), "k"); err != nil || v.Remaining != 401 || v.Window != "hour" {
			t.Errorf("%s: the hour: %+v, %v", place, v, err)
		}
	}
}

func TestManyInFlight(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	for place, config := range places(t, window(1e6, time.Hour), clock) {
		l := ledger(t, budget.LedgerConfig{Config: config, Learning: expects(10), MaxInFlight: 3})
		for range 3 {
			admit(t, l, budget.Request{Key: "k", Input: 1})
		}
		v := admit(t, l, budget.Request{Key: "k", Input: 1}).Verdict()
		if v.Allowed || v.Window != "" || v.RetryAfterMillis != minute.Milliseconds() {
			t.Errorf("%s: a fourth: %+v", place, v)
		}
	}
}

// TestModels: expectations are learned for each model, and their number is bounded.
func TestModels(t *testing.T) {
	t.Parallel()
	l := ledger(t, budget.LedgerConfig{
		Config: budget.Config{Budget: window(1<<50, time.Hour)}, MaxModels: 2,
		Learning: budget.PredictiveConfig{LearnedConfig: budget.LearnedConfig{Max: 4000}},
	})
	expected := func(model string) int64 {
		a := admit(t, l, budget.Request{Key: "k", Model: model, Input: 1})
		n := inFlight(t, l, "k").Expected
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		return n
	}
	for range 50 {
		for model, output := range map[string]int64{"short": 20, "long": 3000} {
			a := admit(t, l, budget.Request{Key: "k", Model: model, Input: 1})
			if _, err := a.Settle(t.Context(), budget.Usage{Input: 1, Output: output}); err != nil {
				t.Error(err)
			}
		}
	}
	if short, long := expected("short"), expected("long"); short > 500 || long < 2500 {
		t.Errorf("it expects %d of a short model and %d of a long one", short, long)
	}
	for i := range 100 {
		expected(fmt.Sprint("model", i))
	}
}

// TestRandomCancels: however 10,000 requests end, nothing is held in the end, and no use is given back.
func TestRandomCancels(t *testing.T) {
	t.Parallel()
	const requests, workers, limit = 10_000, 50, 1 << 40
	for _, shared := range []bool{false, true} {
		config := budget.Config{Budget: &budget.Budget{
			Windows: window(limit, century).Windows,
			Parent:  &budget.Budget{Name: "all", Windows: []budget.Window{{Limit: limit * 2, Width: century}}},
		}}
		if shared {
			config.Store = memory(t, nil)
		}
		l := ledger(t, budget.LedgerConfig{Config: config})
		var mu sync.Mutex
		var used int64
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				r := rand.New(rand.NewPCG(11, uint64(w)))
				for range requests / workers {
					n := cancelled(t, l, r)
					mu.Lock()
					used += n
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if f := inFlight(t, l, "k"); f != (budget.InFlight{}) {
			t.Errorf("shared %v: in the end there are %+v", shared, f)
		}
		if v, err := l.Peek(t.Context(), "k"); err != nil || v.Remaining != limit-used {
			t.Errorf("shared %v: %d were used and %d charged, %v", shared, used, limit-v.Remaining, err)
		}
	}
}

// cancelled runs a request that may end at any point, by an error or a panic, and says what it used.
func cancelled(t *testing.T, l *budget.Ledger, r *rand.Rand) (used int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer func() { _ = recover() }()
	input := 1 + r.Int64N(50)
	a, err := l.Admit(ctx, budget.Request{Key: "k", Model: "m", Input: input})
	if err != nil || !a.Verdict().Allowed {
		t.Errorf("%v, %v", a, err)
		return 0
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	used = input
	for range r.IntN(20) {
		switch r.IntN(30) {
		case 0:
			cancel()
			return used
		case 1:
			panic("the stream broke")
		case 2:
			report := budget.Usage{Input: input, Output: r.Int64N(200)}
			if _, err := a.Settle(ctx, report); err != nil {
				t.Error(err)
			}
			return report.Input + report.Output
		}
		n := 1 + r.Int64N(17)
		if v, err := a.Debit(ctx, n); err != nil || !v.Allowed {
			t.Errorf("%+v, %v", v, err)
		}
		used += n
	}
	return used
}

// TestTimeoutAfterApply: a call that was applied although it failed leaves nothing behind but its use.
func TestTimeoutAfterApply(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	store := newTextStore(clock)
	l := ledger(t, budget.LedgerConfig{Config: budget.Config{Budget: window(1000, time.Hour), Store: store}, Learning: expects(100), TTL: minute})
	timeout := fmt.Errorf("%w: no answer", throttlekit.ErrStoreUnavailable)
	failing := func(f func()) {
		store.fault = func() (error, bool) { return timeout, true }
		f()
		store.fault = nil
	}
	left := func(requests, want int64) {
		t.Helper()
		v, err := l.Peek(t.Context(), "k")
		if f := inFlight(t, l, "k"); v.Remaining != want || f.Requests != requests || err != nil {
			t.Errorf("%d are left and %d in flight, want %d and %d, %v", v.Remaining, f.Requests, want, requests, err)
		}
	}
	a := admit(t, l, budget.Request{Key: "k", Input: 100})
	failing(func() {
		if _, err := a.Debit(t.Context(), 17); !errors.Is(err, timeout) {
			t.Error(err)
		}
		if _, err := l.Admit(t.Context(), budget.Request{Key: "k", Input: 20}); !errors.Is(err, timeout) {
			t.Error(err)
		}
	})
	left(2, 863)
	if _, err := a.Debit(t.Context(), 17); err != nil { // the caller repeats it
		t.Error(err)
	}
	left(2, 846)
	failing(func() {
		if _, err := a.Settle(t.Context(), budget.Usage{Input: 100, Output: 17}); !errors.Is(err, timeout) {
			t.Error(err)
		}
	})
	left(1, 863) // it had arrived, and given back what was metered twice
	if r, err := a.Settle(t.Context(), budget.Usage{Input: 100, Output: 17}); err != nil || !r.Lapsed || r.Debt != 0 {
		t.Errorf("settling again: %+v, %v", r, err)
	}
	left(1, 863)
	b := admit(t, l, budget.Request{Key: "k", Input: 10})
	failing(func() {
		if err := b.Close(); !errors.Is(err, timeout) {
			t.Error(err)
		}
	})
	left(1, 853)
	c := admit(t, l, budget.Request{Key: "k", Input: 3})
	store.fault = func() (error, bool) { return timeout, false } // and this never arrives
	if err := c.Close(); !errors.Is(err, timeout) {
		t.Error(err)
	}
	store.fault = nil
	left(2, 850)
	clock.Set(minute.Milliseconds())
	left(0, 850)
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	config := budget.Config{Budget: window(100, minute)}
	l := ledger(t, budget.LedgerConfig{Config: config})
	for _, c := range []struct {
		field   string
		request budget.Request
	}{
		{"input", budget.Request{Input: 0}},
		{"input", budget.Request{Input: -1}},
		{"input", budget.Request{Input: math.MaxInt64}},
		{"maxOutput", budget.Request{Input: 1, MaxOutput: -1}},
		{"hint", budget.Request{Input: 1, Hint: math.NaN()}},
		{"hint", budget.Request{Input: 1, Hint: math.Inf(1)}},
		{"hint", budget.Request{Input: 1, Hint: -1}},
	} {
		_, err := l.Admit(t.Context(), c.request)
		breaks(t, c.field, err, c.field)
	}
	a := admit(t, l, budget.Request{Key: "k", Input: 1})
	_, err := a.Debit(t.Context(), 0)
	breaks(t, "a debit of nothing", err, "tokens")
	_, err = a.Settle(t.Context(), budget.Usage{Input: -1, Output: budget.MaxTokens + 1})
	breaks(t, "bad usage", err, "usage.input", "usage.output")
	if f := inFlight(t, l, "k"); f.Requests != 1 {
		t.Errorf("a bad call ended the lease: %+v", f)
	}
	_, err = budget.NewLedger(budget.LedgerConfig{TTL: time.Millisecond, MaxModels: -1, MaxInFlight: 5000})
	breaks(t, "a bad ledger", err, "maxModels", "maxInFlight", "ttl", "budget")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Admit(t.Context(), budget.Request{Key: "k", Input: 1}); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := a.Close(); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("a lease after the ledger's Close: %v", err)
	}
}

// TestCorruptRecords: what no ledger wrote is an error, not a fresh budget.
func TestCorruptRecords(t *testing.T) {
	t.Parallel()
	store := newTextStore(throttlekit.NewManualClock(0))
	m := meter(t, budget.Config{Budget: window(10, minute), Store: store})
	for _, text := range []string{``, `{}`, `{"w":1}`, `{"w":0,"s":-1}`, `{"w":0,"s":1,"x":2}`, `{"w":0,"s":1} 2`, `[0,1]`, `{"w":"0","s":1}`} {
		store.texts["k"], store.expires["k"] = text, 1
		if d, err := m.Debit(t.Context(), "k", 1); err == nil {
			t.Errorf("%q: %+v", text, d)
		}
	}
	store.texts["k"] = `{"s":9,"w":0}`
	if d := debit(t, m, "k", 3); !d.Allowed || store.holds("k") != `{"w":0,"s":12}` {
		t.Errorf("%+v, and the store holds %s", d, store.holds("k"))
	}
}

// TestStreamsOfALedger: 500 streams with leases, on one budget of two levels, meter no more than it has, and leave nothing.
func TestStreamsOfALedger(t *testing.T) {
	t.Parallel()
	const streams, limit = 500, 20_000
	for _, chunk := range []int64{1, 17} {
		for _, shared := range []bool{false, true} {
			config := budget.Config{Budget: &budget.Budget{
				Windows: window(limit, century).Windows,
				Parent:  &budget.Budget{Name: "all", Windows: []budget.Window{{Limit: limit + 100, Width: century}}},
			}}
			if shared {
				config.Store = memory(t, nil)
			}
			l := ledger(t, budget.LedgerConfig{
				Config: config, Learning: expects(1), // which lets far too many in
			})
			var all sync.WaitGroup
			for i := range streams {
				all.Go(func() {
					for round := range 6 {
						a := admit(t, l, budget.Request{Key: "k", Input: 5})
						for range (i*7 + round) % 120 / int(chunk) {
							if v, err := a.Debit(t.Context(), chunk); !v.Allowed {
								if err != nil && !errors.Is(err, throttlekit.ErrClosed) {
									t.Error(err)
								}
								break
							}
						}
						if err := a.Close(); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			stats := l.Stats()
			if stats.Metered > limit+chunk-1 || stats.Metered < limit-streams-6 || stats.Admitted+stats.Refused != 6*streams {
				t.Errorf("%d tokens at once, shared %v: %+v", chunk, shared, stats)
			}
			if f := inFlight(t, l, "k"); f != (budget.InFlight{}) {
				t.Errorf("in the end there are %+v", f)
			}
			if v, err := l.Peek(t.Context(), "k"); err != nil || v.Remaining != max(0, limit-stats.Metered) {
				t.Errorf("%d were metered and %d are left, %v", stats.Metered, v.Remaining, err)
			}
			t.Logf("%d tokens at once, shared %v: %+v", chunk, shared, stats)
		}
	}
}

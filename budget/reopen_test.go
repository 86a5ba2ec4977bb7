package budget_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
)

// What once reopened a window that was used up.

func every(width time.Duration, limit float64) *budget.Budget {
	return &budget.Budget{Windows: []budget.Window{{Limit: limit, Width: width}}}
}

func reserve(t *testing.T, l *budget.Ledger, input, output int64) *budget.Lease {
	t.Helper()
	a, err := l.Admit(t.Context(), budget.Request{Key: "a", Input: input, MaxOutput: output})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func settled(t *testing.T, a *budget.Lease, input, output int64) {
	t.Helper()
	if _, err := a.Settle(t.Context(), budget.Usage{Input: input, Output: output}); err != nil {
		t.Fatal(err)
	}
}

// What was too much in one window is not given back to the next, where real output was charged.
func TestRefundGoesWhereItWasCharged(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(59_000)
	for name, config := range places(t, every(time.Minute, 1000), clock) {
		clock.Set(59_000)
		l, err := budget.NewLedger(budget.LedgerConfig{Config: config})
		if err != nil {
			t.Fatal(err)
		}
		a := reserve(t, l, 600, 400)
		clock.Set(60_000)
		for range 400 {
			if v, err := a.Debit(t.Context(), 1); err != nil || !v.Allowed {
				t.Fatal(v, err)
			}
		}
		settled(t, a, 200, 400)
		if v, err := l.Peek(t.Context(), "a"); err != nil || v.Remaining != 600 {
			t.Errorf("%s: %d left after 400 of 1000, %v", name, v.Remaining, err)
		}
	}
}

// A refund that empties a window does not make the account forget how far it has come.
func TestEmptyWindowsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(900)
	for name, config := range places(t, every(time.Second, 100), clock) {
		clock.Set(900)
		l, err := budget.NewLedger(budget.LedgerConfig{Config: config})
		if err != nil {
			t.Fatal(err)
		}
		settled(t, reserve(t, l, 99, 1), 99, 1)
		clock.Set(1000)
		settled(t, reserve(t, l, 10, 1), 0, 0)
		clock.Set(950)
		if v := reserve(t, l, 98, 1).Verdict(); v.Allowed && v.ResetAtMillis != 2000 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// At some instants ⌊now/width⌋·width + width is not after now, if the width is no whole millisecond.
func TestWidthsThatAreNoWholeMilliseconds(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(1_797_139_937_053)
	for name, config := range places(t, every(time.Minute/7, 100), clock) {
		m := meter(t, config)
		served := 0
		for range 100 {
			if debit(t, m, "a", 50).Allowed {
				served += 50
			}
		}
		if served != 100 {
			t.Errorf("%s: %d of 100 at one instant", name, served)
		}
	}
}

// An account that was dropped after its end is not made anew before it.
func TestDroppedAccountsAreNotMadeAnewInThePast(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(100)
	m := meter(t, budget.Config{Budget: every(time.Second, 100), Clock: clock})
	debit(t, m, "a", 100)
	clock.Set(5000)
	for i := range 40 { // the table grows, and drops what has ended
		debit(t, m, "x"+strconv.Itoa(i), 1)
	}
	clock.Set(200)
	if d := debit(t, m, "a", 100); d.Allowed && d.ResetAtMillis <= 1000 {
		t.Errorf("the window that was used up: %+v", d)
	}
}

// closing is a store that has been closed by somebody else.
type closing struct{ throttlekit.Store }

func (closing) Apply(context.Context, string, throttlekit.Transition, float64) (throttlekit.Decision, error) {
	return throttlekit.Decision{}, throttlekit.ErrClosed
}

func TestGrantsOfAClosedStore(t *testing.T) {
	t.Parallel()
	m := meter(t, budget.Config{Budget: every(time.Hour, 100), Store: closing{}})
	g, err := budget.NewGranted(budget.GrantedConfig{Meter: m, Batch: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Debit(t.Context(), "a", 1); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// A renewal that nobody answered does not lose a debt.
func TestDebtOutlivesAnUnansweredRenewal(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(100)
	for name, config := range places(t, every(time.Hour, 10_000), clock) {
		if config.Store == nil {
			continue
		}
		clock.Set(100)
		l, err := budget.NewLedger(budget.LedgerConfig{Config: config, TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		a := reserve(t, l, 10, 1)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = a.Renew(ended)
		clock.Set(5000)
		settled(t, a, 10, 5000)
		if v, err := l.Peek(t.Context(), "a"); err != nil || v.Remaining > 4990 {
			t.Errorf("%s: %d left of 10000 after a use of 5010, %v", name, v.Remaining, err)
		}
	}
}

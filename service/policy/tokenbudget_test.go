package policy_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// TestBudgetsReportAll holds every line that wrong budgets get to a golden text.
func TestBudgetsReportAll(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/tokenbudget.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = policy.Parse("tokenbudget.yaml", text)
	if !errors.Is(err, throttlekit.ErrInvalid) {
		t.Fatalf("got %v, want an error that matches ErrInvalid", err)
	}
	got := err.Error() + "\n"
	if *rewrite {
		if err := os.WriteFile("testdata/tokenbudget.txt", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/tokenbudget.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// budgets builds the policies in text.
func budgets(t *testing.T, text string, env policy.Env) (built []service.Policy) {
	t.Helper()
	file, err := policy.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if built, err = file.Build(env); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range built {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return built
}

// debit asks a policy for what it can, and holds the answer to one.
func debit(t *testing.T, p service.Policy, key string, tokens int64, want throttlekit.Decision) {
	t.Helper()
	debiter, ok := p.(service.Debiter)
	if !ok {
		t.Fatalf("%s cannot debit", p.Info().Name)
	}
	if got, err := debiter.Debit(t.Context(), key, tokens); err != nil || got != want {
		t.Errorf("%s, %d tokens for %s: got %+v, want %+v, error %v", p.Info().Name, tokens, key, got, want, err)
	}
}

func TestTokenBudget(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(30_000)
	store := newKeys(t)
	built := budgets(t, `
limiters:
  tokens: {failMode: closed, tokenBudget: {budget: 100.9, windowMs: 60000, maxKeys: 2}}
`, policy.Env{Clock: clock, Store: store})
	p := built[0]
	want := service.Info{Name: "tokens", Kind: "tokenBudget", Limit: 100, FailMode: service.FailClosed}
	if got := p.Info(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	allowed := func(remaining int64) throttlekit.Decision {
		return throttlekit.Decision{Allowed: true, Limit: 100, Remaining: remaining, ResetAtMillis: 60_000}
	}
	debit(t, p, "a", 80, allowed(20))
	debit(t, p, "a", 50, allowed(0))
	debit(t, p, "a", 1, throttlekit.Decision{Limit: 100, ResetAtMillis: 60_000, RetryAfterMillis: 30_000})
	debit(t, p, "b", 1, allowed(99))
	debiter, ok := p.(service.Debiter)
	if !ok {
		t.Fatal("no debiter")
	}
	if d, err := debiter.Debit(t.Context(), "c", 1); err != nil || d.Allowed || d.Limit != 100 || d.RetryAfterMillis != 1000 {
		t.Errorf("a key beyond maxKeys: %+v, %v; a fail mode would let it through", d, err)
	}
	if _, err := debiter.Debit(t.Context(), "a", 0); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("a debit of nothing: %v", err)
	}
	if len(store.seen) != 0 {
		t.Errorf("a budget of one process asked the store for %q", store.seen)
	}
	for name, can := range map[string]bool{
		"check": is[service.Checker](p), "check many": is[service.BatchChecker](p), "peek": is[service.Peeker](p),
		"forecast": is[service.Forecaster](p), "reserve": is[service.Reserver](p),
	} {
		if can {
			t.Errorf("a budget can %s", name)
		}
	}
}

func is[T any](p service.Policy) bool {
	_, ok := p.(T)
	return ok
}

// TestFleetBudget: servers with one store share a budget; its key is what other implementations take.
func TestFleetBudget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, key string }{
		{"limiters: {tokens: {fleetBudget: {budget: 10, window: 36500d}}}", "tokens:k"},
		{"defaults: {prefix: shop}\nlimiters: {tokens: {fleetBudget: {budget: 10, window: 36500d}}}", "shop:k"},
		{"defaults: {prefix: shop}\nlimiters: {tokens: {fleetBudget: {budget: 10, window: 36500d, prefix: own}}}", "own:k"},
		{"limiters: {tokens: {fleetBudget: {budget: 10, window: 36500d, prefix: ''}}}", "k"},
	} {
		store := newKeys(t)
		one, two := budgets(t, tt.text, policy.Env{Store: store})[0], budgets(t, tt.text, policy.Env{Store: store})[0]
		if info := one.Info(); info.Kind != "fleetBudget" || info.Limit != 10 {
			t.Errorf("%+v", info)
		}
		debiters := [2]service.Debiter{}
		debiters[0], _ = one.(service.Debiter)
		debiters[1], _ = two.(service.Debiter)
		var got []string
		for i, tokens := range []int64{6, 7, 1} {
			d, err := debiters[i%2].Debit(t.Context(), "k", tokens)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(d.Allowed, d.Remaining))
		}
		if want := "[true 4 true 0 false 0]"; fmt.Sprint(got) != want {
			t.Errorf("%s: got %s, want %s", tt.text, got, want)
		}
		for _, key := range store.seen {
			if key != tt.key {
				t.Errorf("%s: got key %q, want %q", tt.text, key, tt.key)
			}
		}
	}
	alone := budgets(t, "limiters: {tokens: {fleetBudget: {budget: 10, window: 1m}}}", policy.Env{Clock: throttlekit.NewManualClock(0)})[0]
	debit(t, alone, "k", 11, throttlekit.Decision{Allowed: true, Limit: 10, ResetAtMillis: time.Minute.Milliseconds()})
}

// TestBudgetWarnings: a prefix that a budget shares with a limiter is a mistake, whatever the limits.
func TestBudgetWarnings(t *testing.T) {
	t.Parallel()
	file, err := policy.Parse("test", []byte(`
limiters:
  api: {strategy: fixedWindow, limit: 10, period: 1m, prefix: p}
  tokens: {fleetBudget: {budget: 10, window: 1m, prefix: p}}
  again: {fleetBudget: {budget: 10, window: 1m, prefix: q}}
  more: {fleetBudget: {budget: 10, window: 1m, prefix: q}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := file.Warnings(); len(got) != 1 || got[0].Path != "limiters.tokens" {
		t.Errorf("got %v, want one warning, about tokens", got)
	}
}

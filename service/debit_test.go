package service_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/service"
)

// meter is a policy that can do nothing but debit: so many tokens an hour for each key.
type meter struct {
	bare

	*budget.Meter
}

func (m meter) Close() error { return m.Meter.Close() }

func newMeter(tb testing.TB, store throttlekit.Store, limit float64) meter {
	tb.Helper()
	m, err := budget.NewMeter(budget.Config{
		Store: store, Prefix: "meter",
		Budget: &budget.Budget{Windows: []budget.Window{{Limit: limit, Width: time.Hour}}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return meter{bare{info: service.Info{Name: "tokens", Kind: "meter", Limit: int64(limit)}}, m}
}

// The debit that crosses the line is booked in full, those that follow are refused, and taps hear of all.
func TestDebit(t *testing.T) {
	t.Parallel()
	const now, reset = 1_700_000_000_000, 1_700_002_800_000
	var told events
	store := newStore(t, 0)
	s := newService(t, text, store, service.Config{Taps: []service.Tap{&told}, Policies: []service.Policy{newMeter(t, store, 10)}})
	denial := throttlekit.Decision{Limit: 10, ResetAtMillis: reset, RetryAfterMillis: reset - now}
	left := func(n int64) throttlekit.Decision {
		return throttlekit.Decision{Allowed: true, Limit: 10, Remaining: n, ResetAtMillis: reset}
	}
	steps := []struct {
		key    string
		tokens int64
		want   throttlekit.Decision
	}{
		{"k", 4, left(6)},
		{"k", 5, left(1)},
		{"k", 100, left(0)},
		{"k", 1, denial},
		{"k", 5, denial},
		{"", 1, left(9)},
		{"\xff\x00", 10, left(0)},
		{strings.Repeat("k", service.MaxKeyBytes), 10, left(0)},
	}
	for i, step := range steps {
		if d, err := s.Debit(t.Context(), "tokens", step.key, step.tokens); err != nil || d != step.want {
			t.Errorf("step %d: got %+v, %v, want %+v", i, d, err, step.want)
		}
	}
	if len(told.all) != len(steps) {
		t.Fatalf("taps were told %d decisions, want %d", len(told.all), len(steps))
	}
	info := s.Policies()[2]
	for i, step := range steps {
		if want := (service.Event{Policy: info, Key: step.key, Cost: float64(step.tokens), Decision: step.want}); told.all[i] != want {
			t.Errorf("step %d: taps were told %+v, want %+v", i, told.all[i], want)
		}
	}
}

func TestDebitRefuses(t *testing.T) {
	t.Parallel()
	var told events
	store := newStore(t, 0)
	s := newService(t, text, store, service.Config{Taps: []service.Tap{&told}, Policies: []service.Policy{newMeter(t, store, 10)}})
	const integer = "tokens must be an integer from 1 to 9007199254740991, got "
	for _, test := range []struct {
		policy, key string
		tokens      int64
		is          error
		says        string
	}{
		{"none", "k", 1, throttlekit.ErrPolicyNotFound, `throttlekit: policy not found: "none"; configured: "api", "day", "tokens"`},
		{"api", "k", 1, throttlekit.ErrUnsupported, `throttlekit: operation not supported: policy "api" of kind plain cannot debit`},
		{"api", "k", -1, throttlekit.ErrUnsupported, `throttlekit: operation not supported: policy "api" of kind plain cannot debit`},
		{"tokens", "k", 0, throttlekit.ErrInvalid, integer + "0"},
		{"tokens", "k", -1, throttlekit.ErrInvalid, integer + "-1"},
		{"tokens", "k", throttlekit.MaxSafe + 1, throttlekit.ErrInvalid, integer + "9007199254740992"},
		{"tokens", "k", math.MinInt64, throttlekit.ErrInvalid, integer + "-9223372036854775808"},
		{"tokens", strings.Repeat("k", service.MaxKeyBytes+1), 1, throttlekit.ErrInvalid, "key must be at most 65536 bytes long, got 65537"},
	} {
		d, err := s.Debit(t.Context(), test.policy, test.key, test.tokens)
		if !errors.Is(err, test.is) || err.Error() != test.says || d != (throttlekit.Decision{}) {
			t.Errorf("%s, %d tokens: got %+v, %v\nwant %s", test.policy, test.tokens, d, err, test.says)
		}
	}
	for _, err := range []error{
		second(s.Check(t.Context(), "tokens", "k", 1)), second(s.CheckMany(t.Context(), "tokens", []string{"k"}, 1)), second(s.Bind("tokens")),
	} {
		if !errors.Is(err, throttlekit.ErrUnsupported) {
			t.Errorf("a meter was checked: %v", err)
		}
	}
	if len(told.all) != 0 {
		t.Errorf("errors were told to a tap: %+v", told.all)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Debit(t.Context(), "tokens", "k", 1); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v after Close, want ErrClosed", err)
	}
}

// second is the error of a call that gives something else as well.
func second[T any](_ T, err error) error { return err }

// Without its store a debit is answered by the fail mode, and books nothing.
func TestDebitFailModes(t *testing.T) {
	t.Parallel()
	for mode, want := range map[service.FailMode]throttlekit.Decision{
		service.FailOpen:   {Allowed: true, Limit: 10, Remaining: 10},
		service.FailClosed: {Limit: 10},
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			var told events
			store := &faulty{Store: newStore(t, 0)}
			s := newService(t, text, store, service.Config{
				FailMode: mode, Taps: []service.Tap{&told}, Policies: []service.Policy{newMeter(t, store, 10)},
			})
			store.fail(errDown)
			if d, err := s.Debit(t.Context(), "tokens", "k", 7); err != nil || d != want {
				t.Errorf("got %+v, %v, want %+v", d, err, want)
			}
			if s.FailModeCount() != 1 || len(told.all) != 1 || told.all[0].FailMode != mode || told.all[0].Cost != 7 {
				t.Errorf("the fail mode decided %d times, taps were told %+v", s.FailModeCount(), told.all)
			}
			// What is wrong is wrong whether or not the store answers, and a caller who has left gets his own error.
			if _, err := s.Debit(t.Context(), "tokens", "k", -1); !errors.Is(err, throttlekit.ErrInvalid) {
				t.Errorf("got %v for a negative debit, want ErrInvalid", err)
			}
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			store.fail(errors.Join(errDown, context.Canceled))
			if _, err := s.Debit(gone, "tokens", "k", 1); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want Canceled", err)
			}
			store.fail(nil)
			if d, err := s.Debit(t.Context(), "tokens", "k", 1); err != nil || !d.Allowed || d.Remaining != 9 {
				t.Errorf("got %+v, %v when the store is back", d, err)
			}
			if s.FailModeCount() != 1 || len(told.all) != 2 {
				t.Errorf("the fail mode decided %d times, taps were told %+v", s.FailModeCount(), told.all)
			}
		})
	}
}

func TestDebitAllocatesNothing(t *testing.T) {
	for _, taps := range [][]service.Tap{nil, {counter{}}} {
		s, err := service.New(service.Config{Policies: []service.Policy{newMeter(t, nil, budget.MaxTokens)}, Taps: taps})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		allocs := testing.AllocsPerRun(1000, func() {
			if _, err := s.Debit(ctx, "tokens", "k", 1); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("with %d taps: %v allocations, want none", len(taps), allocs)
		}
		s.Close()
	}
}

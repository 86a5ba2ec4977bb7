package budget_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
)

// textStore is a store that keeps text, as one outside the process does, so that every record passes
// through Encode and Decode.
type textStore struct {
	throttlekit.Store // panics at what is not here

	clock throttlekit.Clock

	mu      sync.Mutex
	texts   map[string]string
	expires map[string]int64
	fault   func() (err error, after bool) // called for each operation, if not nil
	calls   int
}

func newTextStore(clock throttlekit.Clock) *textStore {
	return &textStore{clock: clock, texts: map[string]string{}, expires: map[string]int64{}}
}

func (s *textStore) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	d, err := s.Batch(ctx, []throttlekit.Op{{Key: key, Transition: t, Cost: cost}}, throttlekit.CommitEach)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	return d[0], nil
}

func (s *textStore) Batch(_ context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	var fault error
	if s.fault != nil {
		var after bool
		if fault, after = s.fault(); fault != nil && !after {
			return nil, fault
		}
	}
	now := s.clock.NowMillis()
	decisions := make([]throttlekit.Decision, len(ops))
	texts, ttls := make([]string, len(ops)), make([]int64, len(ops))
	allowed := true
	for i, op := range ops {
		var rec throttlekit.Record
		var err error
		if text, ok := s.texts[op.Key]; ok && s.expires[op.Key] > now {
			if rec, err = op.Transition.Decode([]byte(text)); err != nil {
				return nil, err
			}
		}
		var next throttlekit.Record
		next, decisions[i], ttls[i] = op.Transition.Apply(rec, now, op.Cost)
		text, err := op.Transition.Encode(next)
		if err != nil {
			return nil, err
		}
		texts[i] = string(text)
		allowed = allowed && decisions[i].Allowed
	}
	for i, op := range ops {
		if ttls[i] > 0 && (commit == throttlekit.CommitEach || allowed) {
			s.texts[op.Key], s.expires[op.Key] = texts[i], now+ttls[i]
		}
	}
	return decisions, fault
}

func (s *textStore) Reset(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.texts, key)
	return nil
}

// holds is what the store keeps under a key.
func (s *textStore) holds(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.texts[key]
}

func memory(tb testing.TB, clock throttlekit.Clock) *throttlekit.MemoryStore {
	tb.Helper()
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store
}

func meter(tb testing.TB, config budget.Config) *budget.Meter {
	tb.Helper()
	m, err := budget.NewMeter(config)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func ledger(tb testing.TB, config budget.LedgerConfig) *budget.Ledger {
	tb.Helper()
	l, err := budget.NewLedger(config)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// places are the ways to keep the accounts of a budget, all at one clock.
func places(tb testing.TB, b *budget.Budget, clock throttlekit.Clock) map[string]budget.Config {
	tb.Helper()
	return map[string]budget.Config{
		"process": {Budget: b, Clock: clock},
		"memory":  {Budget: b, Store: memory(tb, clock)},
		"text":    {Budget: b, Store: newTextStore(clock)},
	}
}

func debit(tb testing.TB, m interface {
	Debit(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error)
}, key string, tokens int64,
) throttlekit.Decision {
	tb.Helper()
	d, err := m.Debit(tb.Context(), key, tokens)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func admit(tb testing.TB, l *budget.Ledger, r budget.Request) *budget.Lease {
	tb.Helper()
	lease, err := l.Admit(tb.Context(), r)
	if err != nil {
		tb.Fatal(err)
	}
	return lease
}

func inFlight(tb testing.TB, l *budget.Ledger, key string) budget.InFlight {
	tb.Helper()
	f, err := l.InFlight(tb.Context(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// breaks asserts that an error names fields that break a rule.
func breaks(tb testing.TB, what string, err error, fields ...string) {
	tb.Helper()
	if !errors.Is(err, throttlekit.ErrInvalid) {
		tb.Errorf("%s: %v", what, err)
		return
	}
	var got []string
	var walk func(error)
	walk = func(err error) {
		if all, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range all.Unwrap() {
				walk(e)
			}
			return
		}
		if invalid, ok := errors.AsType[*throttlekit.InvalidError](err); ok {
			got = append(got, invalid.Field)
		}
	}
	walk(err)
	if fmt.Sprint(got) != fmt.Sprint(fields) {
		tb.Errorf("%s: it names %v, want %v: %v", what, got, fields, err)
	}
}

const minute = time.Minute

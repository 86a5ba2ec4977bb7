package service_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

const fleet = `limiters:
  fleet: {strategy: fixedWindow, limit: 5, period: 1m, federated: {batch: 1}}
  api: {strategy: gcra, limit: 10, period: 1s}
`

// events is a tap that keeps what it is told.
type events struct{ all []service.Event }

func (e *events) Decided(event service.Event) {
	event.At, event.Elapsed = time.Time{}, 0
	e.all = append(e.all, event)
}

// A lease draws on the budget of checks, and taps are told what was lent.
func TestReserve(t *testing.T) {
	t.Parallel()
	const now, reset, until = 1_700_000_000_000, 1_700_000_040_000, 40_000
	var told events
	s := newService(t, fleet, newStore(t, 0), service.Config{Taps: []service.Tap{&told}})
	reserve := func(domain string, wants, units int64) service.Grant {
		t.Helper()
		g, err := s.Reserve(t.Context(), "fleet", domain, wants)
		if err != nil || g.Units != units || g.Limit != 5 {
			t.Errorf("%q wants %d: got %+v, %v", domain, wants, g, err)
		}
		return g
	}
	if g := reserve("k", 3, 3); g.ResetAtMillis != reset || g.Lasts != until*time.Millisecond || g.ResetsIn != g.Lasts {
		t.Errorf("got %+v", g)
	}
	if d, err := s.Check(t.Context(), "fleet", "k", 1); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
	reserve("k", throttlekit.MaxSafe, 1)
	denial := throttlekit.Decision{Limit: 5, ResetAtMillis: reset, RetryAfterMillis: reset - now}
	if g := reserve("k", 2, 0); g.Denial != denial {
		t.Errorf("got %+v", g)
	}
	reserve("", 1, 1) // from the budget of the key "fleet"
	reserve("fleet", 9, 4)

	info := s.Policies()[0]
	lent := func(key string, units int64) service.Event {
		return service.Event{Policy: info, Key: key, Cost: float64(units), Lease: true, Decision: throttlekit.Decision{
			Allowed: true, Limit: 5, Remaining: units, ResetAtMillis: reset,
		}}
	}
	for i, want := range []service.Event{
		lent("k", 3),
		{Policy: info, Key: "k", Cost: 1, Decision: throttlekit.Decision{Allowed: true, Limit: 5, ResetAtMillis: reset}},
		lent("k", 1),
		{Policy: info, Key: "k", Cost: 2, Lease: true, Decision: denial},
		lent("fleet", 1), lent("fleet", 4),
	} {
		if i >= len(told.all) || told.all[i] != want {
			t.Fatalf("event %d of %+v\nwant %+v", i, told.all, want)
		}
	}
}

func TestReserveRefuses(t *testing.T) {
	t.Parallel()
	var told events
	s := newService(t, fleet, newStore(t, 0), service.Config{Taps: []service.Tap{&told}})
	for _, test := range []struct {
		policy, domain string
		wants          int64
		is             error
		says           string
	}{
		{"none", "k", 1, throttlekit.ErrPolicyNotFound, `"none"; configured: "fleet", "api"`},
		{"none", "k", -1, throttlekit.ErrPolicyNotFound, ""},
		{"api", "k", 1, throttlekit.ErrPolicyNotFound, `policy "api" of kind plain does not lend; federated policies do`},
		{"fleet", "k", 0, throttlekit.ErrInvalid, "wants must be an integer from 1 to 9007199254740991, got 0"},
		{"fleet", "k", -1, throttlekit.ErrInvalid, "got -1"},
		{"fleet", "k", throttlekit.MaxSafe + 1, throttlekit.ErrInvalid, "got 9007199254740992"},
		{"fleet", strings.Repeat("k", service.MaxKeyBytes+1), 1, throttlekit.ErrInvalid, "key must be at most 65536 bytes long"},
	} {
		g, err := s.Reserve(t.Context(), test.policy, test.domain, test.wants)
		if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) || g != (service.Grant{}) {
			t.Errorf("%s: got %+v, %v, want %v: %s", test.policy, g, err, test.is, test.says)
		}
	}
	if got := s.Lenders(); len(got) != 1 || got[0] != "fleet" {
		t.Errorf("lenders are %v", got)
	}
	if g, err := s.Reserve(t.Context(), "fleet", strings.Repeat("k", service.MaxKeyBytes), 1); err != nil || g.Units != 1 {
		t.Errorf("got %+v, %v", g, err)
	}
	if len(told.all) != 1 {
		t.Errorf("got %+v, want the one lease", told.all)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Reserve(t.Context(), "fleet", "k", 1); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v after Close, want ErrClosed", err)
	}
	if none := newService(t, text, nil, service.Config{}).Lenders(); len(none) != 0 {
		t.Errorf("lenders are %v", none)
	}
}

// Nobody lends what may not be there: no fail mode answers a Reserve, nor for a federated
// policy a Check.
func TestReserveWithoutAStore(t *testing.T) {
	t.Parallel()
	store := newStore(t, 0)
	s := newService(t, fleet, store, service.Config{FailMode: service.FailOpen})
	if d, err := s.Check(t.Context(), "fleet", "k", 1); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
	down := &faulty{Store: store}
	down.fail(errDown)
	var log bytes.Buffer
	born := time.Unix(0, 0)
	broken := newService(t, fleet, down, service.Config{
		FailMode: service.FailOpen, Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return born },
	})
	if _, err := broken.Reserve(t.Context(), "fleet", "k", 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("got %v, want ErrStoreUnavailable", err)
	}
	if d, err := broken.Check(t.Context(), "fleet", "k", 1); err != nil || d.Allowed || d.Limit != 5 || d.RetryAfterMillis <= 0 {
		t.Errorf("got %+v, %v, want a denial", d, err)
	}
	born = born.Add(9 * time.Second)
	if d, err := broken.Check(t.Context(), "fleet", "k", 1); err != nil || d.Allowed || broken.FailModeCount() != 0 {
		t.Errorf("got %+v, %v, want a denial", d, err)
	}
	const told = "the store does not serve the policy, which goes on with what it holds"
	if got := log.String(); strings.Count(got, told) != 1 || !strings.Contains(got, "policy=fleet") || !strings.Contains(got, "connection refused") {
		t.Errorf("logged %s", got)
	}
	if d, err := broken.Check(t.Context(), "api", "k", 1); err != nil || !d.Allowed || broken.FailModeCount() != 1 {
		t.Errorf("got %+v, %v", d, err)
	}
}

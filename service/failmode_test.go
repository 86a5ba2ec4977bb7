package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// faulty is a real store that answers with an error while it has one.
type faulty struct {
	throttlekit.Store

	err atomic.Pointer[error]
}

func (f *faulty) fail(err error) { f.err.Store(&err) }

func (f *faulty) fault() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *faulty) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	if err := f.fault(); err != nil {
		return throttlekit.Decision{}, err
	}
	return f.Store.Apply(ctx, key, t, cost)
}

func (f *faulty) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	return f.Store.Batch(ctx, ops, commit)
}

func (f *faulty) Load(ctx context.Context, key string, t throttlekit.Transition) (throttlekit.Record, int64, error) {
	if err := f.fault(); err != nil {
		return throttlekit.Record{}, 0, err
	}
	return f.Store.Load(ctx, key, t)
}

var (
	errDown = fmt.Errorf("%w: connection refused", throttlekit.ErrStoreUnavailable)
	open    = throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 5}
	closed  = throttlekit.Decision{Limit: 2}
)

func TestFailModes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode     service.FailMode
		api, day throttlekit.Decision // day has its own mode, closed
	}{
		{"", open, closed},
		{service.FailOpen, open, closed},
		{service.FailClosed, throttlekit.Decision{Limit: 5}, closed},
	} {
		t.Run(string(tt.mode), func(t *testing.T) {
			t.Parallel()
			store := &faulty{Store: newStore(t, 0)}
			tap := new(recorder)
			s := newService(t, text, store, service.Config{FailMode: tt.mode, Taps: []service.Tap{tap}})
			store.fail(errDown)
			if d, err := s.Check(t.Context(), "api", "k", 1); err != nil || d != tt.api {
				t.Errorf("got %+v, %v, want %+v", d, err, tt.api)
			}
			many, err := s.CheckMany(t.Context(), "day", []string{"a", "b"}, 1)
			if err != nil || len(many) != 2 || many[0] != tt.day || many[1] != tt.day {
				t.Errorf("got %+v, %v, want %+v twice", many, err, tt.day)
			}
			if none, err := s.CheckMany(t.Context(), "day", nil, 1); err != nil || len(none) != 0 {
				t.Errorf("got %+v, %v for no keys", none, err)
			}
			if got := s.FailModeCount(); got != 3 {
				t.Errorf("the fail mode is said to have decided %d times, want 3", got)
			}
			if len(tap.events) != 3 || tap.events[0].FailMode == "" || tap.events[2].FailMode != service.FailClosed {
				t.Errorf("taps were told %+v", tap.events)
			}
			if _, err := s.Peek(t.Context(), "api", "k"); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
				t.Errorf("got %v from Peek, want ErrStoreUnavailable", err)
			}
			if _, err := s.Forecast(t.Context(), "api", "k", 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
				t.Errorf("got %v from Forecast, want ErrStoreUnavailable", err)
			}
			store.fail(nil)
			if d, err := s.Check(t.Context(), "api", "k", 1); err != nil || d.ResetAtMillis == 0 {
				t.Errorf("got %+v, %v when the store is back", d, err)
			}
		})
	}
}

// TestFailModeIsForOutages holds that no other error is answered by a fail mode.
func TestFailModeIsForOutages(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithTimeout(t.Context(), 0)
	t.Cleanup(stop)
	invalid := &throttlekit.InvalidError{Field: "x", Rule: "must be y"}
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		err    error
		outage bool
	}{
		{"outage", t.Context(), errDown, true},
		{"full", t.Context(), throttlekit.ErrStoreFull, true},
		{"deadline of the caller", late, errors.Join(errDown, context.DeadlineExceeded), true},
		{"store gave up by itself", t.Context(), errors.Join(errDown, context.Canceled), true},
		{"caller has left", canceled, errors.Join(errDown, context.Canceled), false},
		{"canceled", canceled, context.Canceled, false},
		{"deadline", late, context.DeadlineExceeded, false},
		{"invalid", t.Context(), invalid, false},
		{"invalid and outage", t.Context(), errors.Join(errDown, invalid), false},
		{"unsupported", t.Context(), throttlekit.ErrUnsupported, false},
		{"not found", t.Context(), throttlekit.ErrPolicyNotFound, false},
		{"closed", t.Context(), errors.Join(throttlekit.ErrClosed, throttlekit.ErrStoreUnavailable), false},
		{"other", t.Context(), errors.New("other"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := &faulty{Store: newStore(t, 0)}
			s := newService(t, text, store, service.Config{})
			store.fail(tt.err)
			want := tt.err
			if tt.outage {
				want = nil
			}
			if _, err := s.Check(tt.ctx, "api", "k", 1); !errors.Is(err, want) {
				t.Errorf("got %v from Check, want %v", err, want)
			}
			if _, err := s.CheckMany(tt.ctx, "api", []string{"k"}, 1); !errors.Is(err, want) {
				t.Errorf("got %v from CheckMany, want %v", err, want)
			}
			// A wrong cost is wrong whether or not the store answers.
			if _, err := s.Check(tt.ctx, "api", "k", -1); !errors.Is(err, throttlekit.ErrInvalid) {
				t.Errorf("got %v for a wrong cost, want ErrInvalid", err)
			}
		})
	}
}

func TestFailModeAnswersForFullStore(t *testing.T) {
	t.Parallel()
	s := newService(t, text, newStore(t, 1), service.Config{})
	if d, err := s.Check(t.Context(), "api", "first", 1); err != nil || d.Remaining != 4 {
		t.Fatalf("got %+v, %v", d, err)
	}
	if d, err := s.Check(t.Context(), "api", "second", 1); err != nil || d != open {
		t.Errorf("got %+v, %v, want %+v", d, err, open)
	}
	if d, err := s.Check(t.Context(), "api", "first", 1); err != nil || d.Remaining != 3 {
		t.Errorf("got %+v, %v for a key that has its place", d, err)
	}
	if d, err := s.Check(t.Context(), "day", "second", 1); err != nil || d != closed {
		t.Errorf("got %+v, %v, want %+v", d, err, closed)
	}
}

// now is a clock that the test moves.
type now struct {
	mu sync.Mutex
	at time.Time
}

func (n *now) read() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at
}

func (n *now) move(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at = n.at.Add(d)
}

func TestFailModeIsLoggedNowAndThen(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	clock := &now{at: time.UnixMilli(0)}
	store := &faulty{Store: newStore(t, 0)}
	s := newService(t, text, store, service.Config{
		Now: clock.read,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		})),
	})
	store.fail(errDown)
	check := func(policy string, times int) {
		for range times {
			if _, err := s.Check(t.Context(), policy, "k", 1); err != nil {
				t.Error(err)
			}
		}
	}
	check("api", 1000)
	check("day", 1)
	clock.move(10*time.Second - 1)
	check("api", 1)
	clock.move(1)
	check("api", 2)
	store.fail(nil)
	check("api", 2)
	const line = `level=WARN msg="the store cannot decide; the fail mode does" `
	const fault = ` error="throttlekit: rate-limit store is unavailable: connection refused"` + "\n"
	want := line + "policy=api failMode=open suppressed=0" + fault +
		line + "policy=day failMode=closed suppressed=0" + fault +
		line + "policy=api failMode=open suppressed=1000" + fault +
		`level=WARN msg="the store decides again" policy=api` + "\n"
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log.String(), want)
	}
}

func TestTaps(t *testing.T) {
	t.Parallel()
	first, second := new(recorder), new(recorder)
	s := newService(t, text, newStore(t, 0), service.Config{
		Taps: []service.Tap{first, second}, Now: steps(6 * time.Millisecond),
	})
	if _, err := s.Check(t.Context(), "api", "k", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckMany(t.Context(), "day", []string{"a", "a", "a"}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Peek(t.Context(), "api", "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Forecast(t.Context(), "api", "k", 1); err != nil {
		t.Fatal(err)
	}
	if len(first.events) != 4 || len(second.events) != 4 {
		t.Fatalf("got %d and %d events, want 4", len(first.events), len(second.events))
	}
	e := first.events[0]
	if e.Policy != s.Policies()[0] || e.Key != "k" || e.Cost != 2 || !e.Decision.Allowed || e.FailMode != "" ||
		e.Elapsed != 6*time.Millisecond || e.At != time.UnixMilli(18) {
		t.Errorf("got %+v", e)
	}
	for i, e := range first.events[1:] {
		if e.Policy.Name != "day" || e.Decision.Allowed != (i < 2) || e.Elapsed != 2*time.Millisecond {
			t.Errorf("got %+v", e)
		}
	}
}

// bomb is a tap that panics.
type bomb struct{}

func (bomb) Decided(service.Event) { panic("boom") }

func TestTapMayPanic(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	after := new(recorder)
	s := newService(t, text, newStore(t, 0), service.Config{
		Taps: []service.Tap{bomb{}, after}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for want := int64(4); want > 0; want-- {
		if d, err := s.Check(t.Context(), "api", "k", 1); err != nil || d.Remaining != want {
			t.Errorf("got %+v, %v", d, err)
		}
	}
	if len(after.events) != 4 {
		t.Errorf("the next tap was told %d decisions, want 4", len(after.events))
	}
	if n := strings.Count(log.String(), "panic=boom"); n != 1 {
		t.Errorf("the panic was logged %d times, want once:\n%s", n, log.String())
	}
}

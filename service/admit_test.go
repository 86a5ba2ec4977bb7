package service_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/concurrency"
	"github.com/throttlekit/throttlekit-go/service"
)

// admitting has a policy of each form: slots alone, and slots with a rate and a budget.
const admitting = `
limiters:
  slots: { concurrency: { minLimit: 2, maxLimit: 2 } }
  llm:
    strategy: fixedWindow
    limit: 3
    period: 1m
    concurrency: { minLimit: 2, maxLimit: 2 }
    budget: { budget: 100, window: 1m }
  many: { concurrency: { minLimit: 100000, maxLimit: 100000 } }
`

// inFlight is how many are in flight under a policy.
func inFlight(tb testing.TB, s *service.Service, policy string) int {
	tb.Helper()
	for _, g := range s.Guards() {
		if g.Policy == policy {
			return g.InFlight
		}
	}
	tb.Fatalf("%s has no guard", policy)
	return 0
}

func admit(tb testing.TB, s *service.Service, policy string, req service.AdmitRequest) service.Admitted {
	tb.Helper()
	a, err := s.Admit(tb.Context(), policy, req)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// What is admitted holds a lease, what is denied nothing, and taps hear which axis it was.
func TestAdmit(t *testing.T) {
	t.Parallel()
	var told events
	s := newService(t, admitting, newStore(t, 0), service.Config{Taps: []service.Tap{&told}})
	a := admit(t, s, "llm", service.AdmitRequest{Key: "k", Cost: 60})
	if !a.Allowed || a.Remaining != 1 || len(a.Lease) != 22 || a.Axis != "" {
		t.Errorf("got %+v", a)
	}
	if left := time.Until(time.UnixMilli(a.ExpiresAtMillis)); left > service.DefaultLeaseTTL || left < service.DefaultLeaseTTL-time.Minute {
		t.Errorf("the lease is over in %v", left)
	}
	if b := admit(t, s, "llm", service.AdmitRequest{Key: "k", Cost: 41}); b.Allowed || b.Axis != "cost" || b.Lease != "" || b.ExpiresAtMillis != 0 {
		t.Errorf("got %+v", b)
	}
	c := admit(t, s, "llm", service.AdmitRequest{Key: "k"})
	if d := admit(t, s, "llm", service.AdmitRequest{Key: "k"}); d.Allowed || d.Axis != "concurrency" || d.RetryAfterMillis == 0 {
		t.Errorf("got %+v", d)
	}
	if got := inFlight(t, s, "llm"); got != 2 {
		t.Errorf("%d in flight", got)
	}
	s.Release(a.Lease, false)
	s.Release(a.Lease, true) // a release repeated changes nothing
	s.Release(c.Lease, true)
	for _, id := range []string{"", "x", strings.Repeat("A", 22), strings.Repeat("A", 1<<20), c.Lease + "=", "é" + c.Lease[2:]} {
		s.Release(id, true)
	}
	if got := inFlight(t, s, "llm"); got != 0 {
		t.Errorf("%d in flight at the end", got)
	}
	var axes []string
	for _, e := range told.all {
		if !e.Admit || e.Key != "k" || e.Policy.Kind != "concurrency" {
			t.Errorf("got %+v", e)
		}
		axes = append(axes, fmt.Sprint(e.Axis, e.Cost, e.Decision.Allowed))
	}
	if want := []string{"60 true", "cost41 false", "1 true", "concurrency1 false"}; !slices.Equal(axes, want) {
		t.Errorf("taps were told %q, want %q", axes, want)
	}
}

// A lease that is not renewed in time is reclaimed as dropped; one that is goes on.
func TestLeasesEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, admitting, nil, service.Config{LeaseTTL: 2 * time.Second})
		start := time.Now()
		a, b := admit(t, s, "slots", service.AdmitRequest{}), admit(t, s, "slots", service.AdmitRequest{})
		<-time.After(1999 * time.Millisecond)
		if got := inFlight(t, s, "slots"); got != 2 {
			t.Errorf("%d in flight before the leases are over", got)
		}
		r, err := s.Heartbeat([]string{b.Lease, "", b.Lease, "none"})
		if err != nil || !slices.Equal(r.Live, []string{b.Lease, b.Lease}) || !slices.Equal(r.Reclaimed, []string{"", "none"}) ||
			r.DeadlineMillis != start.Add(3999*time.Millisecond).UnixMilli() {
			t.Errorf("got %+v, %v", r, err)
		}
		<-time.After(101 * time.Millisecond) // the end of the term, and a sweep
		if got := inFlight(t, s, "slots"); got != 1 {
			t.Errorf("%d in flight after one lease is over", got)
		}
		if r, _ := s.Heartbeat([]string{a.Lease, b.Lease}); !slices.Equal(r.Live, []string{b.Lease}) || !slices.Equal(r.Reclaimed, []string{a.Lease}) {
			t.Errorf("got %+v", r)
		}
		if held, reclaimed := s.Leases(); held != 1 || reclaimed != 1 {
			t.Errorf("%d held, %d reclaimed", held, reclaimed)
		}
		s.Release(a.Lease, false)
		<-time.After(3 * time.Second)
		if got := inFlight(t, s, "slots"); got != 0 {
			t.Errorf("%d in flight at the end", got)
		}
	})
}

// A heartbeat takes as many leases as a client can hold, and no more.
func TestHeartbeatOfMany(t *testing.T) {
	t.Parallel()
	s := newService(t, admitting, nil, service.Config{LeaseTTL: time.Hour})
	ids := make([]string, service.MaxLeases)
	for i := range ids {
		ids[i] = admit(t, s, "many", service.AdmitRequest{}).Lease
	}
	if a := admit(t, s, "many", service.AdmitRequest{}); a.Allowed {
		t.Errorf("got %+v", a)
	}
	if r, err := s.Heartbeat(ids); err != nil || !slices.Equal(r.Live, ids) || len(r.Reclaimed) != 0 {
		t.Errorf("%d live, %d reclaimed, %v", len(r.Live), len(r.Reclaimed), err)
	}
	if _, err := s.Heartbeat(append(slices.Clone(ids), "one more")); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if r, err := s.Heartbeat(nil); err != nil || r.DeadlineMillis == 0 || r.Live != nil || r.Reclaimed != nil {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, id := range ids {
		s.Release(id, false)
	}
	if got := inFlight(t, s, "many"); got != 0 {
		t.Errorf("%d in flight at the end", got)
	}
}

// Bad requests are refused before anything is taken.
func TestAdmitRefuses(t *testing.T) {
	t.Parallel()
	s := newService(t, admitting+"  plain: { strategy: fixedWindow, limit: 3, period: 1m }\n", newStore(t, 0), service.Config{})
	for _, tt := range []struct {
		policy string
		req    service.AdmitRequest
		want   error
	}{
		{"none", service.AdmitRequest{}, throttlekit.ErrPolicyNotFound},
		{"plain", service.AdmitRequest{}, throttlekit.ErrUnsupported},
		{"llm", service.AdmitRequest{Key: strings.Repeat("k", service.MaxKeyBytes+1)}, throttlekit.ErrInvalid},
		{"llm", service.AdmitRequest{Cost: -1}, throttlekit.ErrInvalid},
		{"llm", service.AdmitRequest{Cost: math.NaN()}, throttlekit.ErrInvalid},
		{"llm", service.AdmitRequest{Cost: math.Inf(1)}, throttlekit.ErrInvalid},
		{"slots", service.AdmitRequest{Value: math.NaN()}, throttlekit.ErrInvalid},
		{"slots", service.AdmitRequest{Hold: math.Inf(1)}, throttlekit.ErrInvalid},
		{"slots", service.AdmitRequest{Hold: -1}, throttlekit.ErrInvalid},
	} {
		if a, err := s.Admit(t.Context(), tt.policy, tt.req); !errors.Is(err, tt.want) {
			t.Errorf("%s %.20v: got %+v, %v, want %v", tt.policy, tt.req, a, err, tt.want)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if a, err := s.Admit(gone, "slots", service.AdmitRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v", a, err)
	}
	for _, policy := range []string{"slots", "llm"} {
		if got := inFlight(t, s, policy); got != 0 {
			t.Errorf("%s: %d in flight at the end", policy, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Admit(t.Context(), "slots", service.AdmitRequest{}); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// fencing is a policy with a guard that can be fenced.
type fencing struct {
	bare
	*admission.Admitter

	fence func()
}

func (f *fencing) TellFences(fence func()) { f.fence = fence }

// Holders of a policy that was fenced are told that their slots are gone, which stay taken until they end them.
func TestFencedLeases(t *testing.T) {
	t.Parallel()
	guard, err := concurrency.NewGuard(concurrency.Config{})
	if err != nil {
		t.Fatal(err)
	}
	admitter, err := admission.New(admission.Config{Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	p := &fencing{bare: bare{info: service.Info{Name: "fleet"}}, Admitter: admitter}
	s := newService(t, admitting, nil, service.Config{Policies: []service.Policy{p}})
	before, other := admit(t, s, "fleet", service.AdmitRequest{}), admit(t, s, "slots", service.AdmitRequest{})
	p.fence()
	after := admit(t, s, "fleet", service.AdmitRequest{})
	r, err := s.Heartbeat([]string{before.Lease, other.Lease, after.Lease})
	if err != nil || !slices.Equal(r.Live, []string{other.Lease, after.Lease}) || !slices.Equal(r.Reclaimed, []string{before.Lease}) {
		t.Errorf("got %+v, %v", r, err)
	}
	if got := guard.Stats().InFlight; got != 2 {
		t.Errorf("%d in flight", got)
	}
	s.Release(before.Lease, true)
	if got := guard.Stats().InFlight; got != 1 {
		t.Errorf("%d in flight after the release", got)
	}
}

// Where the store is away, the fail mode decides on rate and cost, and slots are limited all the same.
func TestAdmitWithoutStore(t *testing.T) {
	t.Parallel()
	for _, mode := range []service.FailMode{service.FailOpen, service.FailClosed} {
		s := newService(t, admitting, down{}, service.Config{FailMode: mode})
		allowed := 0
		for range 5 {
			if admit(t, s, "llm", service.AdmitRequest{Key: "k"}).Allowed {
				allowed++
			}
		}
		if want := map[service.FailMode]int{service.FailOpen: 2, service.FailClosed: 0}[mode]; allowed != want || inFlight(t, s, "llm") != want {
			t.Errorf("%s: %d admitted, %d in flight, want %d", mode, allowed, inFlight(t, s, "llm"), want)
		}
	}
}

// down is a store that does not answer.
type down struct{ throttlekit.Store }

func (down) Batch(context.Context, []throttlekit.Op, throttlekit.Commit) ([]throttlekit.Decision, error) {
	return nil, fmt.Errorf("%w: it is down", throttlekit.ErrStoreUnavailable)
}

// However many ask, renew, release and vanish at once, no slot leaks and no more are held than there are.
func TestLeasesAtOnce(t *testing.T) {
	t.Parallel()
	s := newService(t, admitting, nil, service.Config{LeaseTTL: 20 * time.Millisecond})
	var work sync.WaitGroup
	for worker := range 16 {
		work.Go(func() {
			for i := range 500 {
				a, err := s.Admit(t.Context(), "slots", service.AdmitRequest{})
				if err != nil {
					t.Error(err)
					return
				}
				if !a.Allowed {
					continue
				}
				if got := inFlight(t, s, "slots"); got > 2 {
					t.Errorf("%d in flight", got)
				}
				switch (worker + i) % 4 {
				case 0, 1:
					s.Release(a.Lease, i%2 == 0)
				case 2:
					_, _ = s.Heartbeat([]string{a.Lease})
					s.Release(a.Lease, false)
				}
			}
		})
	}
	work.Wait()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for inFlight(t, s, "slots") > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d in flight at the end", inFlight(t, s, "slots"))
		}
	}
}

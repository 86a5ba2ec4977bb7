package policy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// TestFairEscrowReportsAll holds every line that wrong escrows get to a golden text.
func TestFairEscrowReportsAll(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/fairescrow.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = policy.Parse("fairescrow.yaml", text)
	if !errors.Is(err, throttlekit.ErrInvalid) {
		t.Fatalf("got %v, want an error that matches ErrInvalid", err)
	}
	got := err.Error() + "\n"
	if *rewrite {
		if err := os.WriteFile("testdata/fairescrow.txt", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/fairescrow.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// fairService builds a service from the policies in text.
func fairService(t *testing.T, text string, env policy.Env) *service.Service {
	t.Helper()
	file, err := policy.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	built, err := file.Build(env)
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(service.Config{Policies: built})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// turns has tenants ask in turns on services, a tenant on the service in its place, and
// returns how often each was admitted.
func turns(t *testing.T, rounds int, name string, asks map[string]*service.Service) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range rounds {
		for tenant, s := range asks {
			d, err := s.Check(t.Context(), name, tenant, 1)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				got[tenant]++
			}
		}
	}
	return got
}

func TestFairEscrow(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(1e12)
	const text = `
limiters:
  api:
    failMode: closed
    fairEscrow: {limit: 4.9, windowMs: 1000, weights: {vip: 3}, maxKeys: 50, costRoom: false, costRoomMaxKeys: 5, costRoomRingSize: 5, unit: tokens}
`
	s := fairService(t, text, policy.Env{Clock: clock})
	want := service.Info{Name: "api", Kind: "fairEscrow", Limit: 4, FailMode: service.FailClosed}
	if got := s.Policies()[0]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for range 2 {
		got := turns(t, 10, "api", map[string]*service.Service{"vip": s, "free": s})
		if got["vip"] != 3 || got["free"] != 1 {
			t.Errorf("got %v, want vip 3 and free 1", got)
		}
		clock.Advance(time.Second)
	}
	if _, err := s.Check(t.Context(), "api", "", 1); !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "tenant") {
		t.Errorf("no tenant: got %v", err)
	}
	if _, err := s.CheckMany(t.Context(), "api", []string{"a"}, 1); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Errorf("CheckMany: got %v", err)
	}
	if _, err := s.Peek(t.Context(), "api", "a"); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Errorf("Peek: got %v", err)
	}
	if _, err := s.Forecast(t.Context(), "api", "a", 1); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Errorf("Forecast: got %v", err)
	}
}

// TestFairEscrowIsOfOneProcess unless its limit is leased from the store that it shares.
func TestFairEscrowIsOfOneProcess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		quantum string
		want    int
	}{{"", 20}, {", quantum: 3", 10}} {
		store := newKeys(t)
		text := "limiters: {api: {fairEscrow: {limit: 10, window: 1m" + tt.quantum + "}}}"
		clock := throttlekit.NewManualClock(1e12)
		shared := policy.Env{Store: store, Clock: clock}
		one, two := fairService(t, text, shared), fairService(t, text, shared)
		got := turns(t, 20, "api", map[string]*service.Service{"a": one, "b": two})
		if got["a"]+got["b"] != tt.want {
			t.Errorf("%q: got %v, want %d in all", tt.quantum, got, tt.want)
		}
		for _, key := range store.seen {
			if key != "tk:wfe:api" {
				t.Errorf("got key %q", key)
			}
		}
		alone := fairService(t, text, policy.Env{Clock: clock})
		if got := turns(t, 20, "api", map[string]*service.Service{"a": alone}); got["a"] != 10 {
			t.Errorf("%q without a store: got %v, want 10", tt.quantum, got)
		}
	}
}

// TestFairEscrowFailMode checks that an outage is the fail mode's business, for as much as
// cannot be decided with what was leased.
func TestFairEscrowFailMode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind string
		mode service.FailMode
	}{
		{"fairEscrow: {limit: 9, window: 1m, quantum: 1}", service.FailOpen},
		{"fairEscrow: {limit: 9, window: 1m, quantum: 1}", service.FailClosed},
		{"federatedFairEscrow: {limit: 9, window: 1m}", service.FailOpen},
		{"federatedFairEscrow: {limit: 9, window: 1m}", service.FailClosed},
	} {
		store := newKeys(t)
		s := fairService(t, "limiters: {api: {failMode: "+string(tt.mode)+", "+tt.kind+"}}", policy.Env{Store: store})
		if d, err := s.Check(t.Context(), "api", "a", 1); err != nil || !d.Allowed || d.Limit != 1 {
			t.Errorf("%s: got %+v, %v", tt.kind, d, err)
		}
		if err := store.Store.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Check(t.Context(), "api", "a", 1); !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("%s: a store that was closed is no outage: %v", tt.kind, err)
		}
		full, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{MaxKeys: 1, Clock: throttlekit.NewManualClock(1e12)})
		if err != nil {
			t.Fatal(err)
		}
		limiter, err := throttlekit.NewLimiter(throttlekit.FixedWindow{Limit: 5, Window: time.Hour}, throttlekit.WithStore(full))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := limiter.Check(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		s = fairService(t, "limiters: {api: {failMode: "+string(tt.mode)+", "+tt.kind+"}}", policy.Env{Store: full})
		d, err := s.Check(t.Context(), "api", "a", 1)
		if want := tt.mode == service.FailOpen; err != nil || d.Allowed != want || d.Limit != 9 || s.FailModeCount() != 1 {
			t.Errorf("%s, fail %s: got %+v, %v", tt.kind, tt.mode, d, err)
		}
	}
}

// TestFairEscrowBoundsTenants floods a policy with tenants.
func TestFairEscrowBoundsTenants(t *testing.T) {
	t.Parallel()
	s := fairService(t, "limiters: {api: {fairEscrow: {limit: 50, window: 1h, maxKeys: 3}}}",
		policy.Env{Clock: throttlekit.NewManualClock(1e12)})
	admitted := 0
	for i := range 300 {
		if d, err := s.Check(t.Context(), "api", strconv.Itoa(i), 1); err == nil && d.Allowed {
			admitted++
		}
	}
	if admitted != 50 {
		t.Errorf("admitted %d, want 50", admitted)
	}
}

func ExampleFile_Build_fairEscrow() {
	file, err := policy.Parse("policies.yaml", []byte(`
limiters:
  tokens:
    fairEscrow: { limit: 10, window: 1m, weights: { gold: 4 } }
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	policies, err := file.Build(policy.Env{Clock: throttlekit.NewManualClock(1_700_000_000_000)})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := service.New(service.Config{Policies: policies})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	for _, tenant := range []string{"gold", "free", "free", "free"} {
		d, err := s.Check(context.Background(), "tokens", tenant, 1)
		fmt.Println(tenant, d.Allowed, d.Limit, d.Remaining, err)
	}
	// Output:
	// gold true 10 9 <nil>
	// free true 2 1 <nil>
	// free true 2 0 <nil>
	// free false 2 0 <nil>
}

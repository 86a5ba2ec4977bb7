package policy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

func TestFederatedFairEscrow(t *testing.T) {
	t.Parallel()
	const block = "limiters: {api: {federatedFairEscrow: {limit: 12, window: 1m, weights: {big: 3}"
	clock := throttlekit.NewManualClock(1e12)
	for _, tt := range []struct {
		name, one, two string
		envOne, envTwo string
		tenants        [2]string
		check          func(one, two int) bool
	}{
		{"regions of the program", "", "", "eu", "us", [2]string{"a", "b"}, func(one, two int) bool {
			return one-two <= 2 && two-one <= 2 && one+two >= 11 && one+two <= 12
		}},
		{"regions of the file", ", region: eu", ", region: us", "x", "x", [2]string{"a", "b"}, func(one, two int) bool {
			return one-two <= 2 && two-one <= 2 && one+two >= 11 && one+two <= 12
		}},
		{"weights 3:1", "", "", "eu", "us", [2]string{"big", "small"}, func(one, two int) bool {
			return one >= 2*two && two > 0 && one+two <= 12
		}},
		{"separate pools", ", key: one", ", prefix: p", "", "", [2]string{"a", "b"}, func(one, two int) bool {
			return one == 12 && two == 12
		}},
		{"two servers in one region", "", "", "", "", [2]string{"a", "b"}, func(one, two int) bool {
			return one+two == 12
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
			if err != nil {
				t.Fatal(err)
			}
			one := fairService(t, block+tt.one+"}}}", policy.Env{Store: store, Region: tt.envOne, Clock: clock})
			two := fairService(t, block+tt.two+"}}}", policy.Env{Store: store, Region: tt.envTwo, Clock: clock})
			got := turns(t, 20, "api", map[string]*service.Service{tt.tenants[0]: one, tt.tenants[1]: two})
			if !tt.check(got[tt.tenants[0]], got[tt.tenants[1]]) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestFederatedFairEscrowKeys(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "tk:rfp:api", ", key: shop": "tk:rfp:shop", ", prefix: p": "p:api", ", prefix: p, key: k": "p:k",
	} {
		store := newKeys(t)
		s := fairService(t, "limiters: {api: {federatedFairEscrow: {limit: 5, window: 1m"+text+"}}}", policy.Env{Store: store})
		info := s.Policies()[0]
		if d, err := s.Check(t.Context(), "api", "a", 5); err != nil || !d.Allowed || info.Limit != 5 || info.Kind != "federatedFairEscrow" {
			t.Errorf("got %+v, %v, %+v", d, err, info)
		}
		if len(store.seen) != 1 || store.seen[0] != want {
			t.Errorf("%q: got keys %q, want %q", text, store.seen, want)
		}
		if _, err := s.CheckMany(t.Context(), "api", []string{"a"}, 1); !errors.Is(err, throttlekit.ErrUnsupported) {
			t.Errorf("CheckMany: got %v", err)
		}
	}
}

func TestFederatedFairEscrowNeedsAStore(t *testing.T) {
	t.Parallel()
	file, err := policy.Parse("test", []byte("limiters: {api: {federatedFairEscrow: {limit: 5, window: 1m}}}"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.Build(policy.Env{})
	if err == nil || !strings.Contains(err.Error(), "region-fair-pool store") || !strings.Contains(err.Error(), "fairEscrow") {
		t.Errorf("got %v", err)
	}
	store := newKeys(t)
	if _, err = file.Build(policy.Env{Store: store, Region: strings.Repeat("x", 300)}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("a region of 300 bytes: got %v", err)
	}
}

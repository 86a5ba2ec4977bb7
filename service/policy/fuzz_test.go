package policy_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// FuzzParse holds that no text breaks the reader: it ends in policies that work or in
// problems that each stay on one line and lie in the text, and it ends the same way twice.
func FuzzParse(f *testing.F) {
	wrong, err := os.ReadFile("testdata/wrong.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{
		policy.StarterText(),
		string(wrong),
		`{"version": 1, "defaults": {"prefix": "shop"}, "limiters": {"api": {"strategy": "gcra", "limit": 5, "period": "1h30m"}}}`,
		"limiters: {a: {strategy: quota, limit: 5, resetCadence: calendar-week, weekStartsOn: 0, offsetMinutes: 60}}",
		"limiters: {a: {strategy: quota, limit: 5, resetCadence: rolling, period: 7d, buckets: 7}, b: {twoTier: }}",
		"limiters: {a: {strategy: slidingWindow, limit: 1e3, windowMs: 250, period: 250ms, failMode: closed}}",
		"limiters: {a: {strategy: gcra, limit: 9, period: 1s, twoTier: {batch: 5, expireAfter: 50ms, adaptive: {maxSize: 9}}}}",
		"limiters: {a: {strategy: fixedWindow, limit: 9, period: 1s, federated: {batch: 5, region: eu, returnIdleAfterMs: 5}}}",
		"limiters: {a: {fairEscrow: {limit: 9, window: 1s, weights: {vip: 3, b: 0.5}, maxKeys: 5, costRoom: false, quantum: 3}}}",
		"limiters: {a: {federatedFairEscrow: {limit: 9, windowMs: 50, weights: {'': 3}, region: eu, key: k, prefix: p, unit: x}}}",
		"limiters: {a: {tokenBudget: {budget: 5, window: 1s}}, b: {fleetBudget: {budget: 5.5, windowMs: 50, prefix: p}}}",
		"limiters: {a: {concurrency: {queue: 5, queueTimeout: 1ms, recalibration: {probeLimit: 2}}, budget: {budget: 5, window: 1s}}}",
		"defaults: {prefix: p}\nlimiters: {a: {strategy: gcra, limit: 5, period: 1s, concurrency: {algorithm: aimd}, budget: {strategy: gcra, limit: 5, period: 1s, prefix: c}}}",
		"limiters: {a: {distributedConcurrency: {maxLimit: 9, aggregate: min, heartbeat: 50ms, leaseTtlMs: 500, selfFence: false, prefix: p}}}",
		"limiters: &x {a: *x, <<: !t {}}\n---\n",
		"limiters:\n  a: |\n    b\n  ? c\n  : 'd''e'\n  \"f\\u0041\": [1, {g: ~}]\n",
		"%YAML 1.1\n---\nlimiters: {}\n...\n",
		"limiters:\r\n\ta: 1\rb: \ufeff",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := policy.Parse("fuzz", text)
		again, errAgain := policy.Parse("fuzz", text)
		if err != nil {
			checkProblems(t, text, err)
			if errAgain == nil || errAgain.Error() != err.Error() {
				t.Fatalf("first %v, then %v", err, errAgain)
			}
			return
		}
		if errAgain != nil || len(again.Policies()) != len(file.Policies()) {
			t.Fatalf("first right, then %v", errAgain)
		}
		checkPolicies(t, file)
	})
}

func checkProblems(t *testing.T, text []byte, err error) {
	t.Helper()
	var e *policy.Error
	if !errors.As(err, &e) || len(e.Problems) == 0 || !errors.Is(err, throttlekit.ErrInvalid) {
		t.Fatalf("got %v, want an *Error with problems", err)
	}
	lines := 1 + strings.Count(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(text)), "\n")
	for _, p := range e.Problems {
		if p.Line < 1 || p.Line > lines+1 || p.Column < 1 || p.Column > len(text)+1 || p.Rule == "" {
			t.Fatalf("%s: no place in %d lines", p, lines)
		}
		if strings.ContainsAny(p.String(), "\n\r\x00\x1b\u2028") {
			t.Fatalf("%q breaks the line", p.String())
		}
	}
}

func checkPolicies(t *testing.T, file *policy.File) {
	t.Helper()
	env := policy.Env{Clock: throttlekit.NewManualClock(1_700_000_000_000), Node: "n"}
	shared := slices.ContainsFunc(file.Policies(), func(info service.Info) bool {
		return strings.HasPrefix(info.Kind, "federated") || info.Kind == "distributedConcurrency"
	})
	if shared {
		store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: env.Clock})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		env.Store = store
	}
	built, err := file.Build(env)
	if err != nil {
		t.Fatalf("parsed, but not built: %v", err)
	}
	s, err := service.New(service.Config{Policies: built})
	if err != nil {
		t.Fatalf("built, but not served: %v", err)
	}
	for _, info := range s.Policies() {
		d, err := ask(t, s, info)
		own := !strings.HasSuffix(strings.ToLower(info.Kind), "concurrency") && // whose limit is the least of its axes
			!strings.HasSuffix(strings.ToLower(info.Kind), "fairescrow") // whose limit is the tenant's share
		if (err != nil || d.Limit != info.Limit && own) && !shared { // in a shared store one's records may be another's
			t.Fatalf("%+v: got %+v, %v", info, d, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// ask asks a policy for what its kind can.
func ask(t *testing.T, s *service.Service, info service.Info) (throttlekit.Decision, error) {
	t.Helper()
	switch info.Kind {
	case "tokenBudget", "fleetBudget":
		return s.Debit(t.Context(), info.Name, "k", 1)
	case "concurrency", "distributedConcurrency":
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // a fleet may have no slots for it yet
		defer cancel()
		a, err := s.Admit(ctx, info.Name, service.AdmitRequest{Key: "k"})
		return a.Decision, err
	default:
		return s.Check(t.Context(), info.Name, "k", 1)
	}
}

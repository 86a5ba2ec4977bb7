package policy_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// TestConcurrencyRules holds every problem of the two kinds to its place and words.
func TestConcurrencyRules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ policy, want string }{
		{"concurrency: ", "concurrency: must be a mapping, got null; write {} for the defaults"},
		{"concurrency: {maxLimit: 3}", "concurrency.maxLimit: must be an integer from 4 to 1000000, got 3"},
		{"concurrency: {minLimit: 0}", "concurrency.minLimit: must be an integer from 1 to 1000000, got 0"},
		{"concurrency: {minLimit: 9, maxLimit: 5}", "concurrency.maxLimit: must be an integer from 9 to 1000000, got 5"},
		{"concurrency: {minLimit: 2.5}", "concurrency.minLimit: must be an integer from 1 to 1000000, got 2.5"},
		{"concurrency: {initialLimit: 600}", "concurrency.initialLimit: must be an integer from 4 to 512, got 600"},
		{"concurrency: {algorithm: vegas}", `concurrency.algorithm: must be gradient2 or aimd, got "vegas"`},
		{"concurrency: {rttWindow: 0}", "concurrency.rttWindow: must be an integer from 1 to 1000000, got 0"},
		{"concurrency: {smoothing: 0}", "concurrency.smoothing: must be a positive finite number, got 0"},
		{"concurrency: {smoothing: 1.1}", "concurrency.smoothing: must be above 0 and at most 1, got 1.1"},
		{"concurrency: {tolerance: 0.5, backoffRatio: 1}", "concurrency.tolerance: must be a finite number >= 1, got 0.5\n" +
			"concurrency.backoffRatio: must be at least 0.5 and below 1, got 1"},
		{"concurrency: {tolerance: .inf}", "concurrency.tolerance: must be a number in plain decimal notation, got .inf"},
		{"concurrency: {queueTimeout: 1s}", `concurrency.queueTimeout: must not be given without queue, got "1s"`},
		{"concurrency: {queue: 5, queueTimeout: 0}", "concurrency.queueTimeout: must be a positive duration, got 0"},
		{"concurrency: {recalibration: {probeLimit: 0}}", "concurrency.recalibration.probeLimit: must be an integer from 1 to 1000000, got 0"},
		{"concurrency: {recalibration: {probeLimits: 1}}", "concurrency.recalibration.probeLimits: is not a known field; did you mean `probeLimit`?"},
		{"concurrency: {recalibration: {probeLimit: 600}}", "concurrency.recalibration: must be an integer from 1 to 512, got a mapping"},
		{"concurrency: {minlimit: 4}", "concurrency.minlimit: is not a known field; did you mean `minLimit`?"},
		{"concurrency: {}, limit: 5", "limit: must not be given without strategy, whose field it is"},
		{"concurrency: {}, strategy: gcra, limit: 5", "period: must be given, or periodMs or windowMs"},
		{"concurrency: {}, strategy: gcra, limit: 0, period: 1m", "limit: must be a positive finite number, got 0"},
		{"concurrency: {}, budget: {}", "budget.budget: must be given\nbudget.window: must be given, or windowMs"},
		{"concurrency: {}, budget: 5", "budget: must be a mapping, got 5"},
		{"concurrency: {}, budget: {budget: 0, window: 1m}", "budget.budget: must be a positive finite number, got 0"},
		{"concurrency: {}, budget: {budget: 5, window: 1m, prefix: ''}", `budget.prefix: must not be empty, got ""`},
		{"concurrency: {}, budget: {strategy: tokenBucket, capacity: 5}", "budget.refillPerSec: must be given"},
		{"strategy: gcra, limit: 5, period: 1m, budget: {budget: 5, window: 1m}", "budget: must not be given without concurrency or distributedConcurrency"},

		{"distributedConcurrency: {aggregate: mean}", "distributedConcurrency.aggregate: must be median or min, got \"mean\"; did you mean `median`?"},
		{"distributedConcurrency: {allocation: equal}", `distributedConcurrency.allocation: must be equal-split or demand-proportional, got "equal"`},
		{"distributedConcurrency: {heartbeatMs: 0}", "distributedConcurrency.heartbeatMs: must be a positive duration, got 0"},
		{"distributedConcurrency: {heartbeatMs: 1000, leaseTtlMs: 1000}", "distributedConcurrency.leaseTtlMs: must be longer than heartbeat and at most 24h, got 1000"},
		{"distributedConcurrency: {onCoordinatorOutage: open}", `distributedConcurrency.onCoordinatorOutage: must be fail-closed or local-only, got "open"`},
		{"distributedConcurrency: {onCoordinatorOutage: local-only, selfFence: true}", "distributedConcurrency.selfFence: must not be true with onCoordinatorOutage local-only, which goes on alone, got true"},
		{"distributedConcurrency: {prefix: ''}", `distributedConcurrency.prefix: must not be empty, got ""`},
		{"distributedConcurrency: {minHeartbeat: 2s}", `distributedConcurrency.minHeartbeat: must be positive and at most heartbeat, got "2s"`},
		{"distributedConcurrency: {maxLimit: 3}", "distributedConcurrency.maxLimit: must be an integer from 4 to 1000000, got 3"},
	} {
		t.Run(tt.policy, func(t *testing.T) {
			t.Parallel()
			_, err := policy.Parse("test", []byte("limiters: {p: {"+tt.policy+"}}"))
			var broken *policy.Error
			if !errors.As(err, &broken) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			var got []string
			for _, p := range broken.Problems {
				text := p.String()
				got = append(got, text[strings.Index(text, "limiters.p.")+len("limiters.p."):])
			}
			if text := strings.Join(got, "\n"); text != tt.want {
				t.Errorf("got\n%s\nwant\n%s", text, tt.want)
			}
		})
	}
}

// admit asks a policy for what it can.
func admit(t *testing.T, p service.Policy, req service.AdmitRequest) admission.Admission {
	t.Helper()
	admitter, ok := p.(service.Admitter)
	if !ok {
		t.Fatalf("%s cannot admit", p.Info().Name)
	}
	a, err := admitter.AdmitOr(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// guardOf is how a policy's guard stands.
func guardOf(t *testing.T, p service.Policy) service.GuardState {
	t.Helper()
	guarded, ok := p.(service.Guarded)
	if !ok {
		t.Fatalf("%s has no guard", p.Info().Name)
	}
	return guarded.Guard()
}

// The first axis that denies is named, in the order concurrency, rate, cost, and a denial charges nothing anywhere.
func TestUnified(t *testing.T) {
	t.Parallel()
	const text = `
limiters:
  llm:
    strategy: fixedWindow
    limit: 3
    period: 1m
    concurrency: { minLimit: 2, maxLimit: 2 }
    budget: { budget: 100, window: 1m }
`
	for _, store := range []throttlekit.Store{nil, newKeys(t)} {
		p := budgets(t, text, policy.Env{Clock: throttlekit.NewManualClock(0), Store: store})[0]
		if info := p.Info(); info.Kind != "concurrency" || info.Strategy != "fixedWindow" || info.Limit != 3 {
			t.Errorf("got %+v", info)
		}
		held := make([]admission.Admission, 0, 2)
		for _, step := range []struct {
			cost      float64
			allowed   bool
			binding   admission.Axis
			remaining int64
		}{
			{cost: 60, allowed: true, remaining: 1}, // a slot left, two of the rate, 40 of the budget
			{cost: 41, binding: admission.Cost},
			{cost: 40, allowed: true, remaining: 0},
			{cost: 1, binding: admission.Concurrency},
		} {
			a := admit(t, p, service.AdmitRequest{Key: "k", Cost: step.cost})
			if a.Allowed != step.allowed || a.Binding != step.binding || a.Remaining != step.remaining {
				t.Errorf("cost %v: got %+v by %q, want %+v", step.cost, a.Decision, a.Binding, step)
			}
			if a.Allowed {
				held = append(held, a)
			}
			if got := guardOf(t, p).InFlight; got != len(held) {
				t.Errorf("cost %v: %d in flight, want %d", step.cost, got, len(held))
			}
		}
		held[0].Release()
		if a := admit(t, p, service.AdmitRequest{Key: "k"}); a.Binding != admission.Cost {
			t.Errorf("got %+v by %q, want a denial by cost", a.Decision, a.Binding)
		}
		other := admit(t, p, service.AdmitRequest{Key: "other"})
		if !other.Allowed || other.Remaining != 0 {
			t.Errorf("got %+v by %q", other.Decision, other.Binding)
		}
		other.Release()
		held[1].Drop()
		if got := guardOf(t, p).InFlight; got != 0 {
			t.Errorf("%d in flight at the end", got)
		}
	}
}

// Requests wait in the queue for as long as the policy says, and are denied then.
func TestQueueTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := budgets(t, "limiters: {p: {concurrency: {minLimit: 1, maxLimit: 1, queue: 1, queueTimeout: 3s}}}", policy.Env{})[0]
		first := admit(t, p, service.AdmitRequest{})
		start := time.Now()
		if a := admit(t, p, service.AdmitRequest{}); a.Allowed || a.Binding != admission.Concurrency || time.Since(start) != 3*time.Second {
			t.Errorf("got %+v by %q after %v", a.Decision, a.Binding, time.Since(start))
		}
		done := make(chan admission.Admission)
		go func() { done <- admit(t, p, service.AdmitRequest{}) }()
		synctest.Wait()
		if got := guardOf(t, p); got.Waiting != 1 || got.InFlight != 1 {
			t.Errorf("got %+v", got)
		}
		first.Release()
		second := <-done
		if !second.Allowed {
			t.Errorf("got %+v", second.Decision)
		}
		second.Release()
	})
}

// A ceiling of a fleet needs a store to share it through and a name for the node, and is shared with others there.
func TestDistributedConcurrency(t *testing.T) {
	t.Parallel()
	const text = "limiters: {p: {distributedConcurrency: {minLimit: 8, maxLimit: 8, aggregate: min, heartbeatMs: 10, leaseTtlMs: 60000, acknowledgedHandoff: true}}}"
	file, err := policy.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	store := shared(t)
	for _, tt := range []struct {
		env  policy.Env
		want string
	}{
		{policy.Env{Node: "a"}, "shared coordinator store"},
		{policy.Env{Store: store}, "node id"},
	} {
		if _, err := file.Build(tt.env); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q in it", err, tt.want)
		}
	}
	a := budgets(t, text, policy.Env{Store: store, Node: "a"})[0]
	b := budgets(t, text, policy.Env{Store: store, Node: "b"})[0]
	await(t, "two nodes with 4 of 8 each", func() bool {
		x, y := guardOf(t, a).Fleet, guardOf(t, b).Fleet
		return x.Nodes == 2 && y.Nodes == 2 && x.Share == 4 && y.Share == 4 && x.Ceiling == 8
	})
	for range 4 {
		if got := admit(t, a, service.AdmitRequest{}); !got.Allowed {
			t.Errorf("got %+v", got.Decision)
		}
	}
	if got := admit(t, a, service.AdmitRequest{}); got.Allowed || got.Binding != admission.Concurrency {
		t.Errorf("got %+v by %q", got.Decision, got.Binding)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	await(t, "all of 8 for the node that is left", func() bool { return guardOf(t, a).Fleet.Share == 8 })
}

// shared is a store that several policies may use at once.
func shared(t *testing.T) throttlekit.Store {
	t.Helper()
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// await waits for something that others bring about.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

// Who uses a node id twice is told, with both owners.
func TestNodeIDTwice(t *testing.T) {
	t.Parallel()
	const text = "limiters: {p: {distributedConcurrency: {heartbeatMs: 10, leaseTtlMs: 60000}}}"
	store := shared(t)
	first := budgets(t, text, policy.Env{Store: store, Node: "same"})[0]
	await(t, "share", func() bool { return guardOf(t, first).Fleet.Share > 0 })
	second := budgets(t, text, policy.Env{Store: store, Node: "same"})[0]
	told := make(chan error, 100)
	steadfast, ok := second.(service.Steadfast)
	if !ok {
		t.Fatal("nobody is told")
	}
	steadfast.TellOutages(func(err error) {
		select {
		case told <- err:
		default:
		}
	})
	select {
	case err := <-told:
		if text := err.Error(); !strings.Contains(text, "same") || strings.Count(text, "#") < 4 {
			t.Errorf("got %v, want the id and both owners", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was told")
	}
	if got := guardOf(t, second).Fleet.Share; got != 0 {
		t.Errorf("got a share of %d", got)
	}
}

package policy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		{"concurrency: {maxLimit: 3}", "concurrency.maxLimit: must be an integer from 4 (the default of minLimit) to 1000000, got 3"},
		{"concurrency: {minLimit: null, maxLimit: 3}", "concurrency.maxLimit: must be an integer from 4 (the default of minLimit) to 1000000, got 3"},
		{"concurrency: {minLimit: 2.5, maxLimit: 3, initialLimit: 2}", "concurrency.minLimit: must be an integer from 1 to 1000000, got 2.5"},
		{"concurrency: {minLimit: 9, maxLimit: 3, initialLimit: 2000000}", "concurrency.maxLimit: must be an integer from 9 to 1000000, got 3\n" +
			"concurrency.initialLimit: must be an integer from 1 to 1000000, got 2000000"},
		{"concurrency: {minLimit: 9, maxLimit: 0, initialLimit: 5}", "concurrency.maxLimit: must be an integer from 1 to 1000000, got 0\n" +
			"concurrency.initialLimit: must be an integer from 9 to 1000000, got 5"},
		{"concurrency: {minLimit: 0}", "concurrency.minLimit: must be an integer from 1 to 1000000, got 0"},
		{"concurrency: {minLimit: 9, maxLimit: 5}", "concurrency.maxLimit: must be an integer from 9 to 1000000, got 5"},
		{"concurrency: {minLimit: 2.5}", "concurrency.minLimit: must be an integer from 1 to 1000000, got 2.5"},
		{"concurrency: {initialLimit: 600}", "concurrency.initialLimit: must be an integer from 4 (the default of minLimit) to 512 (the default of maxLimit), got 600"},
		{"concurrency: {minLimit: 5, maxLimit: 9, initialLimit: 4}", "concurrency.initialLimit: must be an integer from 5 to 9, got 4"},
		{"concurrency: {algorithm: vegas}", `concurrency.algorithm: must be gradient2 or aimd, got "vegas"`},
		{"concurrency: {rttWindow: 0}", "concurrency.rttWindow: must be an integer from 1 to 1000000, got 0"},
		{"concurrency: {smoothing: 0}", "concurrency.smoothing: must be a positive finite number, got 0"},
		{"concurrency: {smoothing: 1.1}", "concurrency.smoothing: must be above 0 and at most 1, got 1.1"},
		{"concurrency: {smoothing: 0.5, algorithm: aimd}", "concurrency.smoothing: is for algorithm gradient2, not aimd, got 0.5"},
		{"concurrency: {backoffRatio: 0.5}", "concurrency.backoffRatio: is for algorithm aimd, not gradient2, got 0.5"},
		{"concurrency: {backoffRatio: 0.5, algorithm: gradient2}", "concurrency.backoffRatio: is for algorithm aimd, not gradient2, got 0.5"},
		{"concurrency: {algorithm: aimd, tolerance: 0.5, backoffRatio: 1}", "concurrency.tolerance: must be a finite number >= 1, got 0.5\n" +
			"concurrency.backoffRatio: must be at least 0.5 and below 1, got 1"},
		{"concurrency: {tolerance: .inf}", "concurrency.tolerance: must be a number in plain decimal notation, got .inf"},
		{"concurrency: {queueTimeout: 1s}", `concurrency.queueTimeout: must not be given without queue, got "1s"`},
		{"concurrency: {queueTimeout: 30s}", `concurrency.queueTimeout: must not be given without queue, got "30s"`},
		{"concurrency: {queue: 0, queueTimeoutMs: 5}", "concurrency.queueTimeoutMs: must not be given without queue, got 5"},
		{"concurrency: {queue: -1}", "concurrency.queue: must be an integer from 0 to 1000000, got -1"},
		{"concurrency: {queue: 5, queueTimeout: 25001ms}", `concurrency.queueTimeout: must be at most 25s, for servers cut requests off after 30s, got "25001ms"`},
		{"concurrency: {queue: 5, queueTimeout: 0}", "concurrency.queueTimeout: must be a positive duration, got 0"},
		{"concurrency: {recalibration: {probeLimit: 0}}", "concurrency.recalibration.probeLimit: must be an integer from 1 to 1000000, got 0"},
		{"concurrency: {recalibration: {probeLimits: 1}}", "concurrency.recalibration.probeLimits: is not a known field; did you mean `probeLimit`?"},
		{"concurrency: {recalibration: {probeLimit: 600}}", "concurrency.recalibration.probeLimit: must be an integer from 1 to 512 (the default of maxLimit), got 600"},
		{"concurrency: {maxLimit: 30, recalibration: {probeLimit: 50, probeSamples: 0}}", "concurrency.recalibration.probeLimit: must be an integer from 1 to 30, got 50\n" +
			"concurrency.recalibration.probeSamples: must be an integer from 1 to 1000000, got 0"},
		{"concurrency: {recalibration: {intervalMs: 0}}", "concurrency.recalibration.intervalMs: must be a positive duration, got 0"},
		{"concurrency: {recalibration: true}", "concurrency.recalibration: must be a mapping, got true"},
		{"concurrency: {minlimit: 4}", "concurrency.minlimit: is not a known field; did you mean `minLimit`?"},
		{"concurrency: {}, limit: 5", "limit: must not be given without strategy, whose field it is"},
		{"concurrency: {}, strategy: gcra, limit: 5", "period: must be given, or periodMs or windowMs"},
		{"concurrency: {}, strategy: gcra, limit: 0, period: 1m", "limit: must be a positive finite number, got 0"},
		{"concurrency: {}, budget: {}", "budget.budget: must be given\nbudget.window: must be given, or windowMs"},
		{"concurrency: {}, budget: 5", "budget: must be a mapping with budget and window, or with strategy, got 5"},
		{"concurrency: {}, budget: null", "budget: must be a mapping with budget and window, or with strategy, got null"},
		{"concurrency: {}, budget: {budget: 4503599627370497, window: 1m}", "budget.budget: must be at most 4503599627370496, got 4503599627370497"},
		{"concurrency: {}, budget: {budget: 5, window: 1m, limit: 3}", "budget.limit: must not be given without strategy, whose field it is"},
		{"concurrency: {}, budget: {budget: 5, strategy: gcra, limit: 3, period: 1m, window: 1m}", "budget.budget: must not be given beside strategy, for one excludes the other, got 5\n" +
			`budget.window: must not be given beside strategy, for one excludes the other, got "1m"`},
		{"concurrency: {}, distributedConcurrency: {}, budget: {budget: 5, window: 1m}", "must have at most one of tokenBudget, fleetBudget, fairEscrow, federatedFairEscrow, concurrency, distributedConcurrency, twoTier and federated, got concurrency and distributedConcurrency"},
		{"prefix: x, concurrency: {}", `prefix: must not be given without strategy or budget, whose records it is for, got "x"`},
		{"prefix: x, concurrency: {}, budget: {budget: 5, window: 1m, prefix: y}", `prefix: must not be given without strategy and with budget.prefix, for it has no records then, got "x"`},
		{"failMode: open, concurrency: {}", `failMode: must not be given without strategy or budget, for slots need no store, got "open"`},
		{"prefix: tk, strategy: gcra, limit: 3, period: 1s, concurrency: {}, budget: {budget: 5, window: 1m, prefix: tk}", `budget.prefix: must not be "tk", the prefix of strategy, and neither may be the other up to a colon, got "tk"`},
		{"prefix: tk, strategy: gcra, limit: 3, period: 1s, concurrency: {}, budget: {budget: 5, window: 1m, prefix: 'tk:cost'}", `budget.prefix: must not be "tk", the prefix of strategy, and neither may be the other up to a colon, got "tk:cost"`},
		{"prefix: 'tk:rate', strategy: gcra, limit: 3, period: 1s, concurrency: {}, budget: {budget: 5, window: 1m, prefix: tk}", `budget.prefix: must not be "tk:rate", the prefix of strategy, and neither may be the other up to a colon, got "tk"`},
		{"prefix: '', strategy: gcra, limit: 3, period: 1s, concurrency: {}, budget: {budget: 5, window: 1m}", `prefix: must not be empty with strategy and budget, whose records it tells apart, got ""`},
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
		{"distributedConcurrency: {maxLimit: 3}", "distributedConcurrency.maxLimit: must be an integer from 4 (the default of minLimit) to 1000000, got 3"},
		{"distributedConcurrency: {recalibration: {probeLimit: 600}}", "distributedConcurrency.recalibration.probeLimit: must be an integer from 1 to 512 (the default of maxLimit), got 600"},
		{"prefix: x, distributedConcurrency: {}", `prefix: must not be given without strategy or budget, whose records it is for, got "x"; that of the ceiling stands in distributedConcurrency`},
		{"failMode: closed, distributedConcurrency: {}", `failMode: must not be given without strategy or budget, for slots need no store, got "closed"; onCoordinatorOutage says what happens without the store`},
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
				got = append(got, strings.TrimLeft(text[strings.Index(text, "limiters.p")+len("limiters.p"):], ".: "))
			}
			if text := strings.Join(got, "\n"); text != tt.want {
				t.Errorf("got\n%s\nwant\n%s", text, tt.want)
			}
		})
	}
}

// TestConcurrencyIsBuilt holds that what is right is built, in memory and on a shared store, whatever
// prefixes it has.
func TestConcurrencyIsBuilt(t *testing.T) {
	t.Parallel()
	const rate = "strategy: gcra, limit: 3, period: 1s, "
	for _, fields := range []string{
		"concurrency: {queue: 0}",
		"concurrency: {queue: 1, queueTimeout: 25s}",
		"concurrency: {minLimit: 1, maxLimit: 3, algorithm: aimd, backoffRatio: 0.5, tolerance: 3, rttWindow: 5}",
		"concurrency: {algorithm: gradient2, smoothing: 0.5}",
		"concurrency: {recalibration: {intervalMs: 60000, probeLimit: 2}}",
		"concurrency: {}, prefix: x, budget: {budget: 4503599627370496, window: 1m}, failMode: open",
		"concurrency: {}, budget: {strategy: null, budget: 5, window: 1m, prefix: x}",
		"concurrency: {}, budget: {strategy: gcra, limit: 5, windowMs: 1000}",
		"distributedConcurrency: {}, prefix: '', budget: {budget: 5, window: 1m}",
		rate + "concurrency: {}, prefix: ''",
		rate + "concurrency: {}, budget: {budget: 5, window: 1m, prefix: rate}",
		rate + "concurrency: {}, prefix: cost, budget: {budget: 5, window: 1m, prefix: rate}",
		rate + "concurrency: {}, prefix: 'rate:api', budget: {budget: 5, window: 1m}",
		rate + "distributedConcurrency: {}, prefix: 'rate:api', budget: {budget: 5, window: 1m}, failMode: closed",
	} {
		t.Run(fields, func(t *testing.T) {
			t.Parallel()
			text := "limiters: {p: {" + fields + "}}"
			budgets(t, text, policy.Env{Store: shared(t), Node: "n"})
			if !strings.Contains(fields, "distributed") {
				budgets(t, text, policy.Env{})
			}
		})
	}
}

// An empty prefix from the defaults is one that tells the records of rate and cost not apart.
func TestNoPrefixFromDefaults(t *testing.T) {
	t.Parallel()
	const text = "defaults: {prefix: ''}\nlimiters: {p: {strategy: gcra, limit: 3, period: 1s, concurrency: {}, budget: {budget: 5, window: 1m}}}"
	const want = "test:2:12: limiters.p.prefix: must not be empty with strategy and budget, whose records it tells apart"
	if _, err := policy.Parse("test", []byte(text)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// noBatches is a store that cannot charge two records in one step.
type noBatches struct{ throttlekit.Store }

func (n noBatches) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	if commit != throttlekit.CommitEach {
		return nil, throttlekit.ErrUnsupported
	}
	return n.Store.Batch(ctx, ops, commit)
}

// Rate and budget are refused on a store that cannot charge both at once, and only both.
func TestUnifiedNeedsAtomicBatches(t *testing.T) {
	t.Parallel()
	const rate, cost = "strategy: gcra, limit: 3, period: 1s, ", ", budget: {budget: 5, window: 1m}"
	store := noBatches{shared(t)}
	for _, kind := range []string{"concurrency: {}", "distributedConcurrency: {}"} {
		file, err := policy.Parse("test", []byte("limiters: {p: {"+rate+kind+cost+"}}"))
		if err != nil {
			t.Fatal(err)
		}
		const want = "test:1:12: limiters.p: cannot be built: strategy and budget are charged at once: "
		if _, err := file.Build(policy.Env{Store: store, Node: "n"}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", kind, err, want)
		}
		for _, fields := range []string{kind, rate + kind, kind + cost} {
			budgets(t, "limiters: {p: {"+fields+"}}", policy.Env{Store: store, Node: "n"})
		}
	}
}

// Policies that have their prefix from the defaults do not share their budgets by that.
func TestBudgetPrefixes(t *testing.T) {
	t.Parallel()
	const cost = "concurrency: {}, budget: {budget: 5, window: 1m}"
	for _, tt := range []struct{ text, want string }{
		{"limiters: {a: {" + cost + "}}", "a/cost:k"},
		{"limiters: {a: {prefix: x, " + cost + "}}", "x/cost:k"},
		{"limiters: {a: {concurrency: {}, budget: {budget: 5, window: 1m, prefix: x}}}", "x:k"},
		{"defaults: {prefix: x}\nlimiters: {a: {" + cost + "}}", "x/a/cost:k"},
		{"defaults: {prefix: x}\nlimiters: {a: {prefix: y, " + cost + "}}", "y/cost:k"},
		{"defaults: {prefix: x}\nlimiters: {a: {concurrency: {}, budget: {budget: 5, window: 1m, prefix: y}}}", "y:k"},
	} {
		store := newKeys(t)
		admit(t, budgets(t, tt.text, policy.Env{Store: store})[0], service.AdmitRequest{Key: "k"}).Release()
		if !slices.Equal(store.seen, []string{tt.want}) {
			t.Errorf("%s: got %q, want %q", tt.text, store.seen, tt.want)
		}
	}
}

// Records of budgets are warned of like others, and that two share them is a warning even if their rules agree.
func TestCostWarnings(t *testing.T) {
	t.Parallel()
	const cost = "concurrency: {}, budget: {budget: 5, window: 1m"
	f, err := policy.Parse("p.yaml", []byte(`defaults: {prefix: tk}
limiters:
  a: {`+cost+`}}
  b: {`+cost+`}}
  c: {strategy: gcra, limit: 3, period: 1s, prefix: c}
  d: {`+cost+`, prefix: c}}
  e: {`+cost+`, prefix: e}}
  f: {`+cost+`, prefix: e}}
  g: {strategy: fixedWindow, limit: 5, period: 1m, prefix: e}
  h: {strategy: fixedWindow, limit: 5, period: 1m, prefix: h, distributedConcurrency: {}}
  i: {strategy: fixedWindow, limit: 5, period: 1m, prefix: h}
  j: {strategy: gcra, limit: 5, period: 1m, prefix: h, concurrency: {}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range f.Warnings() {
		got = append(got, w.String())
	}
	want := []string{
		`p.yaml:6:3: limiters.d.budget: shares the prefix "c" with limiters.c, but not its strategy; give each its own prefix`,
		`p.yaml:8:3: limiters.f.budget: shares the prefix "e" with limiters.e.budget, and so each key's counts; give each its own prefix`,
		`p.yaml:9:3: limiters.g: shares the prefix "e" with limiters.e.budget, and so each key's counts; give each its own prefix`,
		`p.yaml:12:3: limiters.j: shares the prefix "h" with limiters.h, but not its strategy; give each its own prefix`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
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

// A request waits for half a second unless the policy says otherwise, and never for so long that its caller
// has left before the denial comes.
func TestQueueWithinDeadline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ left, want time.Duration }{
		{0, 500 * time.Millisecond},
		{time.Hour, 500 * time.Millisecond},
		{time.Second, 500 * time.Millisecond},
		{400 * time.Millisecond, 300 * time.Millisecond},
		{4 * time.Millisecond, 3 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := budgets(t, "limiters: {p: {concurrency: {minLimit: 1, maxLimit: 1, queue: 1}}}", policy.Env{})[0]
			held := admit(t, p, service.AdmitRequest{})
			ctx := t.Context()
			if tt.left > 0 {
				bounded, cancel := context.WithTimeout(ctx, tt.left)
				defer cancel()
				ctx = bounded
			}
			start := time.Now()
			a, err := p.(service.Admitter).AdmitOr(ctx, service.AdmitRequest{}, nil)
			if err != nil || a.Allowed || a.Binding != admission.Concurrency || time.Since(start) != tt.want || ctx.Err() != nil {
				t.Errorf("%v left: got %+v, %v after %v, want a denial after %v", tt.left, a.Decision, err, time.Since(start), tt.want)
			}
			held.Release()
			if got := guardOf(t, p); got.InFlight != 0 || got.Waiting != 0 {
				t.Errorf("%v left: got %+v at the end", tt.left, got)
			}
		})
	}
}

// A caller who leaves the queue gets its own error.
func TestQueueLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := budgets(t, "limiters: {p: {concurrency: {minLimit: 1, maxLimit: 1, queue: 1}}}", policy.Env{})[0]
		held := admit(t, p, service.AdmitRequest{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := p.(service.Admitter).AdmitOr(ctx, service.AdmitRequest{}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		held.Release()
	})
}

// A ceiling of a fleet needs a store to share it through and a name for the node, and is shared with others there.
func TestDistributedConcurrency(t *testing.T) {
	t.Parallel()
	const text = "limiters: {p: {distributedConcurrency: {minLimit: 8, maxLimit: 8, aggregate: min, heartbeatMs: 10, leaseTtlMs: 60000, acknowledgedHandoff: true, queue: 1, queueTimeoutMs: 1}}}"
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
	if got := admit(t, a, service.AdmitRequest{}); got.Allowed || got.Binding != admission.Concurrency || got.Limit != 4 {
		t.Errorf("got %+v by %q, want a denial by the share of 4", got.Decision, got.Binding)
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

// down is a store that answers nothing.
type down struct{ throttlekit.Store }

func (down) Apply(context.Context, string, throttlekit.Transition, float64) (throttlekit.Decision, error) {
	return throttlekit.Decision{}, fmt.Errorf("%w: down", throttlekit.ErrStoreUnavailable)
}

// Beats that fail before anybody wants to know are told to who wants to know first.
func TestOutageBeforeAnybodyListens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file, err := policy.Parse("test", []byte("limiters: {p: {distributedConcurrency: {}}}"))
		if err != nil {
			t.Fatal(err)
		}
		built, err := file.Build(policy.Env{Store: down{}, Node: "n"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the first beat has failed, and the next is not due
		for _, want := range []int{1, 0} {
			told := 0
			built[0].(service.Steadfast).TellOutages(func(err error) {
				if told++; !errors.Is(err, throttlekit.ErrStoreUnavailable) {
					t.Errorf("got %v", err)
				}
			})
			if told != want {
				t.Errorf("told %d times, want %d", told, want)
			}
		}
		if err := built[0].Close(); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("got %v from Close, which could not leave the fleet", err)
		}
	})
}

package policy_test

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

const (
	window = "strategy: fixedWindow, limit: 12, period: 1m, "
	rate   = "strategy: gcra, limit: 100, period: 1s, burst: 20, "
)

// TestLeasingRules holds every problem of the two kinds to its place and words.
func TestLeasingRules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ policy, want string }{
		{window + "twoTier: {}", "twoTier.batch: must be given, or lease.adaptive"},
		{window + "twoTier: ", "twoTier: must be a mapping, got null; write {} for the defaults"},
		{window + "twoTier: 5", "twoTier: must be a mapping, got 5"},
		{window + "twoTier: {batch: 0}", "twoTier.batch: must be an integer from 1 to 9007199254740991, got 0"},
		{window + "twoTier: {batch: 2.5}", "twoTier.batch: must be an integer from 1 to 9007199254740991, got 2.5"},
		{window + "twoTier: {batch: '5'}", `twoTier.batch: must be an integer from 1 to 9007199254740991, got "5"; remove the quotes`},
		{window + "twoTier: {batch: .nan}", "twoTier.batch: must be an integer from 1 to 9007199254740991 in plain decimal notation, got .nan"},
		{window + "twoTier: {batch: 5, lowWater: -1}", "twoTier.lowWater: must be an integer from 0 to 9007199254740991, got -1"},
		{window + "twoTier: {batch: 5, maxKeys: 0}", "twoTier.maxKeys: must be an integer from 1 to 2147483647, got 0"},
		{window + "twoTier: {batch: 5, windowCoupled: 1}", "twoTier.windowCoupled: must be true or false, got 1"},
		{window + "twoTier: {batch: 5, windowCoupled: 'true'}", `twoTier.windowCoupled: must be true or false, got "true"`},
		{window + "twoTier: {batch: 5, windowcoupled: true}", "twoTier.windowcoupled: is not a known field; did you mean `windowCoupled`?"},
		{window + "twoTier: {batch: 5, returnIdleAfterMs: 1s}", `twoTier.returnIdleAfterMs: must be a number of milliseconds, got "1s"; give a duration with a unit as returnIdleAfter`},
		{window + "twoTier: {batch: 5, returnIdleAfter: 0}", "twoTier.returnIdleAfter: must be a positive duration, got 0"},
		{window + "twoTier: {batch: 5, returnIdleAfter: 1s, returnIdleAfterMs: 5}", "twoTier.returnIdleAfterMs: must be the same as returnIdleAfter, which is 1000 ms, got 5; give only one of them"},
		{window + "twoTier: {mode: lease}", "twoTier.mode: must be leased, cached-deny or strict, got \"lease\"; did you mean `leased`?"},
		{window + "twoTier: {mode: strict, batch: 5, maxKeys: 5}", "twoTier.batch: must not be given with mode strict, got 5\n" +
			"twoTier.maxKeys: must not be given with mode strict, got 5"},
		{window + "twoTier: {mode: cached-deny, windowCoupled: true, adaptive: {}}", "twoTier.windowCoupled: must not be given with mode cached-deny, got true\n" +
			"twoTier.adaptive: must not be given with mode cached-deny, got a mapping"},
		{rate + "twoTier: {batch: 5, windowCoupled: true}", "twoTier.windowCoupled: must be false for strategy gcra, whose budget does not start anew with each window; give expireAfter, got true"},
		{rate + "twoTier: {batch: 5, expireAfter: 1s}", `twoTier.expireAfter: must be at most 190ms: a burst of 20 has to pay for it with 100 units and keep 1, got "1s"`},
		{rate + "twoTier: {batch: 5, expireAfterMs: 1000}", "twoTier.expireAfterMs: must be at most 190ms: a burst of 20 has to pay for it with 100 units and keep 1, got 1000"},
		{window + "twoTier: {batch: 5, expireAfter: 1s}", `twoTier.expireAfter: must not be given for strategy fixedWindow, which cannot pay for a delay, got "1s"`},
		{window + "twoTier: {batch: 5, windowCoupled: true, expireAfter: 1s}", `twoTier.expireAfter: must not be given together with windowCoupled, got "1s"`},
		{window + "twoTier: {adaptive: {minSize: 0}}", "twoTier.adaptive.minSize: must be a positive finite number, got 0"},
		{window + "twoTier: {adaptive: {minSize: 9, maxSize: 5}}", "twoTier.adaptive.maxSize: must be a finite number >= minSize, which is 9, got 5"},
		{window + "twoTier: {adaptive: {orderCost: -1}}", "twoTier.adaptive.orderCost: must be a positive finite number, got -1"},
		{window + "twoTier: {adaptive: {size: 1}}", "twoTier.adaptive.size: is not a known field; known are maxSize, minSize, orderCost and strandPenalty"},
		{window + "twoTier: {adaptive: true}", "twoTier.adaptive: must be a mapping, got true"},
		{"strategy: gcra, limit: 0, period: 1m, twoTier: {batch: 0}", "limit: must be a positive finite number, got 0\n" +
			"twoTier.batch: must be an integer from 1 to 9007199254740991, got 0"},

		{window + "federated: {batch: 0}", "federated.batch: must be an integer from 1 to 9007199254740991, got 0"},
		{window + "federated: ", "federated: must be a mapping, got null; write {} for the defaults"},
		{window + "federated: {region: '', prefix: ''}", "federated.region: must not be empty, got \"\"\n" +
			"federated.prefix: must not be empty, got \"\""},
		{window + "federated: {region: 5}", "federated.region: must be a string, got 5; put it in quotes"},
		{window + "federated: {onCoordinatorOutage: open}", "federated.onCoordinatorOutage: is not a known field; known are batch, lowWater, maxKeys, prefix, region, returnIdleAfter and returnIdleAfterMs"},
		{window + "prefix: x, federated: {}", `prefix: must not be given for a federated policy, got "x"; give it in federated`},
		{window + "failMode: open, federated: {}", `failMode: must be closed for a federated policy, whose bound holds through outages, got "open"`},
		{rate + "federated: {}", `strategy: cannot be federated: it must be fixedWindow, slidingWindow, or quota with resetCadence fixed or rolling, got "gcra"`},
		{"strategy: tokenBucket, capacity: 5, refillPerSec: 1, federated: {}", `strategy: cannot be federated: it must be fixedWindow, slidingWindow, or quota with resetCadence fixed or rolling, got "tokenBucket"`},
		{"strategy: quota, limit: 5, resetCadence: calendar-day, federated: {}", `strategy: cannot be federated: it must be fixedWindow, slidingWindow, or quota with resetCadence fixed or rolling, got "quota"`},
		{"strategy: fixedWindow, limit: 0.5, period: 1m, federated: {}", "limit: must be at least one whole unit and at most 9007199254740991, got 0.5"},
	} {
		t.Run(tt.policy, func(t *testing.T) {
			t.Parallel()
			text := "limiters: {p: {" + tt.policy + "}}"
			_, err := policy.Parse("test", []byte(text))
			e, ok := errors.AsType[*policy.Error](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			var got []string
			for _, p := range e.Problems {
				words := p.String()
				got = append(got, words[strings.Index(words, "limiters.p.")+len("limiters.p."):])
				if place := strings.TrimLeft(text[p.Column-1:], "'"); p.Line != 1 || !strings.HasPrefix(place, placeOf(p)) {
					t.Errorf("%s is said to be at %s", p, place)
				}
			}
			if got := strings.Join(got, "\n"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// placeOf is what stands where a problem is.
func placeOf(p policy.Problem) string {
	name := p.Path[strings.LastIndexByte(p.Path, '.')+1:]
	switch {
	case p.Value == "" && strings.HasPrefix(p.Rule, "must be given"): // in a block, which is there
		return strings.Split(p.Path, ".")[2]
	case p.Value == "":
		return name
	case p.Value == "a mapping":
		return "{"
	case p.Value == "null":
		return "}"
	}
	return strings.Trim(p.Value, `"`)
}

func TestLeasingInfo(t *testing.T) {
	t.Parallel()
	f, err := policy.Parse("test", []byte(`defaults: {failMode: open, prefix: shop}
limiters:
  leased: {strategy: gcra, limit: 100, period: 1s, burst: 20, twoTier: {batch: 5, expireAfter: 100ms}}
  deny: {strategy: gcra, limit: 100, period: 1s, twoTier: {mode: cached-deny, maxKeys: 5}}
  strict: {strategy: gcra, limit: 100, period: 1s, twoTier: {mode: strict}}
  learned:
    strategy: quota
    limit: 100
    resetCadence: calendar-day
    twoTier:
      adaptive: {minSize: 2, maxSize: 50, orderCost: 20, strandPenalty: 1}
      returnIdleAfter: 30s
      windowCoupled: true
      lowWater: 5
  fleet: {strategy: slidingWindow, limit: 10.5, period: 1m, federated: {batch: 2, region: eu}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []service.Info{
		{Name: "leased", Kind: "twoTier", Strategy: "gcra", Limit: 20, FailMode: service.FailOpen},
		{Name: "deny", Kind: "twoTier", Strategy: "gcra", Limit: 100, FailMode: service.FailOpen},
		{Name: "strict", Kind: "twoTier", Strategy: "gcra", Limit: 100, FailMode: service.FailOpen},
		{Name: "learned", Kind: "twoTier", Strategy: "quota", Limit: 100, FailMode: service.FailOpen},
		{Name: "fleet", Kind: "federated", Strategy: "slidingWindow", Limit: 10, FailMode: service.FailClosed},
	}
	if got := f.Policies(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	built, err := f.Build(policy.Env{Store: newKeys(t), Region: "here"})
	if err != nil {
		t.Fatal(err)
	}
	for i, can := range []struct{ check, many, peek, forecast, reserve bool }{
		{check: true, many: true},
		{check: true, many: true},
		{check: true, many: true, peek: true, forecast: true},
		{check: true, many: true},
		{check: true, many: true, reserve: true},
	} {
		p := built[i]
		got := can
		_, got.check = p.(service.Checker)
		_, got.many = p.(service.BatchChecker)
		_, got.peek = p.(service.Peeker)
		_, got.forecast = p.(service.Forecaster)
		if _, got.reserve = p.(service.Reserver); got != can {
			t.Errorf("%s: got %+v, want %+v", p.Info().Name, got, can)
		}
		if err := p.Close(); err != nil {
			t.Errorf("%s: %v", p.Info().Name, err)
		}
	}
}

// A policy with a private store leases from that, by the clock of the environment.
func TestTwoTierLeasesFromItsStore(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	p := build(t, "limiters: {p: {"+window+"twoTier: {batch: 5, windowCoupled: true}}}", policy.Env{Clock: clock})[0]
	admitted := func(n int) (allowed int) {
		t.Helper()
		for range n {
			d, err := p.(service.Checker).Check(t.Context(), "k", 1)
			if err != nil || d.Limit != 12 {
				t.Fatalf("got %+v, %v", d, err)
			}
			if d.Allowed {
				allowed++
			}
		}
		return allowed
	}
	if got := admitted(3); got != 3 {
		t.Errorf("admitted %d, want 3", got)
	}
	clock.Advance(time.Minute) // 2 units are left over, and must not be spent
	if got := admitted(40); got != 12 {
		t.Errorf("admitted %d in the second window, want 12", got)
	}
	many, err := p.(service.BatchChecker).CheckMany(t.Context(), []string{"k", "l", "l"}, 1)
	if err != nil || len(many) != 3 || many[0].Allowed || !many[1].Allowed || many[1].Remaining+many[2].Remaining != 4+3 {
		t.Errorf("got %+v, %v", many, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.(service.Checker).Check(t.Context(), "k", 1); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v after Close, want ErrClosed", err)
	}
}

// What a policy holds goes back when it closes, so the next process finds the budget as it is.
func TestClosingGivesBack(t *testing.T) {
	t.Parallel()
	for name, block := range map[string]string{"twoTier": "twoTier: {batch: 10, windowCoupled: true}", "federated": "federated: {batch: 10}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newKeys(t)
			for i := range 12 {
				p := build(t, "limiters: {p: {"+window+block+"}}", policy.Env{Store: store})[0]
				if d, err := p.(service.Checker).Check(t.Context(), "k", 1); err != nil || !d.Allowed {
					t.Errorf("process %d: got %+v, %v", i, d, err)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
			p := build(t, "limiters: {p: {"+window+block+"}}", policy.Env{Store: store})[0]
			if d, err := p.(service.Checker).Check(t.Context(), "k", 1); err != nil || d.Allowed {
				t.Errorf("got %+v, %v, want a denial", d, err)
			}
			if err := p.Close(); err != nil || store.closed {
				t.Errorf("got %v, closed %v; a shared store must stay open", err, store.closed)
			}
		})
	}
}

// Two servers on one coordinator: 20 alternating checks admit the limit of 5.
func TestFederatedServersShareABudget(t *testing.T) {
	t.Parallel()
	store := newKeys(t)
	var servers [2]service.Policy
	for i := range servers {
		text := "limiters: {p: {strategy: fixedWindow, limit: 5, period: 1m, federated: {batch: 1}}}"
		servers[i] = build(t, text, policy.Env{Store: store})[0]
		t.Cleanup(func() { _ = servers[i].Close() })
	}
	allowed := 0
	for i := range 20 {
		d, err := servers[i%2].(service.Checker).Check(t.Context(), "k", 1)
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed {
			allowed++
		} else if d.RetryAfterMillis <= 0 || d.Limit != 5 {
			t.Errorf("got %+v", d)
		}
	}
	if allowed != 5 {
		t.Errorf("admitted %d, want 5", allowed)
	}
	if store.seen[0] != "tk:fed:k" {
		t.Errorf("got key %q, want tk:fed:k", store.seen[0])
	}
}

// Reserve lends what is there, and what checks have taken is not.
func TestFederatedReserve(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := build(t, "limiters: {p: {strategy: fixedWindow, limit: 5, period: 1m, federated: {batch: 1, prefix: f}}}", policy.Env{Store: store})[0]
	defer p.Close()
	reserve := func(wants, units, resetAt int64, resetsIn time.Duration) {
		t.Helper()
		g, err := p.(service.Reserver).Reserve(t.Context(), "k", wants)
		want := lease.Grant{Limit: 5, Units: units, ResetAtMillis: resetAt, ResetsIn: resetsIn, Lasts: resetsIn}
		if units == 0 {
			want = lease.Grant{Limit: 5, Denial: throttlekit.Decision{Limit: 5, ResetAtMillis: resetAt, RetryAfterMillis: resetsIn.Milliseconds()}}
		}
		if err != nil || g != want {
			t.Errorf("wants %d: got %+v, %v\nwant %+v", wants, g, err, want)
		}
	}
	reserve(3, 3, 60_000, time.Minute)
	clock.Advance(time.Second)
	if d, err := p.(service.Checker).Check(t.Context(), "k", 1); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
	reserve(throttlekit.MaxSafe, 1, 60_000, 59*time.Second)
	reserve(1, 0, 60_000, 59*time.Second)
	clock.Set(60_000)
	reserve(1, 1, 120_000, time.Minute)
}

func TestFederatedNeedsAStore(t *testing.T) {
	t.Parallel()
	f, err := policy.Parse("p.yaml", []byte("limiters:\n  p: {"+window+"federated: {}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Build(policy.Env{})
	const want = "p.yaml:2:3: limiters.p: cannot be built: a federated policy needs a shared coordinator store, such as Redis or PostgreSQL"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLeasingWarnings(t *testing.T) {
	t.Parallel()
	f, err := policy.Parse("p.yaml", []byte(`limiters:
  a: {strategy: fixedWindow, limit: 5, period: 1s, federated: {}}
  b: {strategy: fixedWindow, limit: 5, period: 1s, federated: {}}
  c: {strategy: fixedWindow, limit: 5, period: 1s, federated: {prefix: c}}
  d: {strategy: slidingWindow, limit: 5, period: 1s, federated: {prefix: c}}
  e: {strategy: fixedWindow, limit: 6, period: 1s, federated: {prefix: c}}
  f: {strategy: gcra, limit: 100, period: 1s, prefix: f}
  g: {strategy: gcra, limit: 100, period: 1s, prefix: f, twoTier: {batch: 2}}
  h: {strategy: gcra, limit: 100, period: 1s, prefix: f, twoTier: {batch: 2, expireAfter: 10ms}}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, 0, 3)
	for _, w := range f.Warnings() {
		got = append(got, w.String())
	}
	want := []string{
		`p.yaml:3:3: limiters.b: shares the prefix "tk:fed" with limiters.a, and so each key's budget; give each its own prefix in federated`,
		`p.yaml:6:3: limiters.e: shares the prefix "c" with limiters.c, but not its strategy; give each its own prefix`,
		`p.yaml:9:3: limiters.h: shares the prefix "f" with limiters.f, but not its strategy; give each its own prefix`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A manual clock far in the future does not overflow what leases last by.
func TestLeasingInTheFarFuture(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(math.MaxInt64)
	p := build(t, "limiters: {p: {"+window+"twoTier: {batch: 5}}}", policy.Env{Clock: clock})[0]
	defer p.Close()
	if d, err := p.(service.Checker).Check(t.Context(), "k", 1); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
}

// More keys than the table holds, again and again: what is evicted is lost, and no budget opens anew.
func TestMoreKeysThanTheTableHolds(t *testing.T) {
	t.Parallel()
	for name, block := range map[string]string{
		"twoTier": "twoTier: {batch: 5, maxKeys: 32, windowCoupled: true}", "federated": "federated: {batch: 5, maxKeys: 32}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := build(t, "limiters: {p: {"+window+block+"}}", policy.Env{Store: newKeys(t)})[0]
			admitted := map[string]int{}
			for range 20 {
				for i := range 500 {
					key := strconv.Itoa(i)
					d, err := p.(service.Checker).Check(t.Context(), key, 1)
					if err != nil {
						t.Fatal(err)
					}
					if d.Allowed {
						admitted[key]++
					}
				}
			}
			for key, n := range admitted {
				if n < 1 || n > 12 {
					t.Errorf("%s admitted %d, limit 12", key, n)
				}
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFederatedOnAFullStore(t *testing.T) {
	t.Parallel()
	full, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{MaxKeys: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	p := build(t, "limiters: {p: {"+window+"federated: {batch: 5}}}", policy.Env{Store: full})[0]
	defer p.Close()
	if g, err := p.(service.Reserver).Reserve(t.Context(), "a", 1); err != nil || g.Units != 1 {
		t.Errorf("got %+v, %v", g, err)
	}
	if _, err := p.(service.Reserver).Reserve(t.Context(), "b", 1); !errors.Is(err, throttlekit.ErrStoreFull) {
		t.Errorf("got %v, want ErrStoreFull", err)
	}
	if d, err := p.(service.Checker).Check(t.Context(), "b", 1); err != nil || d.Allowed {
		t.Errorf("got %+v, %v, want a denial", d, err)
	}
}

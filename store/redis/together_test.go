package redisstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// TestTogetherAgreesWithMemory runs All and Any over random mixtures of strategies, some of
// which have no script, on Redis and in memory.
func TestTogetherAgreesWithMemory(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	t.Cleanup(flushAllTheTime(t, server))
	var count, all, allowed, custom atomic.Int64
	inParallel(t, checks()/timelineLength/2, func(n int) error {
		r := rand.New(rand.NewPCG(*seed<<8|77, uint64(n)))
		return runTogether(t, server, r, &count, &all, &allowed, &custom)
	})
	t.Logf("%d atomic batches equal: %d All, %d allowed, %d with a transition that has no script",
		count.Load(), all.Load(), allowed.Load(), custom.Load())
}

func runTogether(t *testing.T, server *redistest.Server, r *pick, count, all, allowed, custom *atomic.Int64) error {
	t.Helper()
	clock := throttlekit.NewManualClock(base)
	memory, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
	var ops []throttlekit.Op
	var limits []float64
	hasCustom := false
	for i := range 1 + r.IntN(5) {
		transition, limit := someTransition(r)
		_, scripted := transition.(throttlekit.Rule)
		hasCustom = hasCustom || !scripted
		ops, limits = append(ops, throttlekit.Op{Key: fmt.Sprint("k", i), Transition: transition}), append(limits, limit)
	}
	var history strings.Builder
	now := int64(base)
	for range timelineLength {
		commit := oneOf(r, throttlekit.CommitAll, throttlekit.CommitAny)
		for i := range ops {
			ops[i].Cost = min(5000, someCost(r, limits[i], true))
		}
		clock.Set(now)
		fmt.Fprintf(&history, "\n%d %v %+v", now, commit, ops)
		want, wantErr := memory.Batch(t.Context(), ops, commit)
		got, gotErr := store.Batch(t.Context(), ops, commit)
		if wantErr != nil || gotErr != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%s\ngot %+v, want %+v, errors %v %v", &history, got, want, gotErr, wantErr) //nolint:errorlint // may be nil
		}
		count.Add(1)
		if commit == throttlekit.CommitAll {
			all.Add(1)
		}
		if hasCustom {
			custom.Add(1)
		}
		if allow(want, commit) {
			allowed.Add(1)
		}
		now = max(now, step(r, now, time.Second))
	}
	return nil
}

// someTransition is mostly a strategy that has a script.
func someTransition(r *pick) (throttlekit.Transition, float64) {
	for {
		if r.IntN(6) == 0 {
			limit := float64(1 + r.IntN(30))
			return tally{limit: limit, ttl: 1 << 40}, limit
		}
		strategy, limit, _ := generators[r.IntN(len(generators))].make(r)
		transition := transitionOf(strategy)
		if rule, ok := transition.(throttlekit.Rule); ok && r.IntN(8) == 0 {
			return &double{rule}, limit
		}
		if transition != nil {
			return transition, limit
		}
	}
}

func allow(decisions []throttlekit.Decision, commit throttlekit.Commit) bool {
	for _, d := range decisions {
		if d.Allowed != (commit == throttlekit.CommitAll) {
			return d.Allowed
		}
	}
	return commit == throttlekit.CommitAll
}

// TestTogetherKeepsLayouts makes sure that a key charged in a batch is the same as one charged alone.
func TestTogetherKeepsLayouts(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(base)
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Clock: clock, TTLFloor: far})
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 60 {
		transition, _ := someTransition(r)
		for _, cost := range []float64{1, 0.5, 2} {
			alone := throttlekit.Op{Key: fmt.Sprint("alone", i), Transition: transition, Cost: cost}
			together := alone
			together.Key = fmt.Sprint("together", i)
			a, err := store.Apply(t.Context(), alone.Key, transition, cost)
			if err != nil {
				t.Fatal(err)
			}
			b, err := store.Batch(t.Context(), []throttlekit.Op{together}, oneOf(r, throttlekit.CommitAll, throttlekit.CommitAny))
			if err != nil || b[0] != a {
				t.Fatalf("%+v: %+v alone, %+v together, error %v", transition, a, b, err)
			}
			clock.Advance(10 * time.Millisecond)
		}
		a, b := look(t, prefix+":"+fmt.Sprint("alone", i)), look(t, prefix+":"+fmt.Sprint("together", i))
		if a.kind != b.kind || fmt.Sprint(a.texts) != fmt.Sprint(b.texts) || b.ttl-a.ttl > 1000 || a.ttl-b.ttl > 1000 {
			t.Errorf("%+v: alone %+v, together %+v", transition, a, b)
		}
	}
}

func TestTogetherRefusesOneKeyTwice(t *testing.T) {
	t.Parallel()
	store := open(t, shared.URL(), redisstore.Config{})
	op := throttlekit.Op{Key: "k", Transition: ruleOf(t, throttlekit.GCRA{Limit: 5, Period: time.Second}), Cost: 1}
	for _, commit := range []throttlekit.Commit{throttlekit.CommitAll, throttlekit.CommitAny} {
		if _, err := store.Batch(t.Context(), []throttlekit.Op{op, op}, commit); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Error(err)
		}
		if d, err := store.Batch(t.Context(), nil, commit); len(d) != 0 || err != nil {
			t.Error(d, err)
		}
	}
	if _, err := store.Batch(t.Context(), []throttlekit.Op{op}, 9); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Error(err)
	}
}

// TestAllIsExactUnderConcurrency charges two limits together and one of them alone, from many
// goroutines: neither may admit more than it has, and a denial by one must not charge the other.
func TestAllIsExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]throttlekit.Transition{
		"scripts": ruleOf(t, throttlekit.FixedWindow{Limit: 30, Window: time.Hour * 24 * 365}), "custom": tally{limit: 30, ttl: 1e6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t, shared.URL(), redisstore.Config{})
			first := ruleOf(t, throttlekit.TokenBucket{Capacity: 50, RefillPerSec: 1e-6})
			ops := []throttlekit.Op{{Key: "a", Transition: first, Cost: 1}, {Key: "b", Transition: second, Cost: 1}}
			var admitted atomic.Int64
			var group sync.WaitGroup
			for range 100 {
				group.Go(func() {
					d, err := store.Batch(t.Context(), ops, throttlekit.CommitAll)
					if err != nil {
						t.Error(err)
					} else if allow(d, throttlekit.CommitAll) {
						admitted.Add(1)
					}
				})
			}
			group.Wait()
			if n := admitted.Load(); n != 30 {
				t.Errorf("admitted %d of 30", n)
			}
			rec, now, err := store.Load(t.Context(), "a", first)
			if err != nil || first.Peek(rec, now).Remaining != 20 {
				t.Errorf("the first limit has %+v left, %v", first.Peek(rec, now), err)
			}
		})
	}
}

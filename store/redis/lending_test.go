package redisstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// The proof of dualpath_test.go for what the core makes out of a rule: charging as much as
// fits, and giving back.

// lentTotals is what a proof has seen.
type lentTotals struct{ lent, part, denied, refunded, refused atomic.Int64 }

// TestLendingAgreesWithCore mixes leases, refunds where a rule has them, and plain checks on one record.
func TestLendingAgreesWithCore(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	stop := flushAllTheTime(t, server)
	t.Cleanup(stop)
	for i, g := range generators {
		if g.name == "leakyBucket" {
			continue // it is no rule
		}
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			var totals lentTotals
			shares := 1 // of the steps that are leases, or refunds
			if g.name == "fixedWindow" || g.name == "quota" {
				shares = 2
			}
			inParallel(t, shares*checks()*5/4/timelineLength, func(n int) error {
				r := rand.New(rand.NewPCG(*seed<<8|uint64(100+i), uint64(n)))
				return runLending(t, server, g, r, &totals)
			})
			leases := totals.lent.Load() + totals.part.Load() + totals.denied.Load()
			t.Logf("equal in every field: %d leases, %d of them of a part and %d denied; %d refunds, %d of them refused",
				leases, totals.part.Load(), totals.denied.Load(), totals.refunded.Load()+totals.refused.Load(), totals.refused.Load())
			fair := totals.lent.Load() > leases/20 && totals.part.Load() > leases/20 && totals.denied.Load() > leases/20
			if shares > 1 {
				fair = fair && totals.refunded.Load() > leases/20 && totals.refused.Load() > leases/20
			}
			if !fair {
				t.Error("this is no fair test")
			}
		})
	}
}

func runLending(t *testing.T, server *redistest.Server, g generator, r *pick, totals *lentTotals) error {
	t.Helper()
	var rule throttlekit.Rule
	var limit float64
	var width time.Duration
	for rule == nil {
		var s throttlekit.Strategy
		s, limit, width = g.make(r)
		rule, _ = s.Rule()
	}
	clock := throttlekit.NewManualClock(0)
	store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
	var rec throttlekit.Record
	var last throttlekit.Decision
	var history strings.Builder
	now := someStart(r)
	for i := range timelineLength {
		clock.Set(now)
		transition, cost := lending(r, g, rule, limit, last)
		fmt.Fprintf(&history, "\n%d %s %+v %v", now, transition.Name(), transition, cost)
		if i%10 == 7 {
			if err := compareViews(t, store, rule, rec, now, cost); err != nil {
				return fmt.Errorf("%+v after%s: %w", rule.Strategy(), &history, err)
			}
		}
		next, want, ttl := transition.Apply(rec, now, cost)
		got, err := store.Apply(t.Context(), "k", transition, cost)
		if err != nil || got != want {
			return fmt.Errorf("%+v after%s: got %+v, want %+v, error %v", rule.Strategy(), &history, got, want, err) //nolint:errorlint // may be nil
		}
		if ttl > 0 {
			rec = next
		}
		totals.count(transition.Name(), want, cost)
		last = want
		now = step(r, now, width)
	}
	return nil
}

// lending is the next operation on a record: a lease in most cases.
func lending(r *pick, g generator, rule throttlekit.Rule, limit float64, last throttlekit.Decision) (throttlekit.Transition, float64) {
	cost := max(1, float64(int64(someCost(r, limit, true))))
	if r.IntN(3) == 0 {
		cost = float64(1 + r.Int64N(max(1, int64(min(limit, 1e15)))))
	}
	if g.most > 0 {
		cost = min(cost, max(g.most, limit+1))
	}
	windowed, ok := rule.(throttlekit.Windowed)
	switch {
	case ok && r.IntN(2) == 0:
		reset := oneOf(r, last.ResetAtMillis, last.ResetAtMillis, last.ResetAtMillis, last.ResetAtMillis+1, 0)
		return windowed.Refund(reset), oneOf(r, cost, float64(1+r.IntN(3)), 0.5)
	case r.IntN(8) == 0:
		return rule, cost
	default:
		least := oneOf(r, 1, 1, cost, float64(1+r.Int64N(int64(cost))))
		return throttlekit.UpTo(rule, least), cost
	}
}

func (l *lentTotals) count(name string, d throttlekit.Decision, cost float64) {
	switch {
	case strings.HasPrefix(name, "refund:") && d.Allowed:
		l.refunded.Add(1)
	case strings.HasPrefix(name, "refund:"):
		l.refused.Add(1)
	case !strings.HasPrefix(name, "upTo:"):
	case !d.Allowed:
		l.denied.Add(1)
	case float64(d.Remaining) < cost:
		l.part.Add(1)
	default:
		l.lent.Add(1)
	}
}

// TestLendingInBatches: what has a script of its own runs in pipelines, and is refused in atomic batches.
func TestLendingInBatches(t *testing.T) {
	t.Parallel()
	store := open(t, shared.URL(), redisstore.Config{Prefix: freshPrefix()})
	window := ruleOf(t, throttlekit.FixedWindow{Limit: 10, Window: 87600 * time.Hour})
	windowed, ok := window.(throttlekit.Windowed)
	if !ok {
		t.Fatal("a fixed window is not Windowed")
	}
	_, now, err := store.Load(t.Context(), "k", window)
	if err != nil {
		t.Fatal(err)
	}
	refund := windowed.Refund(window.Peek(throttlekit.Record{}, now).ResetAtMillis)
	ops := []throttlekit.Op{
		{Key: "k", Transition: throttlekit.UpTo(window, 1), Cost: 8},
		{Key: "k", Transition: throttlekit.UpTo(window, 1), Cost: 8},
		{Key: "k", Transition: refund, Cost: 3},
		{Key: "k", Transition: throttlekit.UpTo(window, 4), Cost: 8},
		{Key: "other", Transition: throttlekit.UpTo(tallyRule{window}, 1), Cost: 1},
	}
	decisions, err := store.Batch(t.Context(), ops, throttlekit.CommitEach)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		allowed   bool
		remaining int64
	}{{true, 8}, {true, 2}, {true, 3}, {false, 3}, {true, 1}} {
		if d := decisions[i]; d.Allowed != want.allowed || d.Remaining != want.remaining {
			t.Errorf("op %d: %+v, want %+v", i, d, want)
		}
	}
	for _, op := range ops[2:4] {
		for _, commit := range []throttlekit.Commit{throttlekit.CommitAll, throttlekit.CommitAny} {
			_, err := store.Batch(t.Context(), []throttlekit.Op{{Key: "plain", Transition: window, Cost: 1}, op}, commit)
			if !errors.Is(err, throttlekit.ErrUnsupported) || !strings.Contains(fmt.Sprint(err), op.Transition.Name()) {
				t.Errorf("%s in an atomic batch: %v", op.Transition.Name(), err)
			}
		}
	}
	rec, now, err := store.Load(t.Context(), "k", ops[0].Transition)
	if err != nil || window.Peek(rec, now).Remaining != 3 {
		t.Errorf("loaded %+v, %v", rec, err)
	}
	if err := second(store.Apply(t.Context(), "k", windowed.Refund(decisions[0].ResetAtMillis), 100)); err != nil {
		t.Fatal(err)
	}
	rec, _, err = store.Load(t.Context(), "k", window)
	if err != nil || rec != (throttlekit.Record{}) {
		t.Errorf("after all came back: %+v, %v", rec, err)
	}
}

// tallyRule embeds a rule of the core, so that it runs in the client, as text.
type tallyRule struct{ throttlekit.Rule }

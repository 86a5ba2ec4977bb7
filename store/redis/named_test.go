package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// The proof of dualpath_test.go for transitions of other packages, which scripts know by name.

// federated is a coordinator's two transitions.
type federated struct {
	coordinator *lease.Coordinator
	caught      *catch
	// limit and width are those of its windows.
	limit int64
	width time.Duration
}

func federate(limit int64, width time.Duration) (f federated, err error) {
	f = federated{caught: &catch{}, limit: limit, width: width}
	f.coordinator, err = lease.NewCoordinator(lease.CoordinatorConfig{
		Strategy: throttlekit.FixedWindow{Limit: float64(limit), Window: width}, Store: f.caught,
	})
	return f, err
}

func (f federated) lease(least int64) throttlekit.Transition {
	_, _ = f.coordinator.Lease(context.Background(), "k", least, least)
	return f.caught.transition
}

func (f federated) giveBack(resetAt int64) throttlekit.Transition {
	_ = f.coordinator.Return(context.Background(), "k", 1, resetAt)
	return f.caught.transition
}

func TestFederationAgreesWithCore(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	stop := flushAllTheTime(t, server)
	t.Cleanup(stop)
	var totals lentTotals
	var back atomic.Int64
	inParallel(t, 2*checks()*5/4/timelineLength, func(n int) error {
		return runFederation(t, server, rand.New(rand.NewPCG(*seed<<8|200, uint64(n))), &totals, &back)
	})
	lent, part, denied := totals.lent.Load(), totals.part.Load(), totals.denied.Load()
	t.Logf("equal in every field: %d leases, %d of them of a part and %d denied; %d returns, %d of them refused; %d steps back",
		lent+part+denied, part, denied, totals.refunded.Load()+totals.refused.Load(), totals.refused.Load(), back.Load())
	if least := (lent + part + denied) / 20; min(lent, part, denied, totals.refunded.Load(), totals.refused.Load()) < least {
		t.Error("this is no fair test")
	}
}

func runFederation(t *testing.T, server *redistest.Server, r *pick, totals *lentTotals, back *atomic.Int64) error {
	t.Helper()
	f, err := federate(int64(max(1, someLimit(r))), someWidth(r))
	if err != nil {
		return err
	}
	clock := throttlekit.NewManualClock(0)
	store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
	var rec throttlekit.Record
	var last throttlekit.Decision
	var history strings.Builder
	now := someStart(r)
	for range timelineLength {
		clock.Set(now)
		cost := oneOf(r, 1, float64(1+r.IntN(4)), float64(f.limit), float64(1+r.Int64N(f.limit)))
		transition := f.lease(oneOf(r, 1, int64(cost), 1+r.Int64N(int64(cost))))
		if r.IntN(2) == 0 {
			transition = f.giveBack(oneOf(r, last.ResetAtMillis, last.ResetAtMillis, last.ResetAtMillis, last.ResetAtMillis+1, now))
		}
		fmt.Fprintf(&history, "\n%d %s %v, last reset %d", now, transition.Name(), cost, last.ResetAtMillis)
		next, want, ttl := transition.Apply(rec, now, cost)
		got, err := store.Apply(t.Context(), "k", transition, cost)
		if err != nil || got != want {
			return fmt.Errorf("%d in %v after%s: got %+v, want %+v, error %v", f.limit, f.width, &history, got, want, err) //nolint:errorlint // may be nil
		}
		if ttl > 0 {
			rec = next
		}
		totals.count(map[bool]string{true: "upTo:", false: "refund:"}[transition.Name() == "federationLease"], want, cost)
		last = want
		then := now
		if now = step(r, now, f.width); now < then {
			back.Add(1)
		}
	}
	return nil
}

// TestFederationLayout holds the record to what other implementations read and write.
func TestFederationLayout(t *testing.T) {
	t.Parallel()
	conn, prefix := dial(t, shared), freshPrefix()
	f, err := federate(10, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	clock := throttlekit.NewManualClock(90_000)
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Clock: clock})
	apply := func(transition throttlekit.Transition, cost float64, want throttlekit.Decision) {
		t.Helper()
		if got, err := store.Apply(t.Context(), "k", transition, cost); err != nil || got != want {
			t.Errorf("got %+v, want %+v, error %v", got, want, err)
		}
	}
	holds := func(want string) {
		t.Helper()
		if got := fmt.Sprint(do(t, conn, "HGETALL", prefix+":k")); got != want {
			t.Errorf("the hash holds %s, want %s", got, want)
		}
	}
	granted := func(n, reset, wait int64) throttlekit.Decision {
		return throttlekit.Decision{Allowed: n > 0, Limit: 10, Remaining: n, ResetAtMillis: reset, RetryAfterMillis: wait}
	}
	apply(f.lease(1), 4, granted(4, 120_000, 30_000))
	holds("[budget 6 expiresAt 120000]")
	if ttl, ok := do(t, conn, "PTTL", prefix+":k").(int64); !ok || ttl > 30_000 || ttl < 10_000 {
		t.Errorf("it lives for %d ms, want 30,000 at first", ttl)
	}
	apply(f.lease(1), 9, granted(6, 120_000, 30_000))
	apply(f.lease(1), 1, granted(0, 120_000, 30_000))
	apply(f.giveBack(120_000), 3, throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 3, ResetAtMillis: 120_000})
	holds("[budget 3 expiresAt 120000]")
	do(t, conn, "HSET", prefix+":k", "other", "1")
	apply(f.lease(1), 1, granted(1, 120_000, 30_000))
	holds("[budget 2 expiresAt 120000 other 1]")
	clock.Set(10_000) // windows only roll forward
	apply(f.lease(1), 1, granted(1, 120_000, 110_000))
	clock.Set(120_000)
	apply(f.giveBack(120_000), 3, throttlekit.Decision{Limit: 10, Remaining: 10, ResetAtMillis: 180_000, RetryAfterMillis: 1})
	holds("[budget 1 expiresAt 120000 other 1]")
	apply(f.lease(1), 2, granted(2, 180_000, 60_000))
	holds("[budget 8 expiresAt 180000]")
}

// TestNamedScripts: only transitions that this project has declared run as the script of their name.
func TestNamedScripts(t *testing.T) {
	t.Parallel()
	store := open(t, shared.URL(), redisstore.Config{Prefix: freshPrefix()})
	f, err := federate(10, 87600*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	inner, ok := f.lease(1).(throttlekit.Parameterized)
	if !ok {
		t.Fatal("a lease names no parameters")
	}
	ops := []throttlekit.Op{{Key: "k", Transition: inner, Cost: 4}, {Key: "k", Transition: inner, Cost: 9}}
	decisions, err := store.Batch(t.Context(), ops, throttlekit.CommitEach)
	if err != nil || decisions[0].Remaining != 4 || decisions[1].Remaining != 6 {
		t.Errorf("a batch got %+v, %v", decisions, err)
	}
	refusals := map[string]error{"Load": func() error { _, _, err := store.Load(t.Context(), "k", inner); return err }()}
	for _, commit := range []throttlekit.Commit{throttlekit.CommitAll, throttlekit.CommitAny} {
		refusals[fmt.Sprint("Batch ", commit)] = second(store.Batch(t.Context(), ops[:1], commit))
	}
	for what, err := range refusals {
		if !errors.Is(err, throttlekit.ErrUnsupported) || !strings.Contains(fmt.Sprint(err), "federationLease") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A type without a name belongs to no package, whatever it embeds; it runs in the client, on text.
	foreign := struct{ throttlekit.Parameterized }{inner}
	if _, err := store.Apply(t.Context(), "foreign", foreign, 1); err != nil {
		t.Error(err)
	}
	if _, now, err := store.Load(t.Context(), "foreign", foreign); err != nil || now == 0 {
		t.Errorf("what the client has written: %v", err)
	}
	if _, err := store.Apply(t.Context(), "foreign", inner, 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("a lease on a text: %v", err)
	}
}

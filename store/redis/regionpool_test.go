package redisstore_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/fair"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

func pool(tb testing.TB, config fair.PoolConfig) *fair.RegionPool {
	tb.Helper()
	p, err := fair.NewRegionPool(config)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// TestRegionPoolAgreesWithCore runs random grants and returns of many pools through the
// script and through the transition. Every field must be equal.
func TestRegionPoolAgreesWithCore(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	stop := flushAllTheTime(t, server)
	t.Cleanup(stop)
	var count, denied, grown, returned atomic.Int64
	inParallel(t, checks()/timelineLength, func(n int) error {
		r := rand.New(rand.NewPCG(*seed<<8|99, uint64(n)))
		width := someWidth(r)
		p, err := fair.NewRegionPool(fair.PoolConfig{Limit: 1 + someLimit(r), Window: width, MaxRegions: oneOf(r, 1, 3, 5, 0)})
		if err != nil {
			return nil //nolint:nilerr // a limit beyond the largest; the next pool has another
		}
		clock := throttlekit.NewManualClock(0)
		store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
		var rec throttlekit.Record
		var history strings.Builder
		now := someStart(r)
		last := now
		for range timelineLength {
			region := oneOf(r, "eu", "us", "ap", "ws", "a b", "é", "w:x")
			cost := someCost(r, 40, false)
			var move throttlekit.Transition
			if r.IntN(6) == 0 && last > 0 {
				move, err = p.GiveBack(region, last)
				cost *= float64(r.IntN(3)) // often none, which gives back the weight alone
			} else {
				move, err = p.Grant(region, oneOf(r, 1, 2, 3, 0.1, 0.7, r.Float64()*5+1e-3, 1e6, throttlekit.MaxSafe))
			}
			if err != nil {
				return err
			}
			clock.Set(now)
			fmt.Fprintf(&history, " (%d, %v, %v)", now, move, cost)
			next, want, ttl := move.Apply(rec, now, cost)
			got, err := store.Apply(t.Context(), "k", move, cost)
			if err != nil || got != want {
				return fmt.Errorf("after%s: got %+v, want %+v, error %v", &history, got, want, err) //nolint:errorlint // may be nil
			}
			count.Add(1)
			switch {
			case !want.Allowed:
				denied.Add(1)
			case want.Remaining > 0:
				grown.Add(1)
			case ttl > 0:
				returned.Add(1)
			}
			if ttl > 0 {
				rec = next
			}
			last = want.ResetAtMillis
			now = step(r, now, width)
		}
		return nil
	})
	t.Logf("%d steps equal in every field: %d denied, %d grew, %d others wrote", count.Load(), denied.Load(), grown.Load(), returned.Load())
	if denied.Load() == 0 || grown.Load() == 0 || returned.Load() == 0 {
		t.Error("the timelines are too tame to prove anything")
	}
}

// TestRegionPoolScript holds the script to the specification's sequence and to its layout.
func TestRegionPoolScript(t *testing.T) {
	t.Parallel()
	const key = "tk:rfp:layout"
	server := start(t, redistest.Options{})
	conn := dial(t, server)
	clock := throttlekit.NewManualClock(base)
	store := sharedClientStore(t, server, redisstore.Config{Clock: clock, Timeout: patient})
	p := pool(t, fair.PoolConfig{Limit: 100, Window: time.Minute})
	for i, step := range []struct {
		region       string
		weight, want float64
		total, added int64
	}{
		{"us", 3, 10, 10, 10},
		{"eu", 1, 40, 25, 25},
		{"us", 3, 80, 75, 65},
		{"ap", 2, 30, 0, 0},
		{"eu", 1, 5, 25, 0},
		{"us", 3, 200, 75, 0},
		{"ap", 2, 60, 0, 0},
		{"eu", 1, 100, 25, 0},
		{"us", 3, 100, 75, 0},
		{"ap", 2, 100, 0, 0},
	} {
		move, err := p.Grant(step.region, step.weight)
		if err != nil {
			t.Fatal(err)
		}
		d, err := store.Apply(t.Context(), key, move, step.want)
		want := throttlekit.Decision{
			Allowed: true, Limit: step.total, Remaining: step.added, ResetAtMillis: 1_700_000_040_000, RetryAfterMillis: 40_000,
		}
		if err != nil || d != want {
			t.Errorf("step %d: got %+v, %v, want %+v", i, d, err, want)
		}
	}
	var fields []string
	for _, f := range do(t, conn, "HGETALL", key).([]any) {
		fields = append(fields, fmt.Sprint(f))
	}
	var pairs []string
	for pair := range slices.Chunk(fields, 2) {
		pairs = append(pairs, pair[0]+"="+pair[1])
	}
	slices.Sort(pairs)
	if got, want := strings.Join(pairs, " "), "g:ap=0 g:eu=25 g:us=75 w:ap=2 w:eu=1 w:us=3 ws=1699999980000"; got != want {
		t.Errorf("the hash holds %s, want %s", got, want)
	}
	if ttl, err := strconv.ParseInt(fmt.Sprint(do(t, conn, "PTTL", key)), 10, 64); err != nil || ttl > 40_000 || ttl < 10_000 {
		t.Errorf("the key lasts %d ms, want up to 40000, error %v", ttl, err)
	}
}

// TestEscrowsOnRedis has several processes' escrows check at once on one server: with leases
// of a fixed window, and with grants of a pool. No more than the limit is used, and about all of it.
func TestEscrowsOnRedis(t *testing.T) {
	t.Parallel()
	type checker interface {
		throttlekit.Checker
		Close() error
	}
	for name, start := range map[string]func(i int, store *redisstore.Store, monotonic func() time.Duration) (checker, error){
		"shared": func(_ int, store *redisstore.Store, monotonic func() time.Duration) (checker, error) {
			return fair.NewEscrow(fair.EscrowConfig{
				Limit: 50, Window: time.Minute, Store: store, Quantum: 4, Monotonic: monotonic, Timeout: patient,
			})
		},
		"federated": func(i int, store *redisstore.Store, monotonic func() time.Duration) (checker, error) {
			return fair.NewFederatedEscrow(fair.FederatedConfig{
				Region: strconv.Itoa(i), Pool: pool(t, fair.PoolConfig{Limit: 50, Window: time.Minute}), Store: store,
				Key: "tk:rfp:escrows", Monotonic: monotonic, Timeout: patient,
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := throttlekit.NewManualClock(base)
			prefix := freshPrefix()
			escrows := make([]checker, 3)
			for i := range escrows {
				store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Clock: clock})
				e, err := start(i, store, func() time.Duration { return time.Duration(clock.NowMillis()-base) * time.Millisecond })
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = e.Close() })
				escrows[i] = e
			}
			for range 3 {
				clock.Advance(time.Minute)
				var admitted atomic.Int64
				inParallel(t, 200, func(n int) error {
					d, err := escrows[n%len(escrows)].Check(t.Context(), "tenant")
					if d.Allowed {
						admitted.Add(1)
					}
					return err
				})
				least := int64(48)
				if name == "federated" {
					least = 34 // a region that comes first may take more than its share, and the others' shares stay apart
				}
				if n := admitted.Load(); n > 50 || n < least {
					t.Errorf("admitted %d of 50", n)
				}
			}
		})
	}
}

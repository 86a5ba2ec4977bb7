package redisstore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
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

// The proof that scripts and core are one: random timelines run through both, and every
// field of every decision must be equal, with the scripts forgotten in between.

// far keeps records from expiring by the server's clock, which runs on while tests tell the time.
const far = 24 * time.Hour

type pick = rand.Rand

func oneOf[T any](r *pick, values ...T) T { return values[r.IntN(len(values))] }

// someLimit is a limit of any size, mostly small so that denials are frequent.
func someLimit(r *pick) float64 {
	switch r.IntN(10) {
	case 0:
		return oneOf(r, 0.5, 2.5, 7.25, 1e6, 1e12, 1<<53-1)
	case 1:
		return r.Float64()*30 + 0.1
	default:
		return float64(1 + r.IntN(40))
	}
}

// someWidth is a duration: whole and fractional milliseconds, up to months.
func someWidth(r *pick) time.Duration {
	switch r.IntN(10) {
	case 0:
		return time.Duration(1 + r.IntN(2_000_000)) // below 2 ms, with nanoseconds
	case 1, 2:
		return time.Duration(1+r.IntN(5000))*time.Millisecond + 500*time.Microsecond
	case 3:
		return time.Duration(1+r.Int64N(int64(time.Hour))) * 24 * 60
	case 4:
		return time.Duration(1 + r.Int64N(int64(10*time.Second)))
	default:
		return time.Duration(1+r.IntN(10_000)) * time.Millisecond
	}
}

// someCost is mostly a small integer. Fractions are exact in 14 digits if the layout needs it.
func someCost(r *pick, limit float64, exact bool) float64 {
	choice := r.IntN(12)
	if exact && limit > 1e9 && choice < 2 {
		choice = 5 // a fraction beside a large count needs more than 14 digits
	}
	switch choice {
	case 0:
		return oneOf(r, 0.25, 0.5, 1.5, 2.75)
	case 1:
		if !exact {
			return oneOf(r, 0.1, 0.3, 1.1, 1e-9, math.Pi)
		}
		return 0.125
	case 2:
		return math.Max(1, math.Floor(limit)) // all at once
	case 3:
		return limit + 1
	case 4:
		return oneOf[float64](r, throttlekit.MaxSafe, 1e15, 1e9)
	default:
		return float64(1 + r.IntN(4))
	}
}

// step moves a clock irregularly: often not at all, sometimes back.
func step(r *pick, now int64, width time.Duration) int64 {
	span := max(1, width.Milliseconds())
	switch r.IntN(12) {
	case 0, 1, 2:
		return now
	case 3, 4, 5:
		return now + 1 + r.Int64N(5)
	case 6, 7:
		return now + r.Int64N(span)
	case 8:
		return now + span
	case 9:
		return now + span*2 + r.Int64N(span*3)
	case 10:
		return now - r.Int64N(span*2)
	default:
		return now + r.Int64N(max(1, span/10))
	}
}

func someStart(r *pick) int64 {
	return oneOf(r, int64(base), base, base, 0, 1, 1000, 951_782_400_000, 4_102_444_800_000, base+r.Int64N(1e11), -base)
}

type generator struct {
	name string
	// make picks parameters. The strategy may be one that the core refuses.
	make func(r *pick) (s throttlekit.Strategy, limit float64, width time.Duration)
	// exact asks for costs that 14 digits hold, which is all that the layout of sliding windows keeps.
	exact bool
	// most bounds the units that one check may charge: a log writes one member for each.
	most float64
}

var generators = []generator{
	{name: "gcra", make: func(r *pick) (throttlekit.Strategy, float64, time.Duration) {
		s := throttlekit.GCRA{Limit: someLimit(r), Period: someWidth(r), Burst: oneOf(r, 0, 1, 1+r.Float64()*20, float64(1+r.IntN(50)))}
		return s, max(s.Burst, 1), s.Period
	}},
	{name: "tokenBucket", make: func(r *pick) (throttlekit.Strategy, float64, time.Duration) {
		s := throttlekit.TokenBucket{Capacity: someLimit(r), RefillPerSec: oneOf(r, 1, 3.5, 100, r.Float64()*50+0.01, 1e-3, 1e6)}
		return s, s.Capacity, time.Duration(min(1e17, s.Capacity/s.RefillPerSec*1e9))
	}},
	{name: "fixedWindow", make: func(r *pick) (throttlekit.Strategy, float64, time.Duration) {
		s := throttlekit.FixedWindow{Limit: someLimit(r), Window: someWidth(r)}
		return s, s.Limit, s.Window
	}},
	{name: "slidingWindow", exact: true, make: func(r *pick) (throttlekit.Strategy, float64, time.Duration) {
		s := throttlekit.SlidingWindow{Limit: someLimit(r), Window: someWidth(r), Buckets: oneOf(r, 0, 1, 3, 7, 10, 60, 1+r.IntN(30))}
		return s, s.Limit, s.Window
	}},
	{name: "slidingWindowLog", most: 2000, make: func(r *pick) (throttlekit.Strategy, float64, time.Duration) {
		s := throttlekit.SlidingWindowLog{Limit: min(3000, someLimit(r)), Window: someWidth(r)}
		return s, s.Limit, s.Window
	}},
	{name: "quota", exact: true, make: func(r *pick) (throttlekit.Strategy, float64, time.Duration) {
		s := throttlekit.Quota{
			Limit: someLimit(r), Cadence: oneOf(r, throttlekit.Cadences()...), Period: someWidth(r),
			Anchor: oneOf(r, 0, 1, -12345, base, base+r.Int64N(1e10)), Buckets: oneOf(r, 0, 5),
			Offset: time.Duration(r.IntN(1681)-840) * time.Minute, WeekStart: r.IntN(8),
		}
		width := map[throttlekit.Cadence]time.Duration{
			throttlekit.CalendarMonth: 30 * 24 * time.Hour, throttlekit.CalendarWeek: 7 * 24 * time.Hour, throttlekit.CalendarDay: 24 * time.Hour,
		}[s.Cadence]
		if width == 0 {
			width = s.Period
		}
		return s, s.Limit, width
	}},
	{name: "leakyBucket", make: func(r *pick) (throttlekit.Strategy, float64, time.Duration) {
		s := throttlekit.LeakyBucket{
			RatePerSec: oneOf(r, 1, 3, 7.5, 1000, 0.01, r.Float64()*100+0.1),
			MaxQueue:   oneOf(r, 0, time.Duration(r.IntN(5000))*time.Millisecond, 333*time.Microsecond, someWidth(r)),
		}
		return shaped{s}, 3, max(time.Millisecond, s.MaxQueue)
	}},
}

// shaped passes for a strategy, so that one proof serves the leaky bucket too.
type shaped struct{ throttlekit.LeakyBucket }

func (shaped) Rule() (throttlekit.Rule, error) {
	return nil, errors.New("only a Shaper has its transition")
}

// transitionOf is the transition of a strategy, or nil if the core refuses it.
func transitionOf(s throttlekit.Strategy) throttlekit.Transition {
	bucket, ok := s.(shaped)
	if !ok {
		rule, err := s.Rule()
		if err != nil {
			return nil
		}
		return rule
	}
	var caught catch
	shaper, err := throttlekit.NewShaper(bucket.LeakyBucket, throttlekit.WithStore(&caught))
	if err != nil {
		return nil
	}
	_, _ = shaper.Reserve(context.Background(), "k", 1)
	return caught.transition
}

// catch is a store that only keeps the transition it is shown.
type catch struct {
	throttlekit.Store

	transition throttlekit.Transition
}

func (c *catch) Apply(_ context.Context, _ string, t throttlekit.Transition, _ float64) (throttlekit.Decision, error) {
	c.transition = t
	return throttlekit.Decision{}, nil
}

// checks is how many random checks each strategy gets.
func checks() int {
	if testing.Short() {
		return *moreChecks / 6
	}
	return *moreChecks / slow
}

var (
	moreChecks = flag.Int("checks", 24_000, "random checks for each strategy")
	seed       = flag.Uint64("seed", 1, "seed of the random checks")
)

const timelineLength = 60

// TestScriptsAgreeWithCore is the proof for each strategy.
func TestScriptsAgreeWithCore(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	stop := flushAllTheTime(t, server)
	t.Cleanup(stop)
	for i, g := range generators {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			var count, allowed, back atomic.Int64
			inParallel(t, checks()/timelineLength, func(n int) error {
				r := rand.New(rand.NewPCG(*seed<<8|uint64(i), uint64(n)))
				return runTimeline(t, server, g, r, &count, &allowed, &back)
			})
			t.Logf("%d checks equal in every field: %d allowed, %d after a step back", count.Load(), allowed.Load(), back.Load())
		})
	}
}

// flushAllTheTime makes the server forget its scripts every few milliseconds.
func flushAllTheTime(t *testing.T, server *redistest.Server) (stop func()) {
	t.Helper()
	conn := dial(t, server)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				if _, err := conn.Do(ctx, "SCRIPT", "FLUSH"); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

// inParallel runs n tasks on a few goroutines, whose calls the client pipelines.
func inParallel(t *testing.T, n int, task func(int) error) {
	t.Helper()
	const workers = 24
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || t.Failed() {
					return
				}
				if err := task(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func runTimeline(t *testing.T, server *redistest.Server, g generator, r *pick, count, allowed, back *atomic.Int64) error {
	t.Helper()
	var strategy throttlekit.Strategy
	var transition throttlekit.Transition
	var limit float64
	var width time.Duration
	for transition == nil {
		strategy, limit, width = g.make(r)
		transition = transitionOf(strategy)
	}
	clock := throttlekit.NewManualClock(0)
	store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
	var rec throttlekit.Record
	var history strings.Builder
	now := someStart(r)
	for i := range timelineLength {
		cost := someCost(r, limit, g.exact)
		if g.most > 0 {
			cost = min(cost, max(g.most, limit+1))
		}
		clock.Set(now)
		fmt.Fprintf(&history, " (%d, %v)", now, cost)
		if i%10 == 7 {
			if err := compareViews(t, store, transition, rec, now, cost); err != nil {
				return fmt.Errorf("%+v after%s: %w", strategy, &history, err)
			}
		}
		next, want, _ := transition.Apply(rec, now, cost)
		got, err := store.Apply(t.Context(), "k", transition, cost)
		if err != nil || got != want {
			return fmt.Errorf("%+v after%s: got %+v, want %+v, error %v", strategy, &history, got, want, err) //nolint:errorlint // may be nil
		}
		count.Add(1)
		if want.Allowed {
			rec = next
			allowed.Add(1)
		}
		then := now
		if now = step(r, now, width); now < then {
			back.Add(1)
		}
	}
	return nil
}

// compareViews compares what a record says that was stored with what it says here.
func compareViews(t *testing.T, store *redisstore.Store, transition throttlekit.Transition, rec throttlekit.Record, now int64, cost float64) error {
	t.Helper()
	loaded, at, err := store.Load(t.Context(), "k", transition)
	if err != nil || at != now {
		return fmt.Errorf("load at %d: error %v", at, err) //nolint:errorlint // may be nil
	}
	rule, ok := transition.(throttlekit.Rule)
	if !ok {
		if loaded.A != rec.A {
			return fmt.Errorf("record %+v, want %+v", loaded, rec)
		}
		return nil
	}
	if got, want := rule.Peek(loaded, now), rule.Peek(rec, now); got != want {
		return fmt.Errorf("peek: got %+v, want %+v, record %+v, want %+v", got, want, loaded, rec)
	}
	if got, want := rule.Forecast(loaded, now, cost), rule.Forecast(rec, now, cost); got != want {
		return fmt.Errorf("forecast: got %+v, want %+v", got, want)
	}
	return nil
}

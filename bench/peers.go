package main

import (
	"context"
	"errors"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
)

// Peers are set up as their documentation has it for one process, with limits that a run does not reach, and asked in
// the way that leaves them the least to do.

const (
	aDay   = 24 * time.Hour // a window that does not end during a run
	plenty = 1 << 40        // more than a run asks for
)

// goLimiter is sethvargo/go-limiter: a token bucket that refills in whole intervals.
func goLimiter(w workload) measure.Contestant {
	const name = "go-limiter"
	store, err := memorystore.New(&memorystore.Config{Tokens: plenty, Interval: aDay})
	if err != nil {
		return broken(name, err)
	}
	ctx := context.Background()
	run := func(ops int, keys []string) error {
		for i := 0; ops > 0; ops-- {
			if _, _, _, ok, err := store.Take(ctx, keys[i]); err != nil || !ok {
				return errors.Join(err, errDenied)
			}
			if i++; i == len(keys) {
				i = 0
			}
		}
		return nil
	}
	return contest(name, w, run, func() { _ = store.Close(ctx) })
}

// throttledGCRA is throttled/throttled: GCRA over its unbounded memory store.
func throttledGCRA(w workload) measure.Contestant {
	const (
		name        = "throttled"
		unbounded   = 0
		casAttempts = 1 << 20 // by default it gives up after 10, as it then does with two goroutines on one key
	)
	store, err := memstore.NewCtx(unbounded)
	if err != nil {
		return broken(name, err)
	}
	l, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerSec(1000), MaxBurst: 1e9})
	if err != nil {
		return broken(name, err)
	}
	l.SetMaxCASAttemptsLimit(casAttempts)
	ctx := context.Background()
	run := func(ops int, keys []string) error {
		for i := 0; ops > 0; ops-- {
			if limited, _, err := l.RateLimitCtx(ctx, keys[i], 1); err != nil || limited {
				return errors.Join(err, errDenied)
			}
			if i++; i == len(keys) {
				i = 0
			}
		}
		return nil
	}
	return contest(name, w, run, nil)
}

// ululeWindow is ulule/limiter: a fixed window over its memory store.
func ululeWindow(w workload) measure.Contestant {
	const name = "ulule/limiter"
	l := ulule.New(ululememory.NewStore(), ulule.Rate{Period: aDay, Limit: plenty})
	ctx := context.Background()
	run := func(ops int, keys []string) error {
		for i := 0; ops > 0; ops-- {
			if c, err := l.Get(ctx, keys[i]); err != nil || c.Reached {
				return errors.Join(err, errDenied)
			}
			if i++; i == len(keys) {
				i = 0
			}
		}
		return nil
	}
	return contest(name, w, run, nil)
}

// rateInMap is golang.org/x/time/rate, a token bucket for one key, in the fastest concurrent map for many.
func rateInMap(w workload) measure.Contestant {
	const name = "x/time/rate in xsync.Map"
	m := xsync.NewMap[string, *rate.Limiter]()
	run := func(ops int, keys []string) error {
		for i := 0; ops > 0; ops-- {
			l, known := m.Load(keys[i])
			if !known {
				l, _ = m.LoadOrStore(keys[i], rate.NewLimiter(rate.Every(time.Minute), plenty))
			}
			if !l.Allow() {
				return errDenied
			}
			if i++; i == len(keys) {
				i = 0
			}
		}
		return nil
	}
	return contest(name, w, run, nil)
}

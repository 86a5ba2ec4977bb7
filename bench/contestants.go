package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
)

// errDenied stops a contestant that should admit everything: a denial is cheaper than what is to be measured.
var errDenied = errors.New("it denied a request that fits")

// workload is a set of keys and the order in which they are asked for.
type workload struct {
	keys []string // as the first request on each brings them in
	asks []string // as later requests bring them: the same keys, at other places in memory, in another order
}

// newWorkload returns n keys. Requests bring keys freshly parsed, so the texts to ask with lie close together and one
// after the other, which is as good as in the cache, while what has been stored lies wherever it was stored.
func newWorkload(n int) workload {
	w := workload{keys: newKeys(n), asks: make([]string, n)}
	for i, k := range rand.New(rand.NewPCG(1, 2)).Perm(n) { //nolint:gosec // an order, not a secret
		w.asks[i] = strings.Clone(w.keys[k])
	}
	return w
}

func newKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("user:%07d", i)
	}
	return keys
}

// roomy is a GCRA that admits all that a run can ask for, and whose keys, once checked, live until the run is over:
// every check puts a key a minute further from being whole.
var roomy = throttlekit.GCRA{Limit: 1, Period: time.Minute, Burst: 1e10}

// ours is a limiter of ours with an in-memory store of its own. A nil clock is the default one.
func ours(name string, strategy throttlekit.Strategy, clock throttlekit.Clock, w workload) measure.Contestant {
	l, err := throttlekit.NewLimiter(strategy, throttlekit.WithClock(clock))
	if err != nil {
		return broken(name, err)
	}
	ctx := context.Background()
	run := func(ops int, keys []string) error {
		for i := 0; ops > 0; ops-- {
			if d, err := l.Check(ctx, keys[i]); err != nil || !d.Allowed {
				return errors.Join(err, errDenied)
			}
			if i++; i == len(keys) {
				i = 0
			}
		}
		return nil
	}
	return contest(name, w, run, func() { _ = l.Close() })
}

// floor is the least that a limiter can do: know the time, find the key in a concurrent map, and change its state by
// one compare-and-swap, which it repeats if another goroutine was faster. It decides nothing.
func floor(name string, w workload) measure.Contestant {
	m := xsync.NewMap[string, *atomic.Uint64]()
	run := func(ops int, keys []string) error {
		for i := 0; ops > 0; ops-- {
			floorCheck(m, keys[i], time.Now().UnixMilli())
			if i++; i == len(keys) {
				i = 0
			}
		}
		return nil
	}
	return contest(name, w, run, nil)
}

// floorByOurClock is floor, but with the clock that a limiter of ours reads.
func floorByOurClock(name string, w workload) measure.Contestant {
	m := xsync.NewMap[string, *atomic.Uint64]()
	run := func(ops int, keys []string) error {
		for i := 0; ops > 0; ops-- {
			floorCheck(m, keys[i], throttlekit.SystemClock{}.NowMillis())
			if i++; i == len(keys) {
				i = 0
			}
		}
		return nil
	}
	return contest(name, w, run, nil)
}

// floorCheck is a call, as a check is.
//
//go:noinline
func floorCheck(m *xsync.Map[string, *atomic.Uint64], key string, nowMillis int64) {
	state, known := m.Load(key)
	if !known {
		state, _ = m.LoadOrStore(key, new(atomic.Uint64))
	}
	for !state.CompareAndSwap(state.Load(), uint64(nowMillis)) {
		continue
	}
}

// contest asks for every key once, so that none is new later, and returns a contestant that goes on asking.
func contest(name string, w workload, run func(ops int, keys []string) error, closing func()) measure.Contestant {
	err := run(len(w.keys), w.keys)
	return measure.Contestant{
		Name: name,
		Run: func(ops int) error {
			if err != nil {
				return err
			}
			return run(ops, w.asks)
		},
		Close: closing,
	}
}

// broken is a contestant that could not be set up.
func broken(name string, err error) measure.Contestant {
	return measure.Contestant{Name: name, Run: func(int) error { return err }}
}

// byTwo has two goroutines share a contestant's operations.
func byTwo(c measure.Contestant) measure.Contestant {
	c.Run = measure.Split(2, c.Run)
	return c
}

package vectors

import (
	"context"
	"fmt"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Memory is the in-process target: every suite gets a limiter of its own, on an
// in-memory store whose clock is set before each check. It runs every rateLimit suite.
func Memory() Target { return memoryTarget{} }

type memoryTarget struct{}

func (memoryTarget) Open(suite Suite) (Session, error) {
	clock := throttlekit.NewManualClock(0)
	return openLimiter(suite, clock, throttlekit.WithClock(clock))
}

// Store is the target that keeps its records in store, whose clock must be clock and
// must follow nobody else meanwhile. Suites are kept apart by keys that begin with
// prefix and the suite's name, so the prefix must be a new one for each replay. A
// store on which a record's time to live runs in real time must stretch it, or a
// record may vanish between two checks. The store stays open.
func Store(store throttlekit.Store, clock *throttlekit.ManualClock, prefix string) Target {
	return storeTarget{store: store, clock: clock, prefix: prefix}
}

type storeTarget struct {
	store  throttlekit.Store
	clock  *throttlekit.ManualClock
	prefix string
}

func (t storeTarget) Open(suite Suite) (Session, error) {
	// The length keeps suites apart whose names and keys contain colons.
	prefix := fmt.Sprintf("%s:%d:%s", t.prefix, len(suite.Name), suite.Name)
	return openLimiter(suite, t.clock, throttlekit.WithStore(t.store), throttlekit.WithPrefix(prefix))
}

func openLimiter(suite Suite, clock *throttlekit.ManualClock, opts ...throttlekit.Option) (Session, error) {
	strategy, err := suite.Strategy.Build()
	if err != nil {
		return nil, err
	}
	limiter, err := throttlekit.NewLimiter(strategy, opts...)
	if err != nil {
		return nil, err
	}
	return &limiterSession{Limiter: limiter, clock: clock}, nil
}

// limiterSession is a limiter on a store whose clock is at hand.
type limiterSession struct {
	*throttlekit.Limiter

	clock *throttlekit.ManualClock
}

func (s *limiterSession) Check(ctx context.Context, nowMillis int64, key string, cost float64) (throttlekit.Decision, error) {
	s.clock.Set(nowMillis)
	return s.CheckN(ctx, key, cost)
}

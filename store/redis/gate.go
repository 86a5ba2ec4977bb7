package redisstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/store/redis/internal/engine"
)

// gate decides which calls go straight to rueidis. Two things hold a call of rueidis on beyond
// its context: a queue whose every place is taken, often by calls that were given up but
// never answered, and a connection that another caller is still trying to make. Calls that
// could meet either are made in a goroutine, so that their callers can leave in time.
type gate struct {
	busy atomic.Int64  // calls that rueidis has, or is about to have
	wary atomic.Int64  // until when none goes straight, in epoch milliseconds; 0 if they may
	room chan struct{} // one place for each goroutine
}

const (
	// mostStraight is half of the places in the queue of a rueidis connection by default.
	mostStraight = 512
	// mostApart bounds the calls in goroutines. More callers than that wait for their turn, or
	// leave without a call: a long queue in front of a server that comes back would keep
	// it busy with calls whose callers have left, while new ones come too late.
	mostApart = 512
	// wariness is for how long a call that failed counts: longer than rueidis by default
	// takes to give a silent connection up, and the calls on it free.
	wariness = 15 * time.Second
)

func newGate() gate { return gate{room: make(chan struct{}, mostApart)} }

// apart makes a call that may not go straight. The error is that of ctx if it ends before the
// call; what the call touches is then its own.
func apart[T any](ctx context.Context, g *gate, call func() T) (T, error) {
	return engine.Await(ctx, g.room, call, func() { g.busy.Add(-1) })
}

// straight counts a call, and reports whether it may go straight: if so, leave must follow, and
// apart if not.
func (g *gate) straight() bool {
	few := g.busy.Add(1) <= mostStraight
	until := g.wary.Load()
	if until == 0 {
		return few
	}
	if (throttlekit.SystemClock{}).NowMillis() < until {
		return false
	}
	g.wary.CompareAndSwap(until, 0)
	return few
}

// leave ends a call that went straight.
func (g *gate) leave(err error) {
	g.heed(err) // first, so that no call goes straight while this one still has its place in a queue
	g.busy.Add(-1)
}

// heed makes the gate wary after an error that did not come from the server.
func (g *gate) heed(err error) {
	if err == nil {
		return
	}
	if _, answered := errors.AsType[*engine.ServerError](err); !answered {
		g.wary.Store((throttlekit.SystemClock{}).NowMillis() + wariness.Milliseconds())
	}
}

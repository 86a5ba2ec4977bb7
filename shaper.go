package throttlekit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrQueueFull marks a request that a [Shaper] refused because it would have to wait
// longer than MaxQueue. The error is a [*QueueFullError].
var ErrQueueFull = errors.New("throttlekit: queue is full")

// QueueFullError says how long to wait before the queue can take the request.
type QueueFullError struct{ RetryAfter time.Duration }

// Error names the wait in milliseconds.
func (e *QueueFullError) Error() string {
	return fmt.Sprintf("throttlekit: leaky-bucket queue is full; retry after %dms", e.RetryAfter.Milliseconds())
}

// Is makes every QueueFullError match ErrQueueFull.
func (e *QueueFullError) Is(target error) bool { return target == ErrQueueFull }

// LeakyBucket spaces requests evenly: instead of denying what comes too early, it says
// how long to wait. Specification: §3.2.
type LeakyBucket struct {
	// RatePerSec is how many units of cost leave per second; positive.
	RatePerSec float64
	// MaxQueue is the longest wait that is accepted; not negative.
	MaxQueue time.Duration
}

// Shaper delays the requests on each key so that they leave at an even rate.
type Shaper struct {
	rule  *leakyBucket
	store Store
	owned bool
}

// NewShaper validates bucket and returns a shaper for it. The error matches [ErrInvalid].
func NewShaper(bucket LeakyBucket, opts ...Option) (*Shaper, error) {
	var c checks
	c.positive("ratePerSec", bucket.RatePerSec)
	c.require(bucket.MaxQueue >= 0, "maxQueue", bucket.MaxQueue, "must not be negative")
	interval := 1000 / bucket.RatePerSec
	if len(c) == 0 {
		c.require(interval <= MaxSafe, "ratePerSec", bucket.RatePerSec, "must give an interval of at most 9007199254740991 ms")
	}
	if len(c) > 0 {
		return nil, c.err()
	}
	store, owned, err := settle(opts)
	if err != nil {
		return nil, err
	}
	rule := &leakyBucket{spec: bucket, interval: interval, maxQueue: toMillis(bucket.MaxQueue)}
	return &Shaper{rule: rule, store: store, owned: owned}, nil
}

// Reserve takes the next place in the key's queue and returns how long to wait before
// going ahead; the place stays taken whether or not the caller goes. A full queue is an
// error that matches [ErrQueueFull] and takes nothing. A request's cost delays those
// behind it, not itself.
func (s *Shaper) Reserve(ctx context.Context, key string, cost float64) (time.Duration, error) {
	if err := validCost(cost); err != nil {
		return 0, err
	}
	d, err := s.store.Apply(ctx, key, s.rule, cost)
	if err != nil {
		return 0, err
	}
	if !d.Allowed {
		return 0, &QueueFullError{RetryAfter: d.RetryAfter()}
	}
	return d.RetryAfter(), nil
}

// Wait takes the next place in the key's queue and returns when its turn has come. If
// ctx ends first, Wait returns its error at once, and the place stays taken.
func (s *Shaper) Wait(ctx context.Context, key string, cost float64) error {
	delay, err := s.Reserve(ctx, key, cost)
	if err != nil || delay == 0 {
		return err
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Reset empties the key's queue.
func (s *Shaper) Reset(ctx context.Context, key string) error {
	return s.store.Reset(ctx, key)
}

// Close closes the shaper's own in-memory store. A store given with [WithStore] stays open.
func (s *Shaper) Close() error {
	if !s.owned {
		return nil
	}
	return s.store.Close()
}

// leakyBucket keeps the next departure in a record's A. Its decisions use RetryAfterMillis
// for the wait of an admitted request too.
type leakyBucket struct {
	spec     LeakyBucket
	interval float64 // milliseconds per unit
	maxQueue float64 // milliseconds
}

// LeakyBucket is what the transition was made from, for stores that have a faster form of it.
func (b *leakyBucket) LeakyBucket() LeakyBucket { return b.spec }

func (b *leakyBucket) Name() string                       { return "leakyBucket" }
func (b *leakyBucket) Encode(rec Record) ([]byte, error)  { return encodeScalar(rec) }
func (b *leakyBucket) Decode(text []byte) (Record, error) { return decodeScalar(b.Name(), text) }

func (b *leakyBucket) Apply(rec Record, nowMillis int64, cost float64) (Record, Decision, int64) {
	now := float64(nowMillis)
	departure := max(rec.A, now)
	delay := departure - now
	if delay > b.maxQueue {
		return rec, Decision{RetryAfterMillis: max(1, ceil(delay-b.maxQueue))}, 0
	}
	next := departure + float64(b.interval*cost)
	return Record{A: next}, Decision{Allowed: true, RetryAfterMillis: ceil(delay)}, max(1, ceil(next-now))
}

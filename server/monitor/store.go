package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

const (
	// probeEvery is how often a store is asked at most whether it answers, and for how long an answer counts.
	probeEvery = time.Second
	// fairChance is how long a store must have had for an answer, lest a caller's deadline be its failure.
	fairChance = 100 * time.Millisecond
	// probeKey is what a probe looks at. It is never written.
	probeKey = "throttlekit:ready"
)

// operation is what was asked of a store.
type operation int

const (
	opApply operation = iota
	opBatch
	opLoad
	opReset
	operations
)

func (o operation) String() string { return [...]string{"apply", "batch", "load", "reset"}[o] }

// storeBuckets are the upper bounds of the histogram of latencies, in seconds.
var storeBuckets = [...]float64{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5}

// operationTally sums up one operation.
type operationTally struct {
	failed  atomic.Int64
	nanos   atomic.Int64
	buckets [len(storeBuckets) + 1]atomic.Int64
}

// WatchedStore is a [throttlekit.Store] that times another one and knows whether it answers. It changes nothing that goes
// through it. Each operation costs two readings of the clock more, which is nothing beside a round trip and a good part
// of an operation in memory: a store in memory cannot fail to answer and needs no watching.
type WatchedStore struct {
	store   throttlekit.Store
	probe   throttlekit.Transition
	now     func() time.Duration // on a monotonic clock
	tallies [operations]operationTally

	answered atomic.Int64 // when it last did, on that clock, in nanoseconds; negative if never
	failing  atomic.Bool  // the last operation failed
	hurried  atomic.Int64 // when the first caller since then came that gave it too little time; 0 if none

	asking chan struct{} // holds a token while a probe runs
	asked  time.Duration // when the last probe ended; guarded by asking
	result error         // what it found; guarded by asking
}

var _ throttlekit.Store = (*WatchedStore)(nil)

// WatchStore watches a store from now on. It takes the store over: closing the result closes the store.
func WatchStore(store throttlekit.Store) (*WatchedStore, error) {
	if store == nil {
		return nil, &throttlekit.InvalidError{Field: "store", Value: nil, Rule: "must be given"}
	}
	probe, err := throttlekit.FixedWindow{Limit: 1, Window: time.Minute}.Rule()
	if err != nil {
		return nil, err
	}
	origin := time.Now()
	w := &WatchedStore{
		store: store, probe: probe, now: func() time.Duration { return time.Since(origin) },
		asking: make(chan struct{}, 1), asked: -probeEvery,
	}
	w.answered.Store(int64(-probeEvery))
	return w, nil
}

// Apply implements [throttlekit.Store].
func (w *WatchedStore) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	start := w.now()
	d, err := w.store.Apply(ctx, key, t, cost)
	w.done(ctx, opApply, start, err)
	return d, err
}

// Batch implements [throttlekit.Store].
func (w *WatchedStore) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	start := w.now()
	decisions, err := w.store.Batch(ctx, ops, commit)
	w.done(ctx, opBatch, start, err)
	return decisions, err
}

// Load implements [throttlekit.Store].
func (w *WatchedStore) Load(
	ctx context.Context, key string, t throttlekit.Transition,
) (rec throttlekit.Record, nowMillis int64, err error) {
	start := w.now()
	rec, nowMillis, err = w.store.Load(ctx, key, t)
	w.done(ctx, opLoad, start, err)
	return rec, nowMillis, err
}

// Reset implements [throttlekit.Store].
func (w *WatchedStore) Reset(ctx context.Context, key string) error {
	start := w.now()
	err := w.store.Reset(ctx, key)
	w.done(ctx, opReset, start, err)
	return err
}

// Close implements [throttlekit.Store].
func (w *WatchedStore) Close() error { return w.store.Close() }

// done takes the outcome of an operation. An error that is not the store's fault says that it answered; one of a caller who
// left says nothing.
func (w *WatchedStore) done(ctx context.Context, op operation, start time.Duration, err error) {
	end := w.now()
	t := &w.tallies[op]
	bucket := 0
	for bucket < len(storeBuckets) && (end-start).Seconds() > storeBuckets[bucket] {
		bucket++
	}
	t.buckets[bucket].Add(1)
	t.nanos.Add(int64(end - start))
	switch {
	case err == nil:
		w.answered.Store(int64(end))
		if w.failing.Load() {
			w.failing.Store(false)
		}
		if w.hurried.Load() != 0 {
			w.hurried.Store(0)
		}
	case ctx.Err() != nil && end-start < fairChance && w.given(start, end) < probeEvery:
		// The caller left, or gave the store no time to speak of.
	case errors.Is(err, throttlekit.ErrStoreUnavailable) && !errors.Is(ctx.Err(), context.Canceled):
		t.failed.Add(1)
		w.failing.Store(true)
	}
}

// given is for how long nobody but callers in a hurry has asked the store, and got no answer. Each of them gives it too little time,
// but not all of them together.
func (w *WatchedStore) given(start, end time.Duration) time.Duration {
	if w.hurried.CompareAndSwap(0, int64(start)) {
		return end - start
	}
	return end - time.Duration(w.hurried.Load())
}

// Ready reports whether the store answers: nil if an operation of the last second did, and the latest one did not fail. If
// it is not known, it asks the store, once a second at most however often it is called, and waits 1 s at most. The error
// says what the store said, or is that of ctx.
func (w *WatchedStore) Ready(ctx context.Context) error {
	if !w.failing.Load() && w.now()-time.Duration(w.answered.Load()) < probeEvery {
		return nil
	}
	select {
	case w.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.asking }()
	if w.now()-w.asked < probeEvery {
		return w.result
	}
	// Whoever waits for the answer next must get one, so the caller's leaving does not end the question.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeEvery)
	defer cancel()
	_, _, w.result = w.Load(ctx, probeKey, w.probe)
	if w.result != nil {
		w.result = fmt.Errorf("the store does not answer: %w", w.result)
	}
	w.asked = w.now()
	return w.result
}

// StoreHealth is how a store does.
type StoreHealth struct {
	// Operations is how many there were, and Errors how many of them failed.
	Operations int64 `json:"operations"`
	Errors     int64 `json:"errors"`
	// AvgMs is the mean latency, in milliseconds.
	AvgMs float64 `json:"avgMs"`
	// Answering says that the latest operation did not fail.
	Answering bool `json:"answering"`
}

// Health sums the operations up.
func (w *WatchedStore) Health() StoreHealth {
	health := StoreHealth{Answering: !w.failing.Load()}
	var nanos int64
	for op := range w.tallies {
		t := &w.tallies[op]
		health.Errors += t.failed.Load()
		nanos += t.nanos.Load()
		for i := range t.buckets {
			health.Operations += t.buckets[i].Load()
		}
	}
	if health.Operations > 0 {
		health.AvgMs = millis(time.Duration(nanos / health.Operations))
	}
	return health
}

package throttlekit

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"weak"
)

// ErrStoreFull marks a new key that a [MemoryStore] could not take because MaxKeys
// live records are in it, none of which may be dropped without reopening a budget. It
// matches ErrStoreUnavailable as well.
var ErrStoreFull = fmt.Errorf("%w: it is full", ErrStoreUnavailable)

// Overflow says what a full [MemoryStore] does with a new key.
type Overflow int

const (
	// RefuseNewKeys fails the operation with an error that matches ErrStoreFull.
	RefuseNewKeys Overflow = iota
	// AdmitWithoutState decides as if the key were fresh and remembers nothing: keys
	// beyond the bound are not limited until room is made.
	AdmitWithoutState
)

// MemoryConfig configures [NewMemoryStore]. Its zero value is ready to use.
type MemoryConfig struct {
	// Clock is the store's clock. Defaults to [SystemClock].
	Clock Clock
	// MaxKeys bounds the number of records. Zero means no bound.
	MaxKeys int
	// Overflow says what happens to a new key at MaxKeys. Defaults to RefuseNewKeys.
	Overflow Overflow
}

// MemoryStore keeps records in this process. A record is dropped only once it equals a
// fresh one, so eviction never reopens a budget. Expired records are given back about
// once a second, and while new keys come in, without scanning those that live on.
type MemoryStore struct {
	clock    Clock
	maxKeys  int64
	overflow Overflow

	scalars   *table[scalar]
	pairs     *table[pair]
	objects   *table[object]
	size      atomic.Int64 // records in all tables
	closed    atomic.Bool
	sweeping  atomic.Bool  // a sweep is scheduled
	collected atomic.Int64 // when a full store was last searched for room
}

// records is a table of records of one shape.
type records interface {
	load(key string, nowMillis int64) Record
	reset(key string)
	member(key string, shape Shape) member
	collect(nowMillis int64, exact bool)
	close()
}

const sweepEvery = time.Second

// NewMemoryStore returns an empty store. The error matches ErrInvalid.
func NewMemoryStore(config MemoryConfig) (*MemoryStore, error) {
	var c checks
	c.require(config.MaxKeys >= 0, "maxKeys", config.MaxKeys, "must not be negative")
	c.require(config.Overflow == RefuseNewKeys || config.Overflow == AdmitWithoutState,
		"overflow", config.Overflow, "must be RefuseNewKeys or AdmitWithoutState")
	if len(c) > 0 {
		return nil, c.err()
	}
	if config.Clock == nil {
		config.Clock = SystemClock{}
	}
	m := &MemoryStore{clock: config.Clock, maxKeys: int64(config.MaxKeys), overflow: config.Overflow}
	m.scalars, m.pairs, m.objects = newTable[scalar](m), newTable[pair](m), newTable[object](m)
	return m, nil
}

// Len is the number of records in the store; some may have expired.
func (m *MemoryStore) Len() int { return int(m.size.Load()) }

// Apply implements [Store].
func (m *MemoryStore) Apply(_ context.Context, key string, t Transition, cost float64) (d Decision, _ error) {
	if err := m.apply(key, t, m.clock.NowMillis(), cost, &d); err != nil {
		return Decision{}, err
	}
	return d, nil
}

// apply dispatches on concrete types, so that d can stay on the caller's stack.
func (m *MemoryStore) apply(key string, t Transition, nowMillis int64, cost float64, d *Decision) error {
	switch t.Shape() {
	case Scalar:
		return m.scalars.apply(key, t, nowMillis, cost, d)
	case Pair:
		return m.pairs.apply(key, t, nowMillis, cost, d)
	default:
		return m.objects.apply(key, t, nowMillis, cost, d)
	}
}

// records is the table for a shape.
func (m *MemoryStore) records(shape Shape) records {
	switch shape {
	case Scalar:
		return m.scalars
	case Pair:
		return m.pairs
	default:
		return m.objects
	}
}

// reserve counts a new entry in, making room if the store is full.
func (m *MemoryStore) reserve(nowMillis int64) bool {
	if m.size.Add(1) <= m.maxKeys || m.maxKeys == 0 {
		return true
	}
	m.size.Add(-1)
	m.makeRoom(nowMillis)
	if m.size.Add(1) <= m.maxKeys {
		return true
	}
	m.size.Add(-1)
	return false
}

// makeRoom drops whatever has expired, at most once in a millisecond.
func (m *MemoryStore) makeRoom(nowMillis int64) {
	if last := m.collected.Load(); last != nowMillis && m.collected.CompareAndSwap(last, nowMillis) {
		m.collect(nowMillis, true)
	}
}

// makeRoomFor makes room ahead of a batch, which holds locks when it adds its entries.
func (m *MemoryStore) makeRoomFor(n int, nowMillis int64) {
	if m.maxKeys > 0 && m.size.Load()+int64(n) > m.maxKeys {
		m.makeRoom(nowMillis)
	}
}

// fullError is what a new key in a full store meets: an error, or nil if it is to be
// admitted without state.
func (m *MemoryStore) fullError() error {
	if m.overflow == AdmitWithoutState {
		return nil
	}
	return fmt.Errorf("%w: maxKeys is %d, and all its records are live", ErrStoreFull, m.maxKeys)
}

// Load implements [Store].
func (m *MemoryStore) Load(_ context.Context, key string, t Transition) (Record, int64, error) {
	if m.closed.Load() {
		return Record{}, 0, ErrClosed
	}
	now := m.clock.NowMillis()
	return m.records(t.Shape()).load(key, now), now, nil
}

// Batch implements [Store].
func (m *MemoryStore) Batch(_ context.Context, ops []Op, commit Commit) ([]Decision, error) {
	now := m.clock.NowMillis()
	if commit != CommitEach {
		m.makeRoomFor(len(ops), now)
		return m.applyTogether(ops, commit, now)
	}
	decisions := make([]Decision, len(ops))
	for i, op := range ops {
		if err := m.apply(op.Key, op.Transition, now, op.Cost, &decisions[i]); err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

// Reset implements [Store]. A key that several shapes of record share is forgotten in all.
func (m *MemoryStore) Reset(_ context.Context, key string) error {
	if m.closed.Load() {
		return ErrClosed
	}
	for _, t := range []records{m.scalars, m.pairs, m.objects} {
		t.reset(key)
	}
	return nil
}

// Close drops all records. It may be called more than once.
func (m *MemoryStore) Close() error {
	m.closed.Store(true)
	for _, t := range []records{m.scalars, m.pairs, m.objects} {
		t.close()
	}
	return nil
}

// Sweep drops all records that have expired. The store calls it by itself about once a
// second; a program that drives a manual clock may call it to see memory given back.
func (m *MemoryStore) Sweep() { m.collect(m.clock.NowMillis(), false) }

func (m *MemoryStore) collect(nowMillis int64, exact bool) {
	for _, t := range []records{m.scalars, m.pairs, m.objects} {
		t.collect(nowMillis, exact)
	}
}

// scheduleSweep makes sure that a sweep will come. Between sweeps there is only a
// timer, which does not keep an abandoned store from being collected.
func (m *MemoryStore) scheduleSweep() {
	if m.sweeping.Load() || !m.sweeping.CompareAndSwap(false, true) {
		return
	}
	store := weak.Make(m)
	time.AfterFunc(sweepEvery, func() {
		if m := store.Value(); m != nil {
			m.sweeping.Store(false)
			m.Sweep()
			if m.Len() > 0 {
				m.scheduleSweep()
			}
		}
	})
}

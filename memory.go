package throttlekit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"runtime"
	"sync"
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

	seed   maphash.Seed
	shards []shard
	shift  int // a key's shard is its hash shifted right by this

	size      atomic.Int64 // entries in all shards
	closed    atomic.Bool
	sweeping  atomic.Bool  // a sweep is scheduled
	collected atomic.Int64 // when a full store was last searched for room
}

// shard is a part of the store under a lock of its own. There are many, so that
// goroutines seldom meet unless they are after the same key. Each fills two cache lines,
// so that the lock and what a check reads beside it travel between processors as one.
type shard struct {
	mu    sync.Mutex
	table table
	_     [128 - 88]byte
}

const (
	sweepEvery      = time.Second
	shardsPerThread = 64
	never           = math.MinInt64
)

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
	width := bits.Len(uint(shardsPerThread*runtime.GOMAXPROCS(0) - 1))
	m := &MemoryStore{
		clock: config.Clock, maxKeys: int64(config.MaxKeys), overflow: config.Overflow,
		seed: maphash.MakeSeed(), shards: make([]shard, 1<<width), shift: 64 - width,
	}
	m.collected.Store(never)
	for i := range m.shards {
		m.shards[i].table = newTable()
	}
	return m, nil
}

// Len is the number of records in the store; some may have expired.
func (m *MemoryStore) Len() int { return int(m.size.Load()) }

func (m *MemoryStore) hash(key string) uint64 { return maphash.String(m.seed, key) }

// Apply implements [Store]. The clock is read before the lock is taken: a transition
// that comes late with an older time admits no more for it.
func (m *MemoryStore) Apply(_ context.Context, key string, t Transition, cost float64) (d Decision, err error) {
	err = m.apply(key, t, m.clock.NowMillis(), cost, &d)
	return d, err
}

// apply leaves the decision in d. A Decision is too large for registers, and every
// function that hands one on by value would copy it once more.
func (m *MemoryStore) apply(key string, t Transition, nowMillis int64, cost float64, d *Decision) error {
	h := m.hash(key)
	s := &m.shards[h>>m.shift]
	s.mu.Lock()
	e := s.table.find(h, key)
	if e == nil {
		s.mu.Unlock()
		return m.applyFresh(h, key, t, nowMillis, cost, d)
	}
	defer s.mu.Unlock() // also if a transition of the user's panics
	var next Record
	var ttl int64
	if next, *d, ttl = t.Apply(e.record(nowMillis), nowMillis, cost); ttl > 0 {
		e.put(next, nowMillis, ttl)
	}
	return nil
}

// applyFresh runs a transition on a key that has no entry.
func (m *MemoryStore) applyFresh(h uint64, key string, t Transition, nowMillis int64, cost float64, d *Decision) error {
	var next Record
	var ttl int64
	if next, *d, ttl = t.Apply(Record{}, nowMillis, cost); ttl <= 0 && !m.closed.Load() {
		return nil
	}
	e := newEntry(key, next, nowMillis, ttl)
	err := m.add(h, e, nowMillis)
	if isFull(err) && m.makeRoom(nowMillis) {
		err = m.add(h, e, nowMillis)
	}
	switch {
	case err == nil, m.forgives(err):
		return nil
	case errors.Is(err, errTaken):
		return m.apply(key, t, nowMillis, cost, d)
	default:
		*d = Decision{}
		return err
	}
}

// errTaken marks an entry that another goroutine added first.
var errTaken = errors.New("throttlekit: the key has an entry")

// add inserts an entry, and drops a few expired ones for it, so that a growing store
// cleans up as fast as it grows.
func (m *MemoryStore) add(h uint64, e *entry, nowMillis int64) error {
	const cleaning = 4
	s := &m.shards[h>>m.shift]
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.closed.Load():
		return ErrClosed
	case s.table.find(h, e.key) != nil:
		return errTaken
	}
	dropped, _ := s.table.advance(m.hash, nowMillis, cleaning)
	m.size.Add(int64(-dropped))
	if err := m.reserve(1); err != nil {
		return err
	}
	m.insert(s, h, e, nowMillis)
	return nil
}

// insert adds an entry that has been reserved. The shard is locked.
func (m *MemoryStore) insert(s *shard, h uint64, e *entry, nowMillis int64) {
	dropped := s.table.insert(h, e, m.hash, nowMillis)
	m.size.Add(int64(-dropped))
	m.scheduleSweep()
}

// reserve counts n new entries in, or fails if the store is full.
func (m *MemoryStore) reserve(n int) error {
	if size := m.size.Add(int64(n)); size > m.maxKeys && m.maxKeys > 0 && n > 0 {
		m.size.Add(int64(-n))
		return fmt.Errorf("%w: maxKeys is %d, and all its records are live", ErrStoreFull, m.maxKeys)
	}
	return nil
}

func isFull(err error) bool { return errors.Is(err, ErrStoreFull) }

// forgives reports whether a new key is to be admitted without state although the store is full.
func (m *MemoryStore) forgives(err error) bool {
	return m.overflow == AdmitWithoutState && isFull(err)
}

// makeRoom drops every expired record, if that has not been tried in this millisecond.
func (m *MemoryStore) makeRoom(nowMillis int64) bool {
	last := m.collected.Load()
	if last == nowMillis || !m.collected.CompareAndSwap(last, nowMillis) {
		return false
	}
	m.collect(nowMillis, true)
	return true
}

// Load implements [Store].
func (m *MemoryStore) Load(_ context.Context, key string, _ Transition) (rec Record, nowMillis int64, _ error) {
	nowMillis = m.clock.NowMillis()
	h := m.hash(key)
	s := &m.shards[h>>m.shift]
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.closed.Load() {
		return Record{}, 0, ErrClosed
	}
	if e := s.table.find(h, key); e != nil {
		rec = e.record(nowMillis)
	}
	return rec, nowMillis, nil
}

// Reset implements [Store].
func (m *MemoryStore) Reset(_ context.Context, key string) error {
	h := m.hash(key)
	s := &m.shards[h>>m.shift]
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.closed.Load() {
		return ErrClosed
	}
	s.table.reset(h, key)
	m.collected.Store(never) // there may be room now
	return nil
}

// Close drops all records. It may be called more than once.
func (m *MemoryStore) Close() error {
	m.closed.Store(true)
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		m.size.Add(int64(-s.table.live))
		s.table = newTable()
		s.mu.Unlock()
	}
	return nil
}

// Sweep drops the records that have expired. The store calls it by itself about once a
// second; a program that drives a manual clock may call it to see memory given back.
func (m *MemoryStore) Sweep() { m.collect(m.clock.NowMillis(), false) }

// collect drops expired records. If exact, not one of them is left, at the cost of
// going through those of the current tick and, where Reset has made records expire
// early, through whole shards; otherwise those wait for their time or their number.
func (m *MemoryStore) collect(nowMillis int64, exact bool) {
	for i := range m.shards {
		m.collectShard(&m.shards[i], nowMillis, exact)
	}
}

func (m *MemoryStore) collectShard(s *shard, nowMillis int64, exact bool) {
	const batch = 64
	s.mu.Lock()
	defer s.mu.Unlock()
	if exact && s.table.queue != nil {
		s.table.queue.recheck()
	}
	for {
		dropped, more := s.table.advance(m.hash, nowMillis, batch)
		m.size.Add(int64(-dropped))
		if !more {
			break
		}
		s.mu.Unlock() // let others in between batches
		s.mu.Lock()
	}
	if s.table.sparse() || exact && s.table.resets > 0 {
		m.size.Add(int64(-s.table.rebuild(m.hash, nowMillis)))
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
		m := store.Value()
		if m == nil {
			return
		}
		m.sweeping.Store(false)
		m.Sweep()
		if m.Len() > 0 {
			m.scheduleSweep()
		}
	})
}

package throttlekit

import (
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// table is the concurrent hash map of the memory store. It exists, rather than a
// general one, so that a record costs little more than its state, its key and one
// link: entries carry their own lock and their place in the expiry queue.
//
// Look-ups take no lock. Insertion and removal hold the shard's mutex, which is always
// taken before an entry's. An entry is removed by marking it dead under its own lock,
// so that nobody can charge a record that has left the table.
type table[S layout] struct {
	store  *MemoryStore
	seed   maphash.Seed
	shards []shard[S]
	shift  int       // a key's shard is its hash shifted right by this
	grave  *entry[S] // stands where an entry was removed
}

// entry is one record; everything below mu is guarded by it.
type entry[S layout] struct {
	key     string
	later   *entry[S] // link of the expiry queue, guarded by the shard's mutex
	mu      sync.Mutex
	expires int64 // epoch milliseconds from which on the record equals a fresh one, or dead
	state   S
}

// layout is how an entry lays the state of a record out, by [Shape].
type layout interface{ scalar | pair | object }

type (
	scalar struct{ a float64 }
	pair   struct{ a, b float64 }
	object struct {
		a, b  float64
		extra any
	}
)

func newEntry[S layout](key string, rec Record, nowMillis, ttlMillis int64) *entry[S] {
	e := &entry[S]{key: key}
	e.put(rec, nowMillis, ttlMillis)
	return e
}

// get is the record of an entry, fresh if it has expired. The entry's mutex is held.
func (e *entry[S]) get(nowMillis int64) (rec Record) {
	if e.expires <= nowMillis {
		return rec
	}
	switch s := any(&e.state).(type) {
	case *scalar:
		rec.A = s.a
	case *pair:
		rec.A, rec.B = s.a, s.b
	case *object:
		rec.A, rec.B, rec.Extra = s.a, s.b, s.extra
	}
	return rec
}

// put replaces the record of an entry. The entry's mutex is held.
func (e *entry[S]) put(rec Record, nowMillis, ttlMillis int64) {
	e.expires = expiry(nowMillis, ttlMillis)
	switch s := any(&e.state).(type) {
	case *scalar:
		s.a = rec.A
	case *pair:
		s.a, s.b = rec.A, rec.B
	case *object:
		s.a, s.b, s.extra = rec.A, rec.B, rec.Extra
	}
}

// expiry is the instant from which on a record equals a fresh one.
func expiry(nowMillis, ttlMillis int64) int64 { return min(MaxSafe, nowMillis+min(ttlMillis, MaxSafe)) }

// dead marks an entry that has left the table.
const dead = -1 << 63

type shard[S layout] struct {
	slots  atomic.Pointer[[]atomic.Pointer[entry[S]]] // open addressing, a power of two, at most half filled
	mu     sync.Mutex                                 // guards what follows, and all changes to slots
	live   int                                        // entries
	filled int                                        // entries and graves
	closed bool
	resets int // entries made to expire early since the last rebuild
	queue  expiryQueue[S]
}

const smallestSlots = 8

func newTable[S layout](store *MemoryStore) *table[S] {
	width := bits.Len(uint(4*runtime.GOMAXPROCS(0) - 1))
	t := &table[S]{
		store: store, seed: maphash.MakeSeed(), shards: make([]shard[S], 1<<width), shift: 64 - width,
		grave: new(entry[S]),
	}
	for i := range t.shards {
		t.shards[i].clear()
	}
	return t
}

func (s *shard[S]) clear() {
	slots := make([]atomic.Pointer[entry[S]], smallestSlots)
	s.slots.Store(&slots)
	s.live, s.filled, s.resets, s.queue = 0, 0, 0, expiryQueue[S]{}
}

// locate is the shard of a key, and the key's hash.
func (t *table[S]) locate(key string) (*shard[S], uint64) {
	h := maphash.String(t.seed, key)
	return &t.shards[h>>t.shift], h
}

// find is the entry of a key, or nil. Without the shard's mutex the answer is a hint:
// the entry may be dead already, or the key may be there when nil is returned.
func (t *table[S]) find(s *shard[S], h uint64, key string) *entry[S] {
	slots := *s.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		e := slots[i].Load()
		if e == nil {
			return nil
		}
		if e.key == key && e != t.grave {
			return e
		}
	}
}

// apply runs a transition on the record of a key.
func (t *table[S]) apply(key string, tr Transition, nowMillis int64, cost float64, d *Decision) error {
	s, h := t.locate(key)
	for {
		if e := t.find(s, h, key); e != nil {
			if e.step(tr, nowMillis, cost, d) {
				return nil
			}
			s.await() // the entry is being removed
			continue
		}
		if done, err := t.applyFresh(key, tr, nowMillis, cost, d); done {
			return err
		}
	}
}

// step runs a transition on an entry. It fails if the entry is dead.
func (e *entry[S]) step(tr Transition, nowMillis int64, cost float64, out *Decision) bool {
	e.mu.Lock()
	defer e.mu.Unlock() // also if a transition of the user's panics
	if e.expires == dead {
		return false
	}
	next, d, ttl := tr.Apply(e.get(nowMillis), nowMillis, cost)
	if ttl > 0 {
		e.put(next, nowMillis, ttl)
	}
	out.set(d)
	return true
}

// set copies field by field: Decision is too large for registers, and a block copy of
// fields that were just written stalls the processor for longer than the decision took.
func (d *Decision) set(from Decision) {
	d.Allowed = from.Allowed
	d.Limit = from.Limit
	d.Remaining = from.Remaining
	d.ResetAtMillis = from.ResetAtMillis
	d.RetryAfterMillis = from.RetryAfterMillis
}

// applyFresh runs a transition on a key that has no entry. It is not done if another
// goroutine adds the entry first.
func (t *table[S]) applyFresh(key string, tr Transition, nowMillis int64, cost float64, d *Decision) (done bool, err error) {
	if t.store.closed.Load() {
		return true, ErrClosed
	}
	next, decision, ttl := tr.Apply(Record{}, nowMillis, cost)
	d.set(decision)
	if ttl <= 0 {
		return true, nil
	}
	if !t.store.reserve(nowMillis) {
		return true, t.store.fullError()
	}
	if !t.add(newEntry[S](key, next, nowMillis, ttl), nowMillis) {
		t.store.size.Add(-1)
		return false, nil
	}
	t.store.scheduleSweep()
	return true, nil
}

func (t *table[S]) load(key string, nowMillis int64) Record {
	s, h := t.locate(key)
	e := t.find(s, h, key)
	if e == nil {
		return Record{}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.get(nowMillis)
}

// reset makes an entry expire at once. Its place is given back by the next rebuild.
func (t *table[S]) reset(key string) {
	s, h := t.locate(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := t.find(s, h, key)
	if e == nil {
		return
	}
	e.mu.Lock()
	e.expires = 0
	e.mu.Unlock()
	s.resets++
}

// add inserts an entry unless its key is there or the table is closed, and drops a few
// expired ones for it, so that a growing table cleans up as fast as it grows.
func (t *table[S]) add(e *entry[S], nowMillis int64) bool {
	const cleaning = 4
	s, h := t.locate(e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || t.find(s, h, e.key) != nil {
		return false
	}
	t.advance(s, nowMillis, cleaning)
	t.insert(s, h, e, nowMillis)
	return true
}

// await returns once nobody is changing the shard's slots.
func (s *shard[S]) await() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// insert adds an entry for a key that is not in the table. The shard's mutex is held,
// and the caller has counted the entry in size.
func (t *table[S]) insert(s *shard[S], h uint64, e *entry[S], nowMillis int64) {
	if (s.filled+1)*2 > len(*s.slots.Load()) {
		t.rebuild(s, nowMillis)
	}
	place(*s.slots.Load(), h, e)
	s.live++
	s.filled++
	s.queue.push(e, e.expires)
}

func place[S layout](slots []atomic.Pointer[entry[S]], h uint64, e *entry[S]) {
	mask := uint64(len(slots) - 1)
	i := h & mask
	for slots[i].Load() != nil {
		i = (i + 1) & mask
	}
	slots[i].Store(e)
}

// rebuild lays a shard out anew for the entries it has: it grows or shrinks, drops
// graves and expired entries, and queues the rest by their present expiry. The shard's
// mutex is held. The new size leaves room, so that the next rebuild is far.
func (t *table[S]) rebuild(s *shard[S], nowMillis int64) {
	size := max(smallestSlots, 1<<bits.Len(uint(3*(s.live+1))))
	old, fresh := *s.slots.Load(), make([]atomic.Pointer[entry[S]], size)
	queue := expiryQueue[S]{tick: s.queue.tick}
	queue.roll(nowMillis)
	live := 0
	for i := range old {
		e := old[i].Load()
		if e == nil || e == t.grave {
			continue
		}
		if expires := e.settle(nowMillis); expires != dead {
			place(fresh, maphash.String(t.seed, e.key), e)
			queue.push(e, expires)
			live++
		}
	}
	t.store.size.Add(int64(live - s.live))
	s.live, s.filled, s.resets, s.queue = live, live, 0, queue
	s.slots.Store(&fresh)
}

// settle marks an expired entry dead, and returns when it expires otherwise.
func (e *entry[S]) settle(nowMillis int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.expires <= nowMillis {
		e.expires = dead
	}
	return e.expires
}

// advance drops entries that have expired by now, as far as the expiry queue knows,
// looking at no more than budget of them. It reports whether more may be due. The
// shard's mutex is held.
func (t *table[S]) advance(s *shard[S], nowMillis int64, budget int) (more bool) {
	s.queue.roll(nowMillis)
	for range budget {
		e := s.queue.pop()
		if e == nil {
			return false
		}
		if expires := e.settle(nowMillis); expires != dead {
			s.queue.push(e, expires)
		} else {
			t.remove(s, e)
		}
	}
	return true
}

// remove takes a dead entry out of its slot.
func (t *table[S]) remove(s *shard[S], e *entry[S]) {
	slots := *s.slots.Load()
	mask := uint64(len(slots) - 1)
	i := maphash.String(t.seed, e.key) & mask
	for slots[i].Load() != e {
		i = (i + 1) & mask
	}
	slots[i].Store(t.grave)
	s.live--
	t.store.size.Add(-1)
	if slots[(i+1)&mask].Load() != nil {
		return
	}
	for ; slots[i].Load() == t.grave; i = (i - 1) & mask {
		slots[i].Store(nil)
		s.filled--
	}
}

// collect drops expired entries. If exact, not one of them is left, at the cost of
// going through the current tick and, where Reset has made entries expire early,
// through a whole shard; otherwise those wait for their time or their number.
func (t *table[S]) collect(nowMillis int64, exact bool) {
	for i := range t.shards {
		t.collectShard(&t.shards[i], nowMillis, exact)
	}
}

func (t *table[S]) collectShard(s *shard[S], nowMillis int64, exact bool) {
	const batch = 256
	s.mu.Lock()
	defer s.mu.Unlock()
	if exact {
		s.queue.recheck()
	}
	for t.advance(s, nowMillis, batch) {
		s.mu.Unlock() // let others in between batches
		s.mu.Lock()
	}
	sparse := len(*s.slots.Load()) > max(smallestSlots, 16*s.live)
	if sparse || s.resets > s.live/2 || exact && s.resets > 0 {
		t.rebuild(s, nowMillis)
	}
}

// close drops all entries and refuses new ones.
func (t *table[S]) close() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		s.closed = true
		for j := range *s.slots.Load() {
			if e := (*s.slots.Load())[j].Load(); e != nil && e != t.grave {
				e.settle(MaxSafe)
			}
		}
		t.store.size.Add(int64(-s.live))
		s.clear()
		s.mu.Unlock()
	}
}

// expiryQueue is a monotone radix heap over ticks of 32 ms: bucket i holds the entries
// whose tick differs from the queue's own first at bit i-1. Moving on touches only the
// buckets up to the highest bit that changed, so an entry is touched at most once per
// bit of its time to live, and entries that live on are never scanned. An entry queued
// for a time that has since been put off is queued again when its turn comes.
type expiryQueue[S layout] struct {
	tick    int64
	buckets [54 - tickBits]*entry[S]
	due     []*entry[S] // lists of entries whose turn has come
}

const tickBits = 5

func (q *expiryQueue[S]) push(e *entry[S], expires int64) {
	i := 0
	if tick := expires >> tickBits; tick > q.tick {
		i = min(bits.Len64(uint64(tick^q.tick)), len(q.buckets)-1)
	}
	e.later = q.buckets[i]
	q.buckets[i] = e
}

// roll moves the queue to now. A clock that steps back leaves it where it is.
func (q *expiryQueue[S]) roll(nowMillis int64) {
	tick := nowMillis >> tickBits
	if tick <= q.tick {
		return
	}
	highest := min(bits.Len64(uint64(tick^q.tick)), len(q.buckets)-1)
	q.tick = tick
	for i := range highest + 1 {
		q.take(i)
	}
}

// recheck makes the entries of the current tick due, some of which may have expired within it.
func (q *expiryQueue[S]) recheck() { q.take(0) }

func (q *expiryQueue[S]) take(bucket int) {
	if e := q.buckets[bucket]; e != nil {
		q.due = append(q.due, e)
		q.buckets[bucket] = nil
	}
}

// pop is the next entry that is due, or nil.
func (q *expiryQueue[S]) pop() *entry[S] {
	for n := len(q.due); n > 0; n = len(q.due) {
		if e := q.due[n-1]; e != nil {
			q.due[n-1] = e.later
			e.later = nil
			return e
		}
		q.due = q.due[:n-1]
	}
	return nil
}

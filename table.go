package throttlekit

import "math/bits"

// table is one shard of the memory store: a hash map and a queue of expiries that share
// their entries, so that a record costs its key, its state and two words. The owner
// guards it with a mutex.
type table struct {
	slots  []*entry // open addressing, a power of two, at most half filled; none when empty
	tags   []uint8  // of each slot, bits of the key's hash, so that most misses touch no entry
	live   int      // entries
	filled int      // entries and graves
	resets int      // entries made to expire early since the last rebuild
	queue  *expiryQueue
}

// entry is the record of one key. It is sized for the many: numbers beyond the first
// are in an extension.
type entry struct {
	key     string
	later   *entry // next in a list of the expiry queue
	expires int64  // epoch milliseconds from which on the record equals a fresh one
	a       float64
	more    *extension
}

type extension struct {
	b     float64
	extra any
}

func newTable() table { return table{tags: noTags} }

// noTags are those of an empty table, which has no slots.
var noTags = make([]uint8, 1)

// grave stands where an entry was removed.
var grave = new(entry)

const smallestSlots = 8

func newEntry(key string, rec Record, nowMillis, ttlMillis int64) *entry {
	e := &entry{key: key}
	e.put(rec, nowMillis, ttlMillis)
	return e
}

// record is the record of an entry, fresh if it has expired.
func (e *entry) record(nowMillis int64) (rec Record) {
	if e.expires <= nowMillis {
		return rec
	}
	rec.A = e.a
	if e.more != nil {
		rec.B, rec.Extra = e.more.b, e.more.extra
	}
	return rec
}

// put replaces the record of an entry, which will be fresh after ttlMillis.
func (e *entry) put(rec Record, nowMillis, ttlMillis int64) {
	e.expires = min(MaxSafe, nowMillis+min(ttlMillis, MaxSafe))
	e.a = rec.A
	if e.more == nil {
		if rec.B == 0 && rec.Extra == nil {
			return
		}
		e.more = new(extension)
	}
	e.more.b, e.more.extra = rec.B, rec.Extra
}

// tag is never 0, which stands for an empty slot.
func tag(h uint64) uint8 { return uint8(h>>48) | 1 }

// find is the entry of a key with hash h, or nil.
func (t *table) find(h uint64, key string) *entry {
	mask := uint64(len(t.tags) - 1)
	for i := h & mask; t.tags[i] != 0; i = (i + 1) & mask {
		if e := t.slots[i]; t.tags[i] == tag(h) && e.key == key && e != grave {
			return e
		}
	}
	return nil
}

// insert adds an entry for a key that is not in the table. It returns how many others
// it dropped because they had expired.
func (t *table) insert(h uint64, e *entry, hash func(string) uint64, nowMillis int64) (dropped int) {
	if (t.filled+1)*2 > len(t.slots) {
		dropped = t.rebuild(hash, nowMillis)
	}
	t.place(h, e)
	t.queue.push(e)
	return dropped
}

// place puts an entry into a free slot. Graves stay: they are few, and rebuilding clears them.
func (t *table) place(h uint64, e *entry) {
	mask := uint64(len(t.slots) - 1)
	i := h & mask
	for t.slots[i] != nil {
		i = (i + 1) & mask
	}
	t.slots[i], t.tags[i] = e, tag(h)
	t.live++
	t.filled++
}

// rebuild lays the table out anew for the entries it has: it grows or shrinks, drops
// graves and expired entries, and queues the rest by their present expiry. The new
// size leaves room, so that the next rebuild is far. It returns how many were dropped.
func (t *table) rebuild(hash func(string) uint64, nowMillis int64) (dropped int) {
	old := *t
	size := max(smallestSlots, 1<<bits.Len(uint(3*(old.live+1))))
	*t = table{slots: make([]*entry, size), tags: make([]uint8, size), queue: newExpiryQueue(nowMillis)}
	for _, e := range old.slots {
		if e == nil || e == grave || e.expires <= nowMillis {
			continue
		}
		t.place(hash(e.key), e)
		t.queue.push(e)
	}
	return old.live - t.live
}

// advance drops entries that have expired by now, as far as the expiry queue knows,
// looking at no more than budget of them. It returns how many it dropped, and whether
// more may be due.
func (t *table) advance(hash func(string) uint64, nowMillis int64, budget int) (dropped int, more bool) {
	if t.queue == nil {
		return 0, false
	}
	t.queue.roll(nowMillis)
	for range budget {
		e := t.queue.pop()
		if e == nil {
			return dropped, false
		}
		if e.expires <= nowMillis {
			t.remove(hash(e.key), e)
			dropped++
		} else {
			t.queue.push(e)
		}
	}
	return dropped, true
}

// remove takes an entry that is in no queue out of its slot.
func (t *table) remove(h uint64, e *entry) {
	mask := uint64(len(t.slots) - 1)
	i := h & mask
	for t.slots[i] != e {
		i = (i + 1) & mask
	}
	t.live--
	t.slots[i] = grave
	if t.slots[(i+1)&mask] != nil {
		return
	}
	// Nothing lies behind: this grave and those before it are not needed to find anything.
	for ; t.slots[i] == grave; i = (i - 1) & mask {
		t.slots[i], t.tags[i] = nil, 0
		t.filled--
	}
}

// reset makes a key's record expire at once. The next rebuild gives its place back.
func (t *table) reset(h uint64, key string) {
	if e := t.find(h, key); e != nil {
		e.expires = 0
		t.resets++
	}
}

// sparse reports whether a rebuild would pay: it halves what is left of a larger table,
// or gives back the places of enough entries that were reset.
func (t *table) sparse() bool {
	return len(t.slots) > max(smallestSlots, 16*t.live) || t.resets > t.live/2
}

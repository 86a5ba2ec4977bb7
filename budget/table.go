package budget

import (
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"

	"github.com/throttlekit/throttlekit-go"
)

// table keeps the accounts of one level in this process. Looking a key up takes no lock; adding
// one takes that of the table. An account is dropped only once it equals a fresh one, and a full
// table refuses new keys, so that no use is ever forgotten.
type table struct {
	seed    maphash.Seed
	windows int
	limit   float64 // of the first window
	maxKeys int
	slots   atomic.Pointer[[]atomic.Pointer[cell]] // open addressing, a power of two, at most half filled

	mu       sync.Mutex
	count    int
	swept    float64 // when accounts were last dropped
	searched float64 // when a full table was last searched for room
}

// cell is an account of the table, under a lock of its own.
type cell struct {
	account

	mu   sync.Mutex
	dead bool // it was dropped from the table
	hash uint64
	key  string
}

const (
	fewestSlots = 16
	// searchEvery is how often a full table is searched for accounts to drop, in milliseconds.
	searchEvery = 100
)

func newTable(windows []window, maxKeys int) *table {
	t := &table{seed: maphash.MakeSeed(), windows: len(windows), limit: windows[0].limit, maxKeys: maxKeys, searched: math.Inf(-1)}
	slots := make([]atomic.Pointer[cell], fewestSlots)
	t.slots.Store(&slots)
	return t
}

func (t *table) find(h uint64, key string) *cell {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		c := slots[i].Load()
		if c == nil || c.hash == h && c.key == key {
			return c
		}
	}
}

// lock returns the account of a key, locked. The error matches ErrStoreFull of package throttlekit.
func (t *table) lock(key string, now float64) (*cell, error) {
	h := maphash.String(t.seed, key)
	for {
		c := t.find(h, key)
		if c == nil {
			var err error
			if c, err = t.add(h, key, now); err != nil {
				return nil, err
			}
		}
		c.mu.Lock()
		if !c.dead {
			return c, nil
		}
		c.mu.Unlock()
	}
}

func (t *table) add(h uint64, key string, now float64) (*cell, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.find(h, key); c != nil {
		return c, nil
	}
	if t.count >= t.maxKeys && math.Abs(now-t.searched) >= searchEvery {
		t.searched = now
		t.rebuild(now)
	}
	if t.count >= t.maxKeys {
		return nil, fmt.Errorf("%w: maxKeys is %d, and the windows of all are open", throttlekit.ErrStoreFull, t.maxKeys)
	}
	if 2*(t.count+1) > len(*t.slots.Load()) {
		t.rebuild(now)
	}
	c := &cell{hash: h, key: key, account: newAccount(t.windows)}
	c.since = t.swept
	place(*t.slots.Load(), c)
	t.count++
	return c, nil
}

func place(slots []atomic.Pointer[cell], c *cell) {
	mask := uint64(len(slots) - 1)
	i := c.hash & mask
	for slots[i].Load() != nil {
		i = (i + 1) & mask
	}
	slots[i].Store(c)
}

// rebuild drops the accounts that equal fresh ones and lays out the rest anew, with room to grow.
func (t *table) rebuild(now float64) {
	kept := make([]*cell, 0, t.count)
	for i, old := 0, *t.slots.Load(); i < len(old); i++ {
		c := old[i].Load()
		if c == nil {
			continue
		}
		c.mu.Lock()
		if c.dead = c.expires() <= now; c.dead {
			t.swept = max(t.swept, now)
		} else {
			kept = append(kept, c)
		}
		c.mu.Unlock()
	}
	size := fewestSlots
	for size < 4*(len(kept)+1) {
		size *= 2
	}
	slots := make([]atomic.Pointer[cell], size)
	for _, c := range kept {
		place(slots, c)
	}
	t.count = len(kept)
	t.slots.Store(&slots)
}

// reset forgets a key: its account starts anew where it stands.
func (t *table) reset(key string) {
	c := t.find(maphash.String(t.seed, key), key)
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.periods)
	clear(c.closes)
	c.live = nil
}

package service

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
)

// leases are the slots that callers hold by themselves, under ids that nobody can guess. One that
// is not renewed in time is reclaimed as dropped: its holder is gone, and what it worked on as well.
//
// All leases last equally long, so the one that was granted or renewed first is the first to end:
// they stand in a list in that order, and a sweep looks at none that has not ended. The timer is armed
// only while there are leases.
type leases struct {
	ttl time.Duration
	now func() time.Duration

	mu             sync.Mutex
	index          map[leaseID]int32 // places in slab
	slab           []leased
	free           int32 // first of the places that are free, chained by next
	oldest, newest int32
	timer          *time.Timer // nil before the first lease
	armed          bool
	closed         bool
	reclaimed      int64
}

// leased is one lease: 88 bytes.
type leased struct {
	id         leaseID
	permit     concurrency.Permit
	policy     *held
	deadline   time.Duration
	fences     int64 // of the policy, when the lease was granted
	prev, next int32
}

// leaseID is 128 random bits. On the wire it is 22 letters, digits, dashes and underscores.
type leaseID [16]byte

var leaseText = base64.RawURLEncoding.Strict()

func (id leaseID) String() string { return leaseText.EncodeToString(id[:]) }

// parseLeaseID reads what String wrote.
func parseLeaseID(text string) (id leaseID, ok bool) {
	if len(text) != leaseText.EncodedLen(len(id)) {
		return id, false
	}
	_, err := leaseText.Decode(id[:], []byte(text))
	return id, err == nil
}

const (
	nowhere = -1
	// sweepShare is how often the table is swept at most, in each ttl.
	sweepShare = 20
	// sweepChunk is how many leases are ended in one hold of the lock.
	sweepChunk = 512
)

func newLeases(ttl time.Duration, now func() time.Duration) *leases {
	return &leases{ttl: ttl, now: now, index: make(map[leaseID]int32), free: nowhere, oldest: nowhere, newest: nowhere}
}

// grant takes a permit of a policy over. It is not ok once the table is closed; then the permit stays with the caller.
func (l *leases) grant(h *held, permit concurrency.Permit) (id string, ok bool) {
	var key leaseID
	_, _ = rand.Read(key[:]) // it never fails
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", false
	}
	at := l.free
	if at == nowhere {
		at = int32(len(l.slab))
		l.slab = append(l.slab, leased{})
	} else {
		l.free = l.slab[at].next
	}
	l.slab[at] = leased{id: key, permit: permit, policy: h, fences: h.fences.Load()}
	l.index[key] = at
	l.append(at, now)
	l.arm(l.ttl)
	return key.String(), true
}

// release ends a lease, if it is held.
func (l *leases) release(text string, dropped bool) {
	id, ok := parseLeaseID(text)
	if !ok {
		return
	}
	l.mu.Lock()
	at, held := l.index[id]
	var permit concurrency.Permit
	if held {
		permit = l.take(at)
	}
	l.mu.Unlock()
	if dropped {
		permit.Drop()
	} else {
		permit.Release()
	}
}

// renew gives each lease that is held a further term, in one hold of the lock for some of them. One of a
// policy that was fenced since is not renewed: others may have its slot, and its holder must hear of
// that. Here it is taken until its holder has ended it, or its time is over.
func (l *leases) renew(texts []string) (live, reclaimed []string) {
	now := l.now()
	for len(texts) > 0 {
		n := min(len(texts), sweepChunk)
		l.mu.Lock()
		for _, text := range texts[:n] {
			id, ok := parseLeaseID(text)
			at, held := l.index[id]
			if !ok || !held || l.slab[at].fences != l.slab[at].policy.fences.Load() {
				reclaimed = append(reclaimed, text)
				continue
			}
			l.unlink(at)
			l.append(at, now)
			live = append(live, text)
		}
		l.mu.Unlock()
		texts = texts[n:]
	}
	return live, reclaimed
}

// sweep reclaims the leases whose time is over.
func (l *leases) sweep() {
	now := l.now()
	ended := make([]concurrency.Permit, 0, sweepChunk)
	for more := true; more; {
		ended = ended[:0]
		l.mu.Lock()
		for l.oldest != nowhere && l.slab[l.oldest].deadline <= now && len(ended) < sweepChunk {
			ended = append(ended, l.take(l.oldest))
		}
		l.reclaimed += int64(len(ended))
		if more = len(ended) == sweepChunk; !more {
			l.armed = false
			if l.oldest != nowhere {
				l.arm(max(l.slab[l.oldest].deadline-now, l.ttl/sweepShare))
			}
		}
		l.mu.Unlock()
		for _, permit := range ended {
			permit.Drop()
		}
	}
}

// arm has the table swept after d, unless it is going to be.
func (l *leases) arm(d time.Duration) {
	switch {
	case l.armed || l.closed:
		return
	case l.timer == nil:
		l.timer = time.AfterFunc(d, l.sweep)
	default:
		l.timer.Reset(d)
	}
	l.armed = true
}

// close forgets the leases. Their slots stay taken: the work that they stand for goes on, and a
// fleet that was told otherwise would give them away.
func (l *leases) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	for l.oldest != nowhere {
		l.take(l.oldest)
	}
}

// count is how many leases are held, and how many were reclaimed so far.
func (l *leases) count() (held int, reclaimed int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.index), l.reclaimed
}

// append puts a lease at the end of the list, with a term that begins now.
func (l *leases) append(at int32, now time.Duration) {
	entry := &l.slab[at]
	entry.deadline, entry.prev, entry.next = now+l.ttl, l.newest, nowhere
	if l.newest == nowhere {
		l.oldest = at
	} else {
		l.slab[l.newest].next = at
	}
	l.newest = at
}

func (l *leases) unlink(at int32) {
	prev, next := l.slab[at].prev, l.slab[at].next
	if prev == nowhere {
		l.oldest = next
	} else {
		l.slab[prev].next = next
	}
	if next == nowhere {
		l.newest = prev
	} else {
		l.slab[next].prev = prev
	}
}

// take takes a lease out of the table.
func (l *leases) take(at int32) concurrency.Permit {
	l.unlink(at)
	permit := l.slab[at].permit
	delete(l.index, l.slab[at].id)
	l.slab[at] = leased{next: l.free}
	l.free = at
	return permit
}

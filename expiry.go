package throttlekit

import "math/bits"

// expiryQueue is a monotone radix heap over ticks of 32 ms: list i holds the entries
// whose tick differs from the queue's own first at bit i-1. Moving on touches only the
// lists up to the highest bit that changed, so an entry is touched at most once per
// bit of its time to live, and entries that live on are never scanned. An entry whose
// expiry is put off stays where it is and is queued again when its turn comes.
type expiryQueue struct {
	tick  int64
	lists [54 - tickBits]*entry
	due   []*entry // lists of entries whose turn has come
}

const tickBits = 5

func newExpiryQueue(nowMillis int64) *expiryQueue { return &expiryQueue{tick: nowMillis >> tickBits} }

func (q *expiryQueue) push(e *entry) {
	i := 0
	if tick := e.expires >> tickBits; tick > q.tick {
		i = min(bits.Len64(uint64(tick^q.tick)), len(q.lists)-1)
	}
	e.later = q.lists[i]
	q.lists[i] = e
}

// roll moves the queue to now. A clock that steps back leaves it where it is.
func (q *expiryQueue) roll(nowMillis int64) {
	tick := nowMillis >> tickBits
	if tick <= q.tick {
		return
	}
	highest := min(bits.Len64(uint64(tick^q.tick)), len(q.lists)-1)
	q.tick = tick
	for i := range highest + 1 {
		q.take(i)
	}
}

// recheck makes the entries of the current tick due, some of which may have expired within it.
func (q *expiryQueue) recheck() { q.take(0) }

func (q *expiryQueue) take(i int) {
	if e := q.lists[i]; e != nil {
		q.due = append(q.due, e)
		q.lists[i] = nil
	}
}

// pop is the next entry that is due, or nil.
func (q *expiryQueue) pop() *entry {
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

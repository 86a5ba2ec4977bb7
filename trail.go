package throttlekit

import "sync/atomic"

// trail is an immutable sequence that grows at the end and shrinks at the front, for the
// Extra of records. Trails share one buffer: the first to push behind a given end
// claims the place there, and every other pushes to a copy, so that pushing costs no
// copy along a record's life and yet never changes what another trail holds.
type trail[T any] struct {
	items   []T
	end     int64 // place of the end in the buffer
	claimed *atomic.Int64
}

func (t trail[T]) push(item T) trail[T] {
	if len(t.items) < cap(t.items) && t.claimed.CompareAndSwap(t.end, t.end+1) {
		t.items, t.end = append(t.items, item), t.end+1
		return t
	}
	const room = 4
	items := make([]T, len(t.items), 2*len(t.items)+room)
	copy(items, t.items)
	return newTrail(append(items, item))
}

func newTrail[T any](items []T) trail[T] {
	t := trail[T]{items: items, end: int64(len(items)), claimed: new(atomic.Int64)}
	t.claimed.Store(t.end)
	return t
}

// skip is the trail without its first n items.
func (t trail[T]) skip(n int) trail[T] {
	t.items = t.items[n:]
	return t
}

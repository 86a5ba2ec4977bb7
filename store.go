package throttlekit

import "context"

// Store keeps one record per key and applies transitions to it. It is the only place
// where state changes. Implementations must be safe for concurrent use, must use
// their own clock, and must pass the suite in package storetest.
//
// Errors match [ErrStoreUnavailable] when the store could not be reached or did not
// answer in time, and [ErrClosed] after Close.
type Store interface {
	// Apply runs t on the record under key, atomically against every other
	// operation on that key, and persists the new record if t asks for it.
	Apply(ctx context.Context, key string, t Transition, cost float64) (Decision, error)
	// Batch runs ops at one instant of the store's clock where it has one, and
	// returns their decisions in the same order. A store that cannot do what the
	// commit mode asks returns an error that matches ErrUnsupported.
	Batch(ctx context.Context, ops []Op, commit Commit) ([]Decision, error)
	// Load returns the record under key and the store's time, changing nothing. A
	// missing or expired record is the zero Record.
	Load(ctx context.Context, key string, t Transition) (rec Record, nowMillis int64, err error)
	// Reset forgets the record under key.
	Reset(ctx context.Context, key string) error
	// Close releases what the store itself holds, never a client that was lent to it.
	Close() error
}

// Op is one member of a [Store.Batch].
type Op struct {
	Key        string
	Transition Transition
	Cost       float64
}

// Commit says which members of a batch may be persisted.
type Commit int

const (
	// CommitEach persists every op on its own: what one decides does not depend on
	// the others, and ops on one key see each other's effect in order.
	CommitEach Commit = iota
	// CommitAll persists all ops if every one allows, and none otherwise. The whole
	// batch is one atomic step; its keys must be distinct.
	CommitAll
	// CommitAny persists the ops that allow, like CommitEach, but the whole batch
	// is one atomic step; its keys must be distinct.
	CommitAny
)

// Transition is a pure step on one record. It does no I/O, reads no clock, takes no
// lock and keeps nothing between calls. A store may call Apply several times for one
// operation and keeps only the last outcome.
type Transition interface {
	// Name identifies the transition, for messages and for stores that have a
	// faster form of it.
	Name() string
	// Apply decides at nowMillis (epoch milliseconds) whether cost fits. It
	// returns the next record and for how many milliseconds that record differs
	// from a fresh one; a ttlMillis of 0 means that nothing is to be persisted.
	Apply(rec Record, nowMillis int64, cost float64) (next Record, d Decision, ttlMillis int64)
	// Encode writes the record as JSON text, for stores that keep text.
	Encode(rec Record) ([]byte, error)
	// Decode reads what Encode wrote.
	Decode(text []byte) (Record, error)
}

// Parameterized is a Transition that a store may run in a faster form of its own, which
// it knows by the transition's Name. Correctness never depends on that: a store that does
// not know the name runs the transition itself.
type Parameterized interface {
	Transition
	// Parameters are what the other form needs beside time and cost, as text, in an
	// order that the name fixes.
	Parameters() []string
}

// Record is the state of one key. The zero Record is that of a fresh key, so a
// transition may keep zero for nothing else. Records are values: what Extra refers to
// must not be changed.
type Record struct {
	// A and B hold the first two numbers of the state. A store may keep records that
	// need no more than A in less space.
	A, B float64
	// Extra holds whatever else the state needs.
	Extra any
}

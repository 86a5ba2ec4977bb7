package pgstore

import (
	"context"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Statement is the statement by which the store would check in one round trip, and its
// arguments, or false if the core would decide.
func (s *Store) Statement(t throttlekit.Transition, key string, now int64, cost float64) (sql string, args []any, ok bool) {
	c, ok := recognize(t)
	return s.functions[c.kind].call, c.parameters(s.prefix+key, now, cost), ok
}

// Decide reads the reply of that statement; left says that it leaves the check to the core.
func Decide(reply string, t throttlekit.Transition, cost float64) (d throttlekit.Decision, left bool, err error) {
	d, err = decide(reply, t, cost)
	if needsCoreAfter(err) {
		return d, true, nil
	}
	return d, false, err
}

// Prepare makes sure that the table is there.
func (s *Store) Prepare(ctx context.Context) error { return s.ensure(ctx) }

// HasFunctions reports whether the store has found its functions.
func (s *Store) HasFunctions() bool { return s.schema.functions.Load() }

// Sweep deletes one batch of expired rows.
func (s *Store) Sweep(ctx context.Context) (int64, error) { return s.sweep(ctx) }

// NumberSQL is how a variable is written in SQL.
func NumberSQL(v string) string { return expandNumbers("{{number " + v + "}}") }

// WithoutFunctions makes the store decide everything by the core.
func (s *Store) WithoutFunctions() {
	s.schema.functions.Store(false)
	s.schema.ready.Store(true)
}

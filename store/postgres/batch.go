package pgstore

import (
	"context"
	"math"

	"github.com/jackc/pgx/v5"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// chunk bounds the keys of one transaction in a batch whose members stand for themselves,
// because a database has room for a limited number of locks.
const chunk = 64

// batch is operations under way, one or many.
type batch struct {
	keys      []string // full keys
	ops       []throttlekit.Op
	commit    throttlekit.Commit
	at        any // the time by the configured clock, or nil for the database's
	decisions []throttlekit.Decision
}

// keysOf are the keys of some members, each once.
func (b *batch) keysOf(members []int) []string {
	keys := make([]string, 0, len(members))
	seen := make(map[string]bool, len(members))
	for _, i := range members {
		if key := b.keys[i]; !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// run carries out a batch.
func (s *Store) run(ctx context.Context, b *batch) error {
	all := make([]int, len(b.ops))
	for i := range all {
		all[i] = i
	}
	if b.commit != throttlekit.CommitEach {
		return s.retry(ctx, func() error { return s.transact(ctx, b, all) })
	}
	for from := 0; from < len(all); from += chunk {
		if err := s.runChunk(ctx, b, all[from:min(len(all), from+chunk)]); err != nil {
			return err
		}
	}
	return nil
}

// runChunk carries out members that stand for themselves, all in one transaction: by the
// database if it can decide every one of them, or else by the core.
func (s *Store) runChunk(ctx context.Context, b *batch, members []int) error {
	calls, ok := b.recognize(members)
	return s.retry(ctx, func() error {
		if ok && s.schema.functions.Load() {
			if err := s.callTogether(ctx, b, members, calls); !s.leftToCore(err) {
				return err
			}
		}
		return s.transact(ctx, b, members)
	})
}

// recognize finds the database's form of all members, if there is one for each.
func (b *batch) recognize(members []int) (calls []call, ok bool) {
	calls = make([]call, len(members))
	for n, i := range members {
		if calls[n], ok = recognize(b.ops[i].Transition); !ok {
			return nil, false
		}
	}
	return calls, true
}

// callTogether runs checks in one round trip.
func (s *Store) callTogether(ctx context.Context, b *batch, members []int, calls []call) (err error) {
	replies := make([]string, len(members))
	at := b.at
	if at == nil {
		at = math.Inf(-1) // what lockAndNote notes
	}
	err = s.roundTrip(ctx, func(trip *pgx.Batch) {
		trip.Queue(lockAndNote, b.keysOf(members))
		for n, i := range members {
			sql := s.functions[calls[n].kind].callOrEnd
			trip.Queue(sql, calls[n].parameters(b.keys[i], at, b.ops[i].Cost)...).
				QueryRow(func(row pgx.Row) error { return row.Scan(&replies[n], nil) })
		}
	})
	if err != nil {
		return err
	}
	for n, i := range members {
		if b.decisions[i], err = decide(replies[n], b.ops[i].Transition, b.ops[i].Cost); err != nil {
			return err
		}
	}
	return nil
}

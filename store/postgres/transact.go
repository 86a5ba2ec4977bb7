package pgstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// change is a record that is to be written.
type change struct {
	key     string
	state   string
	expires int64
}

// transact runs members of a batch by the core in one transaction of two round trips. It
// fits every transition and every commit mode.
func (s *Store) transact(ctx context.Context, b *batch, members []int) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	now, records, err := s.lockAndRead(ctx, conn.Conn(), b.keysOf(members), b.at)
	if err != nil {
		abort(ctx, conn.Conn())
		return err
	}
	changes, err := settle(b, members, records, now)
	if err == nil {
		err = s.write(ctx, conn.Conn(), changes)
	}
	if err != nil {
		abort(ctx, conn.Conn())
		return err
	}
	return nil
}

// lockAndRead is the first round trip: the time, and the texts of the records that are
// live then.
func (s *Store) lockAndRead(ctx context.Context, conn *pgx.Conn, keys []string, at any) (now int64, records map[string]string, err error) {
	var trip pgx.Batch
	trip.Queue(begin)
	trip.Queue(lockAndWait, keys)
	trip.Queue(s.sql.read, keys, at).Query(func(rows pgx.Rows) (err error) {
		now, records, err = live(rows)
		return err
	})
	err = conn.SendBatch(ctx, &trip).Close()
	return now, records, err
}

// live reads what statements.read returns.
func live(rows pgx.Rows) (now int64, records map[string]string, err error) {
	records = make(map[string]string)
	var key, state *string
	var expires *int64
	_, err = pgx.ForEachRow(rows, []any{&now, &key, &state, &expires}, func() error {
		if key != nil && *expires > now {
			records[*key] = *state
		}
		return nil
	})
	return now, records, err
}

// write is the second round trip: it writes the changes, if there are any, and ends the transaction.
func (s *Store) write(ctx context.Context, conn *pgx.Conn, changes []change) error {
	if len(changes) == 0 {
		_, err := conn.Exec(ctx, rollback)
		return err
	}
	keys, states, expires := make([]string, len(changes)), make([]string, len(changes)), make([]int64, len(changes))
	for i, c := range changes {
		keys[i], states[i], expires[i] = c.key, c.state, c.expires
	}
	var trip pgx.Batch
	trip.Queue(s.sql.write, keys, states, expires)
	trip.Queue(commit)
	return conn.SendBatch(ctx, &trip).Close()
}

// settle decides members of a batch at one instant, from the texts of their records, and
// returns what is to be written. Each sees what those before it leave.
func settle(b *batch, members []int, records map[string]string, now int64) ([]change, error) {
	var changes []change
	place := make(map[string]int, len(members)) // of a key's change
	everyAllowed := true
	for _, i := range members {
		op, key := b.ops[i], b.keys[i]
		record, err := decode(op.Transition, records, key)
		if err != nil {
			return nil, err
		}
		next, d, ttl := op.Transition.Apply(record, now, op.Cost)
		b.decisions[i] = d
		everyAllowed = everyAllowed && d.Allowed
		if ttl <= 0 {
			continue
		}
		text, err := op.Transition.Encode(next)
		if err != nil {
			return nil, fmt.Errorf("writing a %s record: %w", op.Transition.Name(), err)
		}
		records[key] = string(text)
		at, ok := place[key]
		if !ok {
			at = len(changes)
			place[key] = at
			changes = append(changes, change{})
		}
		changes[at] = change{key, string(text), expiry(now, ttl)}
	}
	if b.commit == throttlekit.CommitAll && !everyAllowed {
		return nil, nil
	}
	return changes, nil
}

// expiry is the instant from which on a record equals a fresh one.
func expiry(now, ttl int64) int64 { return min(throttlekit.MaxSafe, now+min(ttl, throttlekit.MaxSafe)) }

// decode reads a key's record, which is fresh if there is no text.
func decode(t throttlekit.Transition, records map[string]string, key string) (throttlekit.Record, error) {
	text, ok := records[key]
	if !ok {
		return throttlekit.Record{}, nil
	}
	return t.Decode([]byte(text))
}

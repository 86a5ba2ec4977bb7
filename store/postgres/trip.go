package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"
)

const (
	begin    = `BEGIN ISOLATION LEVEL READ COMMITTED`
	commit   = `COMMIT`
	rollback = `ROLLBACK`

	// lockAll locks all keys of a batch, always in the same order, so that no two
	// batches wait for each other. Two keys may share a lock, so the order is that of
	// the locks. Counting them makes all be taken before there is a row.
	lockAll = `(SELECT count(pg_advisory_xact_lock(hash)) AS n FROM (` +
		`SELECT DISTINCT hashtextextended(key, 0) AS hash FROM unnest($1::text[]) AS key ORDER BY hash` +
		`) AS sorted) AS locked WHERE locked.n > 0`

	lock = `SELECT FROM ` + lockAll

	// lockAndNote also notes the time, for functions that are told to take it, and makes
	// the session's settings suit them.
	lockAndNote = `SELECT set_config('throttlekit.now', ` + clockSQL + `::bigint::text, true),` +
		` set_config('extra_float_digits', '1', true) FROM ` + lockAll
	notedSQL = `current_setting('throttlekit.now')::float8`
	noteSQL  = `set_config('throttlekit.now', greatest(` + notedSQL + `, ` + clockSQL + `)::bigint::text, true)::float8`

	// lockAndWait also bounds the time that the transaction may sit between its two round
	// trips, so that a caller that is frozen then does not hold its keys for good.
	lockAndWait = `SELECT set_config('idle_in_transaction_session_timeout', '1000', true) FROM ` + lockAll

	// timeSQL is the time in the parameter, or else the database's clock.
	timeSQL = `coalesce({{parameter}}::bigint, ` + clockSQL + `::bigint)`
)

// roundTrip runs statements as one transaction in one round trip. Sent together without
// BEGIN they would be a transaction as well, but at the default isolation level.
func (s *Store) roundTrip(ctx context.Context, queue func(*pgx.Batch)) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var b pgx.Batch
	b.Queue(begin)
	queue(&b)
	b.Queue(commit)
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		abort(ctx, conn.Conn())
		return err
	}
	return nil
}

// abort ends a transaction that failed, so that its connection can be used again. If that
// fails too, the pool drops the connection, which ends the transaction as well.
func abort(ctx context.Context, conn *pgx.Conn) {
	const idle = 'I'
	if !conn.IsClosed() && conn.PgConn().TxStatus() != idle {
		_, _ = conn.Exec(ctx, rollback)
	}
}

package pgstore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// sweepBatch is how many rows one transaction of the sweep deletes.
	sweepBatch = 500
	// sweepTimeout bounds one such transaction.
	sweepTimeout = 5 * time.Second
	// sweptSQL is the instant up to which a sweep takes what has expired. It leaves the
	// last minute alone, for those who decide at a time that they have read before, and
	// for clocks that step back.
	sweptSQL = `(SELECT coalesce($1::bigint, ` + clockSQL + `::bigint) - 60000)`
)

// sweepLoop deletes expired rows every now and then, until ctx ends. Its errors are of no
// interest: what it leaves, the next sweep finds.
func (s *Store) sweepLoop(ctx context.Context) {
	for {
		// Processes that were started together need not sweep together.
		wait := s.config.SweepInterval/2 + rand.N(s.config.SweepInterval) //nolint:gosec // chance, not secrecy
		if sleep(ctx, wait) != nil {
			return
		}
		for s.schema.ready.Load() {
			if n, err := s.sweep(ctx); err != nil || n < sweepBatch {
				break
			}
		}
	}
}

// sweep deletes a batch of expired rows and says how many it was.
func (s *Store) sweep(ctx context.Context) (deleted int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	err = s.roundTrip(ctx, func(b *pgx.Batch) {
		b.Queue(s.sql.sweep, s.instant(), sweepBatch).Exec(func(tag pgconn.CommandTag) error {
			deleted = tag.RowsAffected()
			return nil
		})
	})
	return deleted, err
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

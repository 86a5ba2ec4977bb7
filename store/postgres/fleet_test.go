package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

// reference does what an implementation in another language does: it takes the lock,
// reads, decides for itself and overwrites.
func reference(ctx context.Context, pool *pgxpool.Pool, table, key string, r throttlekit.Rule, cost float64) (d throttlekit.Decision, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		now := time.Now().UnixMilli()
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, key); err != nil {
			return err
		}
		var rec throttlekit.Record
		var state string
		err := tx.QueryRow(ctx, `SELECT state FROM `+table+` WHERE key = $1 AND expires_at > $2`, key, now).Scan(&state)
		switch {
		case err == nil:
			if rec, err = r.Decode([]byte(state)); err != nil {
				return err
			}
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
		next, decision, ttl := r.Apply(rec, now, cost)
		if d = decision; ttl == 0 {
			return nil
		}
		text, err := r.Encode(next)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO `+table+` (key, state, expires_at) VALUES ($1, $2, $3)`+
			` ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at`, key, string(text), now+ttl)
		return err
	})
	return d, err
}

// TestMixedFleet: our stores, on pools of several kinds, and a reference process admit
// together exactly what one of them would, in every round on a new key.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	const limit, callers = 50, 200
	table := newTable()
	plain, serializable := newPool(t, server, "pool_max_conns=8"), newPool(t, server, "pool_max_conns=8", "default_transaction_isolation=serializable")
	stores := []*pgstore.Store{
		newStore(t, plain, pgstore.Config{Table: table}),
		newStore(t, serializable, pgstore.Config{Table: table, MaxRetries: 100}),
	}
	if err := stores[0].Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Its table is there, its functions are not: every check takes two round trips.
	twoTrips := newStore(t, plain, pgstore.Config{Table: table, NoAutoCreate: true})
	twoTrips.WithoutFunctions()
	stores = append(stores, twoTrips)
	for _, s := range []throttlekit.Strategy{
		throttlekit.GCRA{Limit: limit, Period: 1000 * time.Hour},
		throttlekit.TokenBucket{Capacity: limit, RefillPerSec: 0.0001},
		throttlekit.FixedWindow{Limit: limit, Window: 10_000 * time.Hour},
		throttlekit.SlidingWindow{Limit: limit, Window: 10_000 * time.Hour},
		throttlekit.SlidingWindowLog{Limit: limit, Window: 10_000 * time.Hour},
	} {
		r := rule(t, s)
		t.Run(r.Name(), func(t *testing.T) {
			t.Parallel()
			var admitted atomic.Int64
			var running sync.WaitGroup
			start := make(chan struct{})
			for i := range callers {
				running.Go(func() {
					<-start
					var d throttlekit.Decision
					var err error
					switch n := i % 5; n {
					case 3:
						d, err = reference(t.Context(), plain, table, r.Name(), r, 1)
					case 4:
						var all []throttlekit.Decision
						ops := []throttlekit.Op{{Key: r.Name(), Transition: r, Cost: 1}, {Key: fmt.Sprint(r.Name(), i), Transition: r, Cost: 1}}
						if all, err = stores[i%3].Batch(t.Context(), ops, throttlekit.CommitAll); err == nil {
							d = all[0]
						}
					default:
						d, err = stores[n].Apply(t.Context(), r.Name(), r, 1)
					}
					if err != nil {
						t.Error(err)
					}
					if d.Allowed {
						admitted.Add(1)
					}
				})
			}
			close(start)
			running.Wait()
			if got := admitted.Load(); got != limit {
				t.Errorf("%d of %d checks at once were admitted, want %d", got, callers, limit)
			}
		})
	}
}

// TestResetUnderLoad: a reset is one of the operations on its key, so after all of them
// the count is that of the charges since one of the resets, never more than all charges.
func TestResetUnderLoad(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server, "pool_max_conns=8")
	store := newStore(t, pool, pgstore.Config{})
	r := rule(t, throttlekit.FixedWindow{Limit: 1e6, Window: 10_000 * time.Hour})
	var running sync.WaitGroup
	for i := range 80 {
		running.Go(func() {
			var err error
			if i%8 == 0 {
				err = store.Reset(t.Context(), "k")
			} else {
				_, err = store.Apply(t.Context(), "k", r, 1)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if err := store.Reset(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if rec, _, err := store.Load(t.Context(), "k", r); err != nil || rec != (throttlekit.Record{}) {
		t.Errorf("after a last reset there is %+v, %v", rec, err)
	}
}

// TestBatchOrder: batches over the same keys in all orders, atomic and not, with single
// checks between them, neither block each other for good nor lose a charge.
func TestBatchOrder(t *testing.T) {
	t.Parallel()
	const rounds, keys = 60, 6
	pool := newPool(t, server, "pool_max_conns=12")
	store := newStore(t, pool, pgstore.Config{})
	for _, s := range []throttlekit.Strategy{
		throttlekit.FixedWindow{Limit: 1e6, Window: 10_000 * time.Hour}, throttlekit.SlidingWindow{Limit: 1e6, Window: 10_000 * time.Hour},
	} {
		r := rule(t, s)
		var running sync.WaitGroup
		for i := range rounds {
			running.Go(func() {
				var ops []throttlekit.Op
				for k := range keys {
					k = (k*(1+i%2*4) + i) % keys // forwards and backwards, from anywhere
					ops = append(ops, throttlekit.Op{Key: fmt.Sprint(r.Name(), k), Transition: r, Cost: 1})
				}
				commit := []throttlekit.Commit{throttlekit.CommitEach, throttlekit.CommitAll, throttlekit.CommitAny}[i%3]
				if _, err := store.Batch(t.Context(), ops, commit); err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		for k := range keys {
			d, err := store.Apply(t.Context(), fmt.Sprint(r.Name(), k), r, 1)
			if want := int64(1e6 - rounds - 1); err != nil || d.Remaining != want {
				t.Errorf("%s %d: %+v, %v, want %d left", r.Name(), k, d, err, want)
			}
		}
	}
}

package pgstore_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

func TestSweep(t *testing.T) {
	t.Parallel()
	const rows = 1200
	pool := newPool(t, server)
	table := newTable()
	clock := throttlekit.NewManualClock(1_700_000_000_000)
	store := newStore(t, pool, pgstore.Config{Table: table, Clock: clock, SweepInterval: -1})
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, `INSERT INTO `+table+` SELECT 'k' || i, '1', $1::bigint + i FROM generate_series(1, $2) AS i`, clock.NowMillis(), rows)
	sweep := func(want int64) {
		t.Helper()
		if n, err := store.Sweep(t.Context()); err != nil || n != want {
			t.Errorf("%d rows were swept, %v, want %d", n, err, want)
		}
	}
	clock.Advance(time.Minute) // nobody decides at a time that is a minute old
	sweep(0)
	clock.Set(clock.NowMillis() + rows - 100)
	sweep(500) // in batches, by the clock of the store, not of the database
	sweep(500)
	sweep(100)
	sweep(0)
	clock.Advance(time.Second)

	// A row that somebody is renewing is left alone, before and after.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `UPDATE `+table+` SET expires_at = $1 WHERE key = 'k1150'`, clock.NowMillis()-59_999); err != nil {
		t.Fatal(err)
	}
	sweep(99)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	sweep(0)
	clock.Advance(time.Millisecond)
	sweep(1)
}

// TestSweepRunsByItself: stores that share a table sweep it every now and then.
func TestSweepRunsByItself(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	table := newTable()
	for range 3 {
		newStore(t, pool, pgstore.Config{Table: table, SweepInterval: 20 * time.Millisecond})
	}
	store := newStore(t, pool, pgstore.Config{Table: table, SweepInterval: 20 * time.Millisecond})
	if _, err := store.Apply(t.Context(), "lives", rule(t, slow), 1); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, `INSERT INTO `+table+` SELECT 'k' || i, '1', 1 FROM generate_series(1, 2000) AS i`)
	for n := 2001; n != 1; {
		query(t, pool, `SELECT count(*) FROM `+table, nil, &n)
		if t.Context().Err() != nil {
			t.Fatal("the rows are still there")
		}
	}
}

// brief counts its charges and expires soon.
type brief struct{ ttl int64 }

func (brief) Name() string { return "brief" }

func (b brief) Apply(rec throttlekit.Record, now int64, _ float64) (throttlekit.Record, throttlekit.Decision, int64) {
	rec.A++
	return rec, throttlekit.Decision{Allowed: true, Remaining: int64(rec.A), ResetAtMillis: now}, b.ttl
}

func (brief) Encode(rec throttlekit.Record) ([]byte, error) { return json.Marshal(rec.A) }

func (brief) Decode(text []byte) (rec throttlekit.Record, err error) {
	return rec, json.Unmarshal(text, &rec.A)
}

// TestSweepForgetsNothingLive: while another implementation, which leaves no minute
// alone, sweeps without pause, records that live for some milliseconds are forgotten
// exactly when their time is over.
func TestSweepForgetsNothingLive(t *testing.T) {
	t.Parallel()
	const users, checks, ttl = 6, 250, 3
	pool := newPool(t, server, "pool_max_conns=9")
	table := newTable()
	store := newStore(t, pool, pgstore.Config{Table: table, SweepInterval: -1})
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var sweeping, running sync.WaitGroup
	var swept int64
	sweeping.Go(func() {
		for ctx.Err() == nil {
			tag, err := pool.Exec(context.WithoutCancel(ctx), `DELETE FROM `+table+
				` WHERE expires_at <= floor(extract(epoch FROM clock_timestamp()) * 1000)`)
			if err != nil && !strings.Contains(err.Error(), "40P01") { // it locks rows in any order, so it may meet the checks
				t.Error(err)
			}
			swept += tag.RowsAffected()
		}
	})
	narrow := rule(t, throttlekit.FixedWindow{Limit: 1e6, Window: ttl * time.Millisecond})
	for user := range users {
		key := strconv.Itoa(user)
		step := func() (throttlekit.Decision, error) { return store.Apply(t.Context(), key, brief{ttl}, 1) }
		want := func(before, now throttlekit.Decision) int64 {
			if now.ResetAtMillis < before.ResetAtMillis+ttl {
				return before.Remaining + 1
			}
			return 1
		}
		if user%3 > 0 { // the database decides
			step = func() (throttlekit.Decision, error) { return store.Apply(t.Context(), key, narrow, 1) }
			want = func(before, now throttlekit.Decision) int64 {
				if now.ResetAtMillis == before.ResetAtMillis {
					return before.Remaining - 1
				}
				return 1e6 - 1
			}
		}
		if user%3 == 2 {
			step = func() (throttlekit.Decision, error) {
				all, err := store.Batch(t.Context(), []throttlekit.Op{
					{Key: key + "a", Transition: narrow, Cost: 1}, {Key: key, Transition: narrow, Cost: 1},
				}, throttlekit.CommitEach)
				if err != nil {
					return throttlekit.Decision{}, err
				}
				return all[1], nil
			}
		}
		running.Go(func() {
			before := throttlekit.Decision{ResetAtMillis: -ttl}
			for range checks {
				d, err := step()
				if err != nil {
					t.Error(err)
					return
				}
				if want := want(before, d); d.Remaining != want {
					t.Errorf("user %d: after %+v comes %+v, want %d", user, before, d, want)
				}
				before = d
			}
		})
	}
	running.Wait()
	stop()
	sweeping.Wait()
	t.Logf("%d rows were swept", swept)
}

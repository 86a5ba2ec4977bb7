package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

var (
	slow   = throttlekit.GCRA{Limit: 5, Period: time.Hour}
	bucket = throttlekit.TokenBucket{Capacity: 5, RefillPerSec: 0.001}
	window = throttlekit.FixedWindow{Limit: 5, Window: 1000 * time.Hour}
	rolls  = throttlekit.SlidingWindow{Limit: 5, Window: 1000 * time.Hour}
	log    = throttlekit.SlidingWindowLog{Limit: 5, Window: 1000 * time.Hour}
)

// flushes counts what is sent on connections. pgx sends all it has to say before it
// reads, so a flush is a round trip.
type flushes struct {
	net.Conn

	n *atomic.Int64
}

func (c flushes) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(b)
}

// TestRoundTrips holds every operation to its promise, once its statements are prepared.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	config, err := pgxpool.ParseConfig(server.URL() + "?pool_max_conns=1")
	if err != nil {
		t.Fatal(err)
	}
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return flushes{conn, &sent}, err
	}
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store := newStore(t, pool, pgstore.Config{SweepInterval: -1})
	apply := func(s throttlekit.Strategy, cost float64) func() error {
		r := rule(t, s)
		return func() error {
			_, err := store.Apply(t.Context(), r.Name(), r, cost)
			return err
		}
	}
	batch := func(commit throttlekit.Commit, n int, strategies ...throttlekit.Strategy) func() error {
		var ops []throttlekit.Op
		for i := range n {
			r := rule(t, strategies[i%len(strategies)])
			ops = append(ops, throttlekit.Op{Key: fmt.Sprint("batch", commit, i, r.Name()), Transition: r, Cost: 1})
		}
		return func() error {
			_, err := store.Batch(t.Context(), ops, commit)
			return err
		}
	}
	for _, tc := range []struct {
		name  string
		trips int64
		do    func() error
	}{
		{"gcra", 1, apply(slow, 0.001)},
		{"gcra denied", 1, apply(slow, 6)},
		{"tokenBucket", 1, apply(bucket, 0.001)},
		{"tokenBucket denied", 1, apply(bucket, 6)},
		{"fixedWindow", 1, apply(window, 0.001)},
		{"fixedWindow denied", 1, apply(window, 6)},
		{"slidingWindow", 2, apply(rolls, 0.001)},
		{"slidingWindow denied", 2, apply(rolls, 6)},
		{"slidingWindowLog", 2, apply(log, 1)},
		{"batch of each", 1, batch(throttlekit.CommitEach, 60, slow, bucket, window)},
		{"batch of each, mixed", 2, batch(throttlekit.CommitEach, 60, slow, rolls, log)},
		{"batch of all", 2, batch(throttlekit.CommitAll, 3, slow, bucket, rolls)},
		{"batch of any", 2, batch(throttlekit.CommitAny, 3, slow, bucket, rolls)},
		{"load", 1, func() error { _, _, err := store.Load(t.Context(), "gcra", rule(t, slow)); return err }},
		{"reset", 1, func() error { return store.Reset(t.Context(), "other") }},
	} {
		for try := range 3 {
			before := sent.Load()
			if err := tc.do(); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			if got := sent.Load() - before; try > 0 && got != tc.trips {
				t.Errorf("%s takes %d round trips, want %d", tc.name, got, tc.trips)
			}
		}
	}
}

// TestDenialsTouchNothing looks at the row itself: a denial leaves no new version of it
// and no lock on it.
func TestDenialsTouchNothing(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	table := newTable()
	store := newStore(t, pool, pgstore.Config{Table: table})
	for _, s := range []throttlekit.Strategy{slow, bucket, window, rolls, log} {
		r := rule(t, s)
		look := func() (row string) {
			query(t, pool, `SELECT concat(ctid, xmin, xmax, state, expires_at) FROM `+table+` WHERE key = $1`, []any{r.Name()}, &row)
			return row
		}
		if d, err := store.Apply(t.Context(), r.Name(), r, 4); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		before := look()
		if d, err := store.Apply(t.Context(), r.Name(), r, 4); err != nil || d.Allowed {
			t.Fatal(d, err)
		}
		if after := look(); after != before {
			t.Errorf("a denied %s turned %s into %s", r.Name(), before, after)
		}
	}
}

// TestForeignTexts: what the functions do not read, the core does, or refuses.
func TestForeignTexts(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	table := newTable()
	clock := throttlekit.NewManualClock(1_700_000_000_000)
	store := newStore(t, pool, pgstore.Config{Table: table, Prefix: "p", Clock: clock, SweepInterval: -1})
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	const good, corrupt = true, false
	for i, tc := range []struct {
		strategy throttlekit.Strategy
		text     string
		readable bool
	}{
		{slow, ` 1700000000001 `, good},
		{slow, `1.700000000001e12`, good},
		{slow, `-5`, good},
		{bucket, `{ "last" : 1699999999999, "tokens":2.5 }`, good},
		{bucket, `{"tokens":2.5e0,"last":1699999999999}`, good},
		{bucket, `{"tokens":1,"tokens":2,"last":1699999999999}`, good},
		{window, `{"count":2, "start":1699999999999}`, good},
		{slow, ``, corrupt},
		{slow, `null`, corrupt},
		{slow, `"1700000000000"`, corrupt},
		{slow, `NaN`, corrupt},
		{slow, `Infinity`, corrupt},
		{slow, `1e999`, corrupt},
		{slow, `0x10`, corrupt},
		{slow, `1700000000000.`, corrupt},
		{slow, `1 2`, corrupt},
		{slow, `{"tokens":1,"last":2}`, corrupt},
		{bucket, `1700000000000`, corrupt},
		{bucket, `{"tokens":1}`, corrupt},
		{bucket, `{"tokens":"1","last":2}`, corrupt},
		{bucket, `{"tokens":null,"last":2}`, corrupt},
		{bucket, `{"to1kens":1,"last":2}`, corrupt},
		{bucket, `{"tokens":,"last":2}`, corrupt},
		{bucket, `{"tokens":1,"last":2}}`, corrupt},
		{bucket, `{"tokens":1e999,"last":2}`, corrupt},
		{bucket, `{"tokens":1,"last":2,"more":3}`, corrupt},
		{window, `{"start":1,"count":"2"}`, corrupt},
		{window, `[1,2]`, corrupt},
		{rolls, `{"i":[1],"n":[1]}`, corrupt},
		{log, `[1,`, corrupt},
	} {
		r, key := rule(t, tc.strategy), fmt.Sprint("k", i)
		exec(t, pool, `INSERT INTO `+table+` VALUES ($1, $2, $3)`, "p:"+key, tc.text, clock.NowMillis()+1e6)
		d, err := store.Apply(t.Context(), key, r, 1)
		var text string
		query(t, pool, `SELECT state FROM `+table+` WHERE key = $1`, []any{"p:" + key}, &text)
		if tc.readable {
			rec, decodeErr := r.Decode([]byte(tc.text))
			if decodeErr != nil {
				t.Fatal(decodeErr)
			}
			next, want, _ := r.Apply(rec, clock.NowMillis(), 1)
			if err != nil || d != want || text != encode(t, r, next) {
				t.Errorf("%s: %+v, %v, stored %s; want %+v, stored %s", tc.text, d, err, text, want, encode(t, r, next))
			}
			continue
		}
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(fmt.Sprint(err), "corrupt") {
			t.Errorf("%s: %+v, %v, want an error that says corrupt", tc.text, d, err)
		}
		if text != tc.text {
			t.Errorf("%s was overwritten with %s", tc.text, text)
		}
		if _, _, err := store.Load(t.Context(), key, r); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("Load of %s: %v", tc.text, err)
		}
		batch := []throttlekit.Op{{Key: "fresh" + key, Transition: r, Cost: 1}, {Key: key, Transition: r, Cost: 1}}
		for _, commit := range []throttlekit.Commit{throttlekit.CommitEach, throttlekit.CommitAll, throttlekit.CommitAny} {
			if _, err := store.Batch(t.Context(), batch, commit); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
				t.Errorf("Batch with %s: %v", tc.text, err)
			}
		}
		if rec, _, err := store.Load(t.Context(), "fresh"+key, r); err != nil || rec != (throttlekit.Record{}) {
			t.Errorf("a batch that failed on %s charged the other key: %+v, %v", tc.text, rec, err)
		}
	}
}

// TestNumbersBeyondTheFunctions: numbers that PostgreSQL and ECMAScript write in
// different ways are left to the core.
func TestNumbersBeyondTheFunctions(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	table := newTable()
	clock := throttlekit.NewManualClock(1_700_000_000_000)
	store := newStore(t, pool, pgstore.Config{Table: table, Clock: clock, SweepInterval: -1})
	for i, tc := range []struct {
		strategy throttlekit.Strategy
		cost     float64
	}{
		{throttlekit.TokenBucket{Capacity: 1e22, RefillPerSec: 1e12}, 1},
		{throttlekit.TokenBucket{Capacity: 3e15, RefillPerSec: 1e9}, 7},
		{throttlekit.FixedWindow{Limit: 1e16, Window: time.Hour}, 9e15},
		{throttlekit.FixedWindow{Limit: 1e300, Window: time.Hour}, 2e15},
		{throttlekit.GCRA{Limit: 1, Period: 100_000 * time.Hour, Burst: 1e10}, 1e6},
	} {
		r, key := rule(t, tc.strategy), fmt.Sprint("k", i)
		var rec throttlekit.Record
		for range 3 {
			next, want, ttl := r.Apply(rec, clock.NowMillis(), tc.cost)
			d, err := store.Apply(t.Context(), key, r, tc.cost)
			if err != nil || d != want {
				t.Fatalf("%+v: %+v, %v, want %+v", tc.strategy, d, err, want)
			}
			batch, err := store.Batch(t.Context(), []throttlekit.Op{{Key: "b" + key, Transition: r, Cost: tc.cost}}, throttlekit.CommitEach)
			if err != nil || batch[0] != want {
				t.Fatalf("%+v in a batch: %+v, %v, want %+v", tc.strategy, batch, err, want)
			}
			if ttl > 0 {
				rec = next
			}
			for _, k := range []string{key, "b" + key} {
				var text string
				query(t, pool, `SELECT state FROM `+table+` WHERE key = $1`, []any{k}, &text)
				if text != encode(t, r, rec) {
					t.Fatalf("%+v stored %s, want %s", tc.strategy, text, encode(t, r, rec))
				}
			}
		}
	}
}

// wrapped is a user's rule that embeds one of the core's and decides otherwise.
type wrapped struct{ throttlekit.Rule }

func (w wrapped) Apply(rec throttlekit.Record, _ int64, _ float64) (throttlekit.Record, throttlekit.Decision, int64) {
	return rec, throttlekit.Decision{Limit: 42, RetryAfterMillis: 1}, 0
}

func TestWrappedRulesRunAsTheyAre(t *testing.T) {
	t.Parallel()
	store := newStore(t, newPool(t, server), pgstore.Config{})
	for _, s := range []throttlekit.Strategy{slow, bucket, window} {
		if d, err := store.Apply(t.Context(), "k", wrapped{rule(t, s)}, 1); err != nil || d.Limit != 42 {
			t.Errorf("a wrapped %T decides %+v, %v", s, d, err)
		}
	}
}

// TestSessionSettings: settings of a role or a pool that would change what SQL computes.
func TestSessionSettings(t *testing.T) {
	t.Parallel()
	for _, parameters := range []string{
		"extra_float_digits=0", "extra_float_digits=-15", "default_query_exec_mode=exec",
		"default_query_exec_mode=simple_protocol", "default_query_exec_mode=exec&statement_cache_capacity=0", "default_query_exec_mode=describe_exec", "default_query_exec_mode=cache_describe",
		"default_transaction_isolation=serializable", "default_transaction_isolation=repeatable%20read",
		"TimeZone=Asia/Kolkata", "DateStyle=German",
	} {
		t.Run(parameters, func(t *testing.T) {
			t.Parallel()
			clock := throttlekit.NewManualClock(1_700_000_000_123)
			pool := newPool(t, server, parameters)
			table := newTable()
			store := newStore(t, pool, pgstore.Config{Table: table, Clock: clock})
			for _, s := range []throttlekit.Strategy{throttlekit.GCRA{Limit: 7, Period: time.Second}, bucket, window, rolls, log} {
				r := rule(t, s)
				var rec throttlekit.Record
				for range 3 {
					want, d, _ := r.Apply(rec, clock.NowMillis(), 1)
					rec = want
					if got, err := store.Apply(t.Context(), r.Name(), r, 1); err != nil || got != d {
						t.Fatalf("%s: %+v, %v, want %+v", r.Name(), got, err, d)
					}
				}
				var text string
				query(t, pool, `SELECT state FROM `+table+` WHERE key = $1`, []any{r.Name()}, &text)
				if text != encode(t, r, rec) {
					t.Errorf("%s stored %s, want %s", r.Name(), text, encode(t, r, rec))
				}
				ops := []throttlekit.Op{{Key: r.Name(), Transition: r, Cost: 1}, {Key: "other" + r.Name(), Transition: r, Cost: 1}}
				for _, commit := range []throttlekit.Commit{throttlekit.CommitEach, throttlekit.CommitAll} {
					if _, err := store.Batch(t.Context(), ops, commit); err != nil {
						t.Errorf("%s: %v", r.Name(), err)
					}
				}
				if err := store.Reset(t.Context(), r.Name()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestDeadline: a call without one gets the store's.
func TestDeadline(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	store := newStore(t, pool, pgstore.Config{Timeout: 150 * time.Millisecond})
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	hold(t, pool, "k")
	for _, s := range []throttlekit.Strategy{slow, rolls} {
		began := time.Now()
		_, err := store.Apply(t.Context(), "k", rule(t, s), 1)
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want a store that is unavailable since the deadline passed", err)
		}
		if took := time.Since(began); took < 150*time.Millisecond || took > 5*time.Second {
			t.Errorf("answered after %v", took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := store.Apply(ctx, "k", rule(t, slow), 1); !errors.Is(err, context.Canceled) || errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("%v, want that the caller cancelled", err)
	}
}

// hold takes a key's lock and keeps it for the rest of the test.
func hold(t *testing.T, pool *pgxpool.Pool, key string) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, key); err != nil {
		t.Fatal(err)
	}
}

// TestDeadlock: the database sacrifices our transaction, and it is run again.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server, "deadlock_timeout=10ms")
	store := newStore(t, pool, pgstore.Config{})
	var first, second string // in the order in which batches lock them
	query(t, pool, `SELECT min(k), max(k) FROM (SELECT k, row_number() OVER (ORDER BY hashtextextended(k, 0)) AS n`+
		` FROM unnest('{a,b}'::text[]) AS k) AS s`, nil, &first, &second)
	query(t, pool, `SELECT k FROM unnest('{a,b}'::text[]) AS k ORDER BY hashtextextended(k, 0) LIMIT 1`, nil, &first)
	second = map[string]string{"a": "b", "b": "a"}[first]

	other, err := newPool(t, server, "deadlock_timeout=1h").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lock := func(tx pgx.Tx, key string) {
		if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, key); err != nil {
			t.Error(err)
		}
	}
	lock(other, second)
	done := make(chan error, 1)
	go func() {
		r := rule(t, slow)
		_, err := store.Batch(t.Context(), []throttlekit.Op{{Key: "a", Transition: r, Cost: 1}, {Key: "b", Transition: r, Cost: 1}}, throttlekit.CommitAll)
		done <- err
	}()
	lock(other, first) // ours has it by now or gets it later; in both cases this returns
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		d, err := store.Apply(t.Context(), key, rule(t, slow), 4)
		if err != nil || !d.Allowed || d.Remaining != 0 {
			t.Errorf("after one charge of 1 of 5, 4 more get %+v, %v", d, err)
		}
	}
}

// TestSerializationFailure: above READ COMMITTED, a check that waited for its key's lock sees
// the record of before, and the database does not let it overwrite the one of now. The check
// is made again at READ COMMITTED, which does not count as a retry, and is charged once.
func TestSerializationFailure(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"serializable", "repeatable%20read"} {
		for _, s := range []throttlekit.Strategy{slow, bucket, window} {
			for _, before := range []int{0, 1} {
				r := rule(t, s)
				t.Run(fmt.Sprint(level, "/", r.Name(), "/", before), func(t *testing.T) {
					t.Parallel()
					overtake(t, level, r, before)
				})
			}
		}
	}
}

// overtake charges a key, which has been charged some times before, while a check waits for its lock.
func overtake(t *testing.T, level string, r throttlekit.Rule, before int) {
	t.Helper()
	clock, table := throttlekit.NewManualClock(1_700_000_000_123), newTable()
	key := table // so that no other test takes its lock
	store := newStore(t, newPool(t, server, "default_transaction_isolation="+level),
		pgstore.Config{Table: table, Clock: clock, Timeout: 10 * time.Second, MaxRetries: -1})
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	var rec throttlekit.Record
	var want throttlekit.Decision
	var ttl int64
	for range before {
		rec, want, _ = r.Apply(rec, clock.NowMillis(), 1)
		if got, err := store.Apply(t.Context(), key, r, 1); err != nil || got != want {
			t.Fatalf("before: %+v, %v, want %+v", got, err, want)
		}
	}
	pool := newPool(t, server)
	other, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := other.Exec(t.Context(), `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, key); err != nil {
		t.Fatal(err)
	}
	var got throttlekit.Decision
	done := make(chan error, 1)
	go func() {
		var err error
		got, err = store.Apply(t.Context(), key, r, 1)
		done <- err
	}()
	for waits := false; !waits; {
		query(t, pool, `SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`+
			` AND (classid::bigint << 32) | objid::bigint = hashtextextended($1, 0)`, []any{key}, &waits)
	}
	rec, _, ttl = r.Apply(rec, clock.NowMillis(), 1)
	if _, err := other.Exec(t.Context(), `INSERT INTO `+table+` (key, state, expires_at) VALUES ($1, $2, $3)`+
		` ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at`,
		key, encode(t, r, rec), clock.NowMillis()+ttl); err != nil {
		t.Fatal(err)
	}
	if err := other.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec, want, _ = r.Apply(rec, clock.NowMillis(), 1)
	if err := <-done; err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	var text string
	query(t, pool, `SELECT state FROM `+table+` WHERE key = $1`, []any{key}, &text)
	if text != encode(t, r, rec) {
		t.Errorf("stored %s, want %s", text, encode(t, r, rec))
	}
}

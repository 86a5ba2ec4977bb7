package pgstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

// TestManyCreateAtOnce: pools as of 8 processes meet a table that is not there, while
// others run the plain statements of another implementation. All get their decision.
func TestManyCreateAtOnce(t *testing.T) {
	t.Parallel()
	const processes, rounds = 8, 6
	r := rule(t, throttlekit.FixedWindow{Limit: 1000, Window: window.Window})
	for round := range rounds {
		table := newTable()
		start := make(chan struct{})
		var running sync.WaitGroup
		for range processes {
			pool := newPool(t, server, "pool_max_conns=4")
			store := newStore(t, pool, pgstore.Config{Table: table})
			if round%2 == 1 { // connected already, so that they meet more closely
				if err := pool.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				running.Go(func() {
					<-start
					if d, err := store.Apply(t.Context(), "k", r, 1); err != nil || !d.Allowed {
						t.Errorf("%+v, %v", d, err)
					}
				})
			}
		}
		other := newPool(t, server)
		for range 2 {
			running.Go(func() {
				<-start
				// It may lose the race with an error of its own; that is its affair.
				_, _ = other.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS `+table+
					` (key TEXT PRIMARY KEY, state TEXT NOT NULL, expires_at BIGINT NOT NULL)`)
				_, _ = other.Exec(t.Context(), `CREATE INDEX IF NOT EXISTS `+table+`_expires_idx ON `+table+` (expires_at)`)
			})
		}
		close(start)
		running.Wait()
		var count, indexes int
		query(t, other, `SELECT (state::json ->> 'count')::int FROM `+table+` WHERE key = 'k'`, nil, &count)
		query(t, other, `SELECT count(*) FROM pg_indexes WHERE tablename = $1`, []any{table}, &indexes)
		if count != 3*processes || indexes != 2 {
			t.Errorf("%d charges were counted, want %d; %d indexes, want 2", count, 3*processes, indexes)
		}
	}
}

func TestSchemaQualifiedTable(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	exec(t, pool, `CREATE SCHEMA "order"`)
	store := newStore(t, pool, pgstore.Config{Table: "Order.Select"}) // reserved words, and case does not matter
	if d, err := store.Apply(t.Context(), "k", rule(t, slow), 1); err != nil || !d.Allowed || !store.HasFunctions() {
		t.Fatal(d, err)
	}
	var n int
	query(t, pool, `SELECT count(*) FROM pg_indexes WHERE schemaname = 'order' AND indexname = 'order_select_expires_idx'`, nil, &n)
	if n != 1 {
		t.Error("the index has another name")
	}
	query(t, pool, `SELECT count(*) FROM "order"."select"`, nil, &n)
	if n != 1 {
		t.Error("the row is elsewhere")
	}
	nowhere := newStore(t, pool, pgstore.Config{Table: "nowhere.limits"})
	if _, err := nowhere.Apply(t.Context(), "k", rule(t, slow), 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) ||
		!strings.Contains(err.Error(), `schema "nowhere" does not exist`) {
		t.Error(err)
	}
}

// TestSchemaByHand: what Schema prints is what the store would create, and may be run twice.
func TestSchemaByHand(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server, "default_query_exec_mode=simple_protocol")
	config := pgstore.Config{Table: newTable(), NoAutoCreate: true}
	before := newStore(t, pool, config)
	if _, err := before.Apply(t.Context(), "k", rule(t, slow), 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) ||
		!strings.Contains(err.Error(), "does not exist") {
		t.Errorf("without a table: %v", err)
	}
	sql, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	exec(t, pool, sql)
	exec(t, pool, sql)
	for name, store := range map[string]*pgstore.Store{"a store from before": before, "a new store": newStore(t, pool, config)} {
		if d, err := store.Apply(t.Context(), name, rule(t, slow), 1); err != nil || !d.Allowed {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if !store.HasFunctions() {
			t.Errorf("%s has not found the functions", name)
		}
	}
	if _, err := (pgstore.Config{Table: "a;b"}).Schema(); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Error(err)
	}
}

// TestTableOfAnotherImplementation: a role that may write to the table but create nothing
// gets its decisions, in two round trips, and in one once the functions are there.
func TestTableOfAnotherImplementation(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	table := newTable()
	exec(t, pool, `CREATE TABLE `+table+` (key TEXT PRIMARY KEY, state TEXT NOT NULL, expires_at BIGINT NOT NULL)`)
	exec(t, pool, `CREATE ROLE guest LOGIN`)
	exec(t, pool, `GRANT SELECT, INSERT, UPDATE, DELETE ON `+table+` TO guest`)
	guest := newPool(t, server, "user=guest")
	for _, functions := range []bool{false, true} {
		if functions {
			sql, err := pgstore.Config{Table: table}.Schema()
			if err != nil {
				t.Fatal(err)
			}
			exec(t, newPool(t, server, "default_query_exec_mode=simple_protocol"), sql)
		}
		store := newStore(t, guest, pgstore.Config{Table: table, SweepInterval: -1})
		for _, s := range []throttlekit.Strategy{slow, bucket, window, rolls, log} {
			key := fmt.Sprint(functions, rule(t, s).Name())
			if d, err := store.Apply(t.Context(), key, rule(t, s), 2); err != nil || d.Remaining != 3 {
				t.Errorf("%s: %+v, %v", key, d, err)
			}
		}
		if store.HasFunctions() != functions {
			t.Errorf("the store has functions: %t, want %t", store.HasFunctions(), functions)
		}
	}
	exec(t, pool, `REVOKE INSERT, UPDATE ON `+table+` FROM guest`)
	refused := newStore(t, guest, pgstore.Config{Table: table})
	for _, s := range []throttlekit.Strategy{slow, rolls} {
		if _, err := refused.Apply(t.Context(), "fresh", rule(t, s), 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) ||
			!strings.Contains(err.Error(), "permission denied for table "+table) {
			t.Errorf("without permission: %v", err)
		}
	}
	exec(t, pool, `GRANT INSERT, UPDATE ON `+table+` TO guest`)
	for _, s := range []throttlekit.Strategy{slow, rolls} {
		if d, err := refused.Apply(t.Context(), "fresh "+rule(t, s).Name(), rule(t, s), 1); err != nil || !d.Allowed {
			t.Errorf("with permission again: %+v, %v", d, err)
		}
	}
	alone := newStore(t, guest, pgstore.Config{Table: newTable()})
	if _, err := alone.Apply(t.Context(), "k", rule(t, slow), 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) ||
		!strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a role that may not create the table: %v", err)
	}
}

// TestDropped: somebody drops the table or the functions under a running store.
func TestDropped(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	table := newTable()
	store := newStore(t, pool, pgstore.Config{Table: table})
	frozen := newStore(t, pool, pgstore.Config{Table: table, NoAutoCreate: true})
	all := []throttlekit.Rule{rule(t, slow), rule(t, bucket), rule(t, window), rule(t, rolls), rule(t, log)}
	check := func(when string) {
		t.Helper()
		for _, r := range all {
			if d, err := store.Apply(t.Context(), when+r.Name(), r, 5); err != nil || !d.Allowed {
				t.Errorf("%s: %s: %+v, %v", when, r.Name(), d, err)
			}
		}
	}
	drop := func() { exec(t, pool, `DROP TABLE `+table) }
	check("at first")
	for _, again := range []func(){
		func() { check("after the table was dropped") },
		func() {
			if err := store.Reset(t.Context(), "k"); err != nil {
				t.Error(err)
			}
		},
		func() {
			if rec, _, err := store.Load(t.Context(), "at first"+all[0].Name(), all[0]); err != nil || rec != (throttlekit.Record{}) {
				t.Error(rec, err)
			}
		},
		func() {
			for _, commit := range []throttlekit.Commit{throttlekit.CommitEach, throttlekit.CommitAll} {
				if _, err := store.Batch(t.Context(), []throttlekit.Op{{Key: "k", Transition: all[0], Cost: 1}}, commit); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		drop()
		if _, err := frozen.Apply(t.Context(), "k", all[0], 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("a store that creates nothing: %v", err)
		}
		again()
	}
	var drops string
	query(t, pool, `SELECT string_agg('DROP FUNCTION ' || oid::regprocedure, ';') FROM pg_proc WHERE prosrc LIKE '%"' || $1 || '"%'`, []any{table}, &drops)
	for range 2 {
		exec(t, newPool(t, server, "default_query_exec_mode=simple_protocol"), drops)
		check("after the functions were dropped")
		check("and again")
		if !store.HasFunctions() {
			t.Error("the functions were not created again")
		}
		exec(t, pool, `DELETE FROM `+table)
	}
}

// TestWrongShapes: tables that are not ours are neither used nor changed.
func TestWrongShapes(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	for shape, want := range map[string]string{
		`(key text PRIMARY KEY, state text NOT NULL)`: "expires_at",
		`(id int)`: "does not exist",
		`(key text, state text NOT NULL, expires_at bigint NOT NULL)`:                             "ON CONFLICT",
		`(key text PRIMARY KEY, state int NOT NULL, expires_at bigint NOT NULL)`:                  "integer",
		`(key text PRIMARY KEY, state text NOT NULL, expires_at timestamptz NOT NULL)`:            "timestamp",
		`(key text PRIMARY KEY, state text NOT NULL, expires_at bigint NOT NULL, v int NOT NULL)`: "null value",
	} {
		table := newTable()
		exec(t, pool, `CREATE TABLE `+table+` `+shape)
		store := newStore(t, pool, pgstore.Config{Table: table, Prefix: "shape"})
		for _, s := range []throttlekit.Strategy{slow, rolls} {
			_, err := store.Apply(t.Context(), "k", rule(t, s), 1)
			if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), want) ||
				!strings.Contains(err.Error(), table) || !strings.Contains(err.Error(), `"shape"`) {
				t.Errorf("%s: %v, want %q", shape, err, want)
			}
		}
		var n int
		query(t, pool, `SELECT count(*) FROM `+table, nil, &n)
		if n != 0 {
			t.Errorf("%s: %d rows were written", shape, n)
		}
	}
}

package pgstore_test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
	"github.com/throttlekit/throttlekit-go/store/postgres/pgtest"
)

// server is the database that all tests share but those that break theirs.
var server *pgtest.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = pgtest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// newPool connects to a server. More parameters of the URL may follow.
func newPool(tb testing.TB, s *pgtest.Server, parameters ...string) *pgxpool.Pool {
	tb.Helper()
	pool, err := pgxpool.New(tb.Context(), s.URL()+"?"+strings.Join(parameters, "&"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

var tables atomic.Int64

// newTable is the name of a table that no other test uses.
func newTable() string { return fmt.Sprintf("limits_%d", tables.Add(1)) }

// newStore opens a store on a pool; its table is a new one unless the config names it.
func newStore(tb testing.TB, pool *pgxpool.Pool, config pgstore.Config) *pgstore.Store {
	tb.Helper()
	if config.Table == "" {
		config.Table = newTable()
	}
	if config.Timeout == 0 {
		config.Timeout = 20 * time.Second // the machine may be busy, and most tests are not about time
	}
	store, err := pgstore.New(pool, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	return store
}

func rule(tb testing.TB, s throttlekit.Strategy) throttlekit.Rule {
	tb.Helper()
	r, err := s.Rule()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// query scans one row.
func query(tb testing.TB, pool *pgxpool.Pool, sql string, args []any, into ...any) {
	tb.Helper()
	if err := pool.QueryRow(tb.Context(), sql, args...).Scan(into...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

func exec(tb testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	tb.Helper()
	if _, err := pool.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// warmPool is a pool all of whose connections are open, so that none is opened later.
func warmPool(tb testing.TB, parameters ...string) *pgxpool.Pool {
	tb.Helper()
	pool := newPool(tb, server, append(parameters, "pool_max_conn_idle_time=1h")...)
	var conns []*pgxpool.Conn
	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Release()
	}
	return pool
}

package pgstore

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// statements are the store's statements for its table.
type statements struct {
	read   string // the records of some keys, each with the time, or the time alone
	write  string // upserts records
	remove string
	sweep  string

	createTable string
	createIndex string
}

func makeStatements(n names) statements {
	fill := strings.NewReplacer("{{table}}", n.table, "{{index}}", n.index,
		"{{time}}", strings.ReplaceAll(timeSQL, "{{parameter}}", "$2"), "{{swept}}", sweptSQL).Replace
	return statements{
		// The statement sees the table as it was before it reads the clock; see sql/frame.sql.
		read: fill(`SELECT clock.now, t.key, t.state, t.expires_at FROM (SELECT {{time}} AS now OFFSET 0) AS clock` +
			` LEFT JOIN {{table}} AS t ON t.key = ANY ($1::text[])`),
		write: fill(`INSERT INTO {{table}} (key, state, expires_at)` +
			` SELECT key, state, expires_at FROM unnest($1::text[], $2::text[], $3::bigint[]) AS changed (key, state, expires_at)` +
			` ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at`),
		remove: fill(`DELETE FROM {{table}} WHERE key = $1`),
		// The inner query takes rows that nobody is changing, and looks at them again once
		// it has them; ARRAY runs it once. A row that is renewed meanwhile is not expired
		// any more and stays.
		sweep: fill(`DELETE FROM {{table}} WHERE key = ANY (ARRAY(SELECT key FROM {{table}} WHERE expires_at <= {{swept}}` +
			` ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)) AND expires_at <= {{swept}}`),
		createTable: fill(`CREATE TABLE IF NOT EXISTS {{table}}` +
			` (key text PRIMARY KEY, state text NOT NULL, expires_at bigint NOT NULL)`),
		createIndex: fill(`CREATE INDEX IF NOT EXISTS {{index}} ON {{table}} (expires_at)`),
	}
}

// Schema is the SQL that creates all the store needs, for programs that set NoAutoCreate.
// It may be run again. The error matches [throttlekit.ErrInvalid].
func (c Config) Schema() (string, error) {
	_, n, err := c.resolve()
	if err != nil {
		return "", err
	}
	sql := makeStatements(n)
	parts := []string{sql.createTable + ";\n", sql.createIndex + ";\n"}
	for _, f := range makeFunctions(n) {
		parts = append(parts, strings.TrimRight(f.create, "\n")+";\n")
	}
	return strings.Join(parts, "\n"), nil
}

const (
	// createTimeout bounds the creation, which goes on when the callers that wait for it give up.
	createTimeout = 10 * time.Second
	createRetries = 10
	// createLock keeps our own processes from creating at once. It has two halves, which
	// keeps it apart from the locks of records.
	createLock = `SELECT pg_advisory_xact_lock(1953066862, hashtext($1))`
)

// schema knows whether the table and the functions are there.
type schema struct {
	ready     atomic.Bool
	functions atomic.Bool

	mu      sync.Mutex
	attempt *attempt // under way
}

// attempt is one look at the schema, which many callers wait for.
type attempt struct {
	done chan struct{}
	err  error // once done
}

// ensure returns once the table is there.
func (s *Store) ensure(ctx context.Context) error {
	if s.schema.ready.Load() {
		return nil
	}
	a, err := s.attempt()
	if err != nil {
		return err
	}
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attempt joins the attempt under way or starts one. It runs on its own, so that callers
// of little patience get there together.
func (s *Store) attempt() (*attempt, error) {
	s.schema.mu.Lock()
	defer s.schema.mu.Unlock()
	if a := s.schema.attempt; a != nil {
		return a, nil
	}
	a := &attempt{done: make(chan struct{})}
	err := s.goWhileOpen(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, createTimeout)
		defer cancel()
		a.err = s.prepare(ctx)
		s.schema.mu.Lock()
		s.schema.attempt = nil
		s.schema.mu.Unlock()
		close(a.done)
	})
	if err != nil {
		return nil, err
	}
	s.schema.attempt = a
	return a, nil
}

// prepare looks for the table and the functions and creates what is missing.
func (s *Store) prepare(ctx context.Context) error {
	found, err := s.look(ctx, s.pool)
	for try := 0; err == nil && !found.all() && !s.config.NoAutoCreate; try++ {
		if err = s.create(ctx, found); isRace(err) && try < createRetries {
			err = pause(ctx, try)
		} else if err != nil {
			break
		}
		if err == nil {
			found, err = s.look(ctx, s.pool)
		}
	}
	switch {
	case err == nil:
	case found.table && isForbidden(err):
		// A role that may use the table but create nothing: the core decides.
	default:
		return err
	}
	s.schema.functions.Store(found.functions)
	s.schema.ready.Store(true)
	return nil
}

// inventory is what there is of the schema.
type inventory struct{ table, index, functions bool }

func (i inventory) all() bool { return i.table && i.index && i.functions }

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (s *Store) look(ctx context.Context, q querier) (found inventory, err error) {
	signatures := make([]string, 0, kinds)
	for _, f := range s.functions {
		signatures = append(signatures, f.signature)
	}
	err = q.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL,`+
		` (SELECT bool_and(coalesce(has_function_privilege(to_regprocedure(f), 'EXECUTE'), false)) FROM unnest($3::text[]) AS f)`,
		s.names.table, s.names.schema+s.names.index, signatures).Scan(&found.table, &found.index, &found.functions)
	return found, err
}

// create creates what is missing, the table and the functions apart, because a role may
// be allowed the one and not the other.
func (s *Store) create(ctx context.Context, found inventory) error {
	if !found.table || !found.index {
		if err := s.createAll(ctx, s.sql.createTable, s.sql.createIndex); err != nil {
			return err
		}
	}
	if found.functions {
		return nil
	}
	var functions []string
	for _, f := range s.functions {
		functions = append(functions, f.create)
	}
	return s.createAll(ctx, functions...)
}

// createAll runs statements in one transaction, one process at a time.
func (s *Store) createAll(ctx context.Context, statements ...string) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, createLock, s.names.table); err != nil {
			return err
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}

package pgstore

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Store is a [throttlekit.Store] on PostgreSQL 11 or later.
type Store struct {
	pool      *pgxpool.Pool
	owned     bool // the store made the pool and closes it
	config    Config
	names     names
	sql       statements
	functions [kinds]function
	prefix    string

	schema   schema
	explicit atomic.Bool // every transaction must say which settings it needs

	mu         sync.Mutex // orders Close and new background work
	closed     atomic.Bool
	life       context.Context //nolint:containedctx // it is what background work belongs to
	end        context.CancelFunc
	background sync.WaitGroup
}

// New returns a store on a pool that the caller lends and closes. It connects to nothing
// yet. The error matches [throttlekit.ErrInvalid].
//
// The pool's size bounds how many checks run at once; the others wait for a connection
// within their deadline. A check whose deadline passes while the database works on it
// costs its connection.
func New(pool *pgxpool.Pool, config Config) (*Store, error) {
	config, n, err := config.resolve()
	if err != nil {
		return nil, err
	}
	if pool == nil {
		return nil, &throttlekit.InvalidError{Field: "pool", Value: nil, Rule: "must be given"}
	}
	s := &Store{pool: pool, config: config, names: n, sql: makeStatements(n), functions: makeFunctions(n)}
	if config.Prefix != "" {
		s.prefix = config.Prefix + ":"
	}
	s.life, s.end = context.WithCancel(context.Background())
	if config.SweepInterval > 0 {
		s.background.Go(func() { s.sweepLoop(s.life) })
	}
	return s, nil
}

const (
	// connectTimeout bounds an attempt to connect, unless the URL has a connect_timeout.
	connectTimeout = 5 * time.Second
	// closeTimeout is how long Close waits for connections to end.
	closeTimeout = time.Second
)

// Open returns a store with a pool of its own, which Close closes. The URL may also be a
// list of "key=value" pairs, and takes pgxpool's parameters such as pool_max_conns. Open
// connects to nothing yet. The error matches [throttlekit.ErrInvalid] and does not show
// the URL, which may hold a password.
func Open(url string, config Config) (*Store, error) {
	invalid := &throttlekit.InvalidError{
		Field: "postgresUrl", Value: "a text that is not shown, for it may hold a password",
		Rule: "must be a PostgreSQL URL such as postgres://user@host:5432/database",
	}
	if strings.TrimSpace(url) == "" {
		invalid.Value = url
		return nil, invalid
	}
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, invalid
	}
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	if _, ok := c.ConnConfig.RuntimeParams["application_name"]; !ok {
		c.ConnConfig.RuntimeParams["application_name"] = "throttlekit"
	}
	if _, _, err := config.resolve(); err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return nil, invalid
	}
	s, err := New(pool, config)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.owned = true
	return s, nil
}

// Apply implements [throttlekit.Store].
func (s *Store) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	full, err := s.key(key)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	var d throttlekit.Decision
	err = s.bounded(ctx, func(ctx context.Context) (err error) {
		d, err = s.apply(ctx, full, t, cost)
		return err
	})
	return d, err
}

func (s *Store) apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (d throttlekit.Decision, err error) {
	c, ok := recognize(t)
	err = s.retry(ctx, func() (err error) {
		if ok && s.schema.functions.Load() {
			d, err = s.check(ctx, key, c, t, cost)
			if !s.leftToCore(err) {
				return err
			}
		}
		op := throttlekit.Op{Key: key, Transition: t, Cost: cost}
		b := &batch{keys: []string{key}, ops: []throttlekit.Op{op}, at: s.instant(), decisions: make([]throttlekit.Decision, 1)}
		err = s.transact(ctx, b, []int{0})
		d = b.decisions[0]
		return err
	})
	if err != nil {
		return throttlekit.Decision{}, err
	}
	return d, nil
}

// Batch implements [throttlekit.Store]. All commit modes are supported. Beyond 64 ops, a
// CommitEach batch runs in several transactions, each at an instant of its own, and an
// error may come after some of them.
func (s *Store) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	b := &batch{
		keys: make([]string, len(ops)), ops: ops, commit: commit, at: s.instant(), decisions: make([]throttlekit.Decision, len(ops)),
	}
	seen := make(map[string]bool, len(ops))
	for i, op := range ops {
		full, err := s.key(op.Key)
		if err != nil {
			return nil, err
		}
		if commit != throttlekit.CommitEach && seen[full] {
			return nil, &throttlekit.InvalidError{Field: "keys", Value: op.Key, Rule: "must be distinct in an atomic batch"}
		}
		b.keys[i], seen[full] = full, true
	}
	if err := s.bounded(ctx, func(ctx context.Context) error { return s.run(ctx, b) }); err != nil {
		return nil, err
	}
	return b.decisions, nil
}

// Load implements [throttlekit.Store].
func (s *Store) Load(ctx context.Context, key string, t throttlekit.Transition) (rec throttlekit.Record, nowMillis int64, err error) {
	full, err := s.key(key)
	if err != nil {
		return throttlekit.Record{}, 0, err
	}
	err = s.bounded(ctx, func(ctx context.Context) error {
		return s.retry(ctx, func() error {
			rows, err := s.pool.Query(ctx, s.sql.read, []string{full}, s.instant())
			if err != nil {
				return err
			}
			now, records, err := live(rows)
			if err == nil {
				nowMillis = now
				rec, err = decode(t, records, full)
			}
			return err
		})
	})
	if err != nil {
		return throttlekit.Record{}, 0, err
	}
	return rec, nowMillis, nil
}

// Reset implements [throttlekit.Store].
func (s *Store) Reset(ctx context.Context, key string) error {
	full, err := s.key(key)
	if err != nil {
		return err
	}
	return s.bounded(ctx, func(ctx context.Context) error {
		return s.retry(ctx, func() error {
			return s.roundTrip(ctx, func(b *pgx.Batch) {
				b.Queue(lock, []string{full})
				b.Queue(s.sql.remove, full)
			})
		})
	})
}

// Close stops the sweep and closes the store's own pool; a pool that was lent stays open.
// It may be called more than once. It waits up to a second for calls under way, whose
// connections then close by themselves.
func (s *Store) Close() error {
	s.mu.Lock()
	first := s.closed.CompareAndSwap(false, true)
	s.mu.Unlock()
	s.end()
	s.background.Wait()
	if !first || !s.owned {
		return nil
	}
	closed := make(chan struct{})
	go func() {
		s.pool.Close()
		close(closed)
	}()
	patience := time.NewTimer(closeTimeout)
	defer patience.Stop()
	select {
	case <-closed:
	case <-patience.C:
	}
	return nil
}

// goWhileOpen runs background work, which Close ends and waits for.
func (s *Store) goWhileOpen(work func(context.Context)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return throttlekit.ErrClosed
	}
	s.background.Go(func() { work(s.life) })
	return nil
}

// bounded runs an operation within a deadline and puts its error into form.
func (s *Store) bounded(ctx context.Context, operation func(context.Context) error) error {
	if s.closed.Load() {
		return throttlekit.ErrClosed
	}
	inner := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		inner, cancel = context.WithTimeout(ctx, s.config.Timeout)
		defer cancel()
	}
	return s.fail(ctx, operation(inner))
}

// instant is the time by the configured clock, or nil for the database's.
func (s *Store) instant() any {
	if s.config.Clock == nil {
		return nil
	}
	return s.config.Clock.NowMillis()
}

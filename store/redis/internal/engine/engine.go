// Package engine is the Redis store without a Redis client: scripts, layouts, batches,
// transactions and errors. The packages redisstore and goredis bring the clients.
package engine

import (
	"context"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// Config is described where users see it, in the packages that export it.
type Config struct {
	Prefix     string
	Timeout    time.Duration
	Clock      throttlekit.Clock
	MaxRetries int
	TTLFloor   time.Duration
}

const (
	defaultTimeout    = 250 * time.Millisecond
	defaultMaxRetries = 32
)

// Store implements [throttlekit.Store] on a Client.
type Store struct {
	client  Client
	config  Config
	prefix  string // as it stands before keys
	least   string // the shortest time to live, in milliseconds
	plans   plans
	stripes stripes
	secrets []string // texts that no error may show
	closed  atomic.Bool

	deadlines deadlines
}

// Complete fills in the defaults of a configuration, or says what is wrong with it.
func (c Config) Complete() (Config, error) {
	for _, check := range []struct {
		field string
		value any
		wrong bool
	}{
		{"timeout", c.Timeout, c.Timeout < 0},
		{"ttlFloor", c.TTLFloor, c.TTLFloor < 0},
	} {
		if check.wrong {
			return c, &throttlekit.InvalidError{Field: check.field, Value: check.value, Rule: "must not be negative"}
		}
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	switch {
	case c.MaxRetries == 0:
		c.MaxRetries = defaultMaxRetries
	case c.MaxRetries < 0:
		c.MaxRetries = 0
	}
	return c, nil
}

// New returns a store on a client, which it closes when it is closed. Errors will not show the secrets.
func New(client Client, config Config, secrets ...string) (*Store, error) {
	config, err := config.Complete()
	if err != nil {
		return nil, err
	}
	s := &Store{client: client, config: config, secrets: secrets, stripes: newStripes()}
	if config.Prefix != "" {
		s.prefix = config.Prefix + ":"
	}
	s.least = strconv.FormatInt(config.TTLFloor.Milliseconds(), 10)
	s.plans.least = s.least
	s.deadlines.timeout = config.Timeout
	return s, nil
}

// begin gives a call its deadline.
func (s *Store) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if s.closed.Load() {
		return nil, nil, throttlekit.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := s.deadlines.bound(ctx)
	return ctx, cancel, nil
}

// now is the time argument of a script.
func (s *Store) now() string {
	if s.config.Clock == nil {
		return serverClock
	}
	return instant(s.config.Clock.NowMillis())
}

// eval runs a script by its digest, and once by its text if the server does not know it.
// That reply proves that it did not run.
func (s *Store) eval(ctx context.Context, call Call) (Reply, error) {
	reply, err := s.client.Eval(ctx, call)
	if err != nil && notLoaded(err) {
		call.Whole = true
		return s.client.Eval(ctx, call)
	}
	return reply, err
}

// validCost refuses what a script would take for a number and store.
func validCost(cost float64) error {
	if math.IsNaN(cost) || math.IsInf(cost, 0) {
		return &throttlekit.InvalidError{Field: "cost", Value: cost, Rule: "must be a finite number"}
	}
	return nil
}

// Apply implements [throttlekit.Store].
func (s *Store) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	if err := validCost(cost); err != nil {
		return throttlekit.Decision{}, err
	}
	inner, cancel, err := s.begin(ctx)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	defer cancel()
	d, err := s.apply(inner, s.prefix+key, t, cost)
	if err != nil {
		return throttlekit.Decision{}, s.explain(ctx, err)
	}
	return d, nil
}

func (s *Store) apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	plan := s.plans.of(t)
	if plan == nil {
		return s.applyHere(ctx, key, t, cost)
	}
	reply, err := s.eval(ctx, Call{Script: plan.kind.Script, Key: key, Args: plan.args(s.now(), cost)})
	if err != nil {
		return throttlekit.Decision{}, err
	}
	return plan.decision(&reply)
}

// Reset implements [throttlekit.Store].
func (s *Store) Reset(ctx context.Context, key string) error {
	inner, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := s.client.Unlink(inner, s.prefix+key); err != nil {
		return s.explain(ctx, err)
	}
	return nil
}

// Close implements [throttlekit.Store].
func (s *Store) Close() error {
	if !s.closed.Swap(true) {
		s.client.Close()
	}
	return nil
}

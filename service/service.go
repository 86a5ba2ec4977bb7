package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// Bounds of a request. A request beyond them is answered with an error that matches
// [throttlekit.ErrInvalid].
const (
	// MaxKeyBytes is the length of the longest key, in bytes.
	MaxKeyBytes = 64 << 10
	// MaxKeys is the most keys that one [Service.CheckMany] takes.
	MaxKeys = 10_000
)

// Config says what a [Service] holds.
type Config struct {
	// Policies are what the service answers for. The service closes them. Their names
	// must be unique and not empty.
	Policies []Policy
	// FailMode is for policies that do not have one of their own. Defaults to FailOpen.
	FailMode FailMode
	// Taps are told every decision, in this order.
	Taps []Tap
	// Logger is told when a fail mode answers, at most once in ten seconds for each
	// policy. Defaults to silence.
	Logger *slog.Logger
	// Now is the clock that times decisions for the taps, and leases on slots. Defaults to
	// [time.Now]. It has no part in a decision, which comes from the clock of the store.
	Now func() time.Time
	// Clock says when decisions were made, if Now is too dear for that: then one decision of a
	// policy in each millisecond of Clock is timed by Now, and the others are not timed. With
	// a [throttlekit.CoarseClock] taps cost a third. Defaults to none.
	Clock throttlekit.Clock
	// LeaseTTL is how long a lease of [Service.Admit] lasts unless it is renewed, at least
	// 1 ms. Defaults to [DefaultLeaseTTL].
	LeaseTTL time.Duration
}

// Service holds policies by name and answers for them. It is safe for concurrent use.
type Service struct {
	held   map[string]*held // never changes after New
	infos  []Info
	names  string // the configured names, as error messages list them
	taps   []Tap
	logger *slog.Logger
	now    func() time.Time
	clock  throttlekit.Clock // nil for none
	born   time.Time
	leases *leases

	standIns atomic.Int64
	panics   gate
	closed   atomic.Bool
	close    func() error
}

// held is a policy with what New has found out about it, so that a request costs one
// look-up and no type assertion.
type held struct {
	policy     Policy
	info       Info
	mode       FailMode
	checker    Checker
	batch      BatchChecker
	peeker     Peeker
	forecaster Forecaster
	debiter    Debiter
	reserver   Reserver
	admitter   Admitter
	failing    atomic.Bool // the fail mode made the latest decision
	outages    gate
	recoveries gate
	fences     atomic.Int64 // times that the policy was fenced
	taps       []heldTap
	timed      atomic.Int64 // the millisecond of the clock that had a decision timed
}

// New returns a service for the policies in config. The error matches
// [throttlekit.ErrInvalid] and names everything that is wrong; the policies then stay
// with the caller, who closes them.
func New(config Config) (*Service, error) {
	if config.FailMode == "" {
		config.FailMode = FailOpen
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the edge: it times decisions for taps, and decides nothing
	}
	s := &Service{
		held:   make(map[string]*held, len(config.Policies)),
		infos:  make([]Info, 0, len(config.Policies)),
		taps:   append([]Tap(nil), config.Taps...),
		logger: config.Logger,
		now:    config.Now,
		clock:  config.Clock,
		born:   config.Now(),
	}
	if config.LeaseTTL == 0 {
		config.LeaseTTL = DefaultLeaseTTL
	}
	s.leases = newLeases(config.LeaseTTL, func() time.Duration { return s.now().Sub(s.born) })
	wrong := []error{validMode("failMode", config.FailMode, false)}
	if config.LeaseTTL < time.Millisecond {
		wrong = append(wrong, &throttlekit.InvalidError{Field: "leaseTTL", Value: config.LeaseTTL, Rule: "must be at least 1ms"})
	}
	for i, tap := range config.Taps {
		if tap == nil {
			wrong = append(wrong, &throttlekit.InvalidError{Field: fmt.Sprintf("taps[%d]", i), Value: nil, Rule: "must be given"})
		}
	}
	for i, p := range config.Policies {
		wrong = append(wrong, s.hold(i, p, config.FailMode))
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	s.names = listNames(s.infos)
	s.close = sync.OnceValue(s.closeAll)
	return s, nil
}

// hold adds the policy that stands at place i of the configuration.
func (s *Service) hold(i int, p Policy, fallback FailMode) error {
	field := fmt.Sprintf("policies[%d]", i)
	if p == nil {
		return &throttlekit.InvalidError{Field: field, Value: nil, Rule: "must be given"}
	}
	h := &held{policy: p, info: p.Info()}
	if h.mode = h.info.FailMode; h.mode == "" {
		h.mode = fallback
	}
	h.checker, _ = p.(Checker)
	h.batch, _ = p.(BatchChecker)
	h.peeker, _ = p.(Peeker)
	h.forecaster, _ = p.(Forecaster)
	h.debiter, _ = p.(Debiter)
	h.reserver, _ = p.(Reserver)
	h.admitter, _ = p.(Admitter)

	name := h.info.Name
	wrong := []error{validMode(field+".failMode", h.info.FailMode, true)}
	switch {
	case name == "":
		wrong = append(wrong, &throttlekit.InvalidError{Field: field + ".name", Value: name, Rule: "must not be empty"})
	case s.held[name] != nil:
		wrong = append(wrong, &throttlekit.InvalidError{Field: field + ".name", Value: name, Rule: "must be unique"})
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	if p, ok := p.(Steadfast); ok {
		p.TellOutages(func(err error) { s.tellOutage(h, err) })
	}
	if p, ok := p.(Fenceable); ok {
		p.TellFences(func() {
			h.fences.Add(1)
			s.tellFence(h.info)
		})
	}
	for _, tap := range s.taps {
		h.taps = append(h.taps, newHeldTap(tap, h.info))
	}
	s.held[name] = h
	s.infos = append(s.infos, h.info)
	return nil
}

func validMode(field string, mode FailMode, optional bool) error {
	if mode == FailOpen || mode == FailClosed || (mode == "" && optional) {
		return nil
	}
	return &throttlekit.InvalidError{Field: field, Value: string(mode), Rule: "must be open or closed"}
}

// Policies describes the policies, in the order of the configuration.
func (s *Service) Policies() []Info { return append([]Info(nil), s.infos...) }

// Close closes every policy and joins their errors. Leases on slots are forgotten, and the slots
// stay taken, as the work goes on that they are for. Requests that come later are
// answered with [throttlekit.ErrClosed]. It may be called more than once.
func (s *Service) Close() error { return s.close() }

func (s *Service) closeAll() error {
	s.closed.Store(true)
	s.leases.close()
	// Each may wait for a store that does not answer, so they do it together.
	wrong := make([]error, len(s.infos))
	var closing sync.WaitGroup
	for i, info := range s.infos {
		closing.Go(func() {
			if err := s.held[info.Name].policy.Close(); err != nil {
				wrong[i] = fmt.Errorf("closing policy %s: %w", quoted(info.Name), err)
			}
		})
	}
	closing.Wait()
	return errors.Join(wrong...)
}

// find is the policy under a name.
func (s *Service) find(name string) (*held, error) {
	h := s.held[name]
	if h == nil {
		return nil, fmt.Errorf("%w: %s; configured: %s", throttlekit.ErrPolicyNotFound, quoted(name), s.names)
	}
	return h, nil
}

// ready reports why a policy cannot take a request with such a key, if it cannot.
func (s *Service) ready(h *held, capable bool, operation, key string) error {
	switch {
	case s.closed.Load():
		return fmt.Errorf("%w: the service", throttlekit.ErrClosed)
	case !capable:
		return fmt.Errorf("%w: policy %s of kind %s cannot %s", throttlekit.ErrUnsupported, quoted(h.info.Name), h.info.Kind, operation)
	case len(key) > MaxKeyBytes:
		return tooLong(key)
	}
	return nil
}

// Check decides on one request of the given cost and charges it if it is allowed.
// Costs are above 0 and at most [throttlekit.MaxSafe]; keys are any bytes, also none,
// up to [MaxKeyBytes].
//
// The error matches ErrPolicyNotFound, ErrUnsupported, ErrInvalid or ErrClosed of
// package throttlekit, or is that of ctx. If the store cannot decide, the fail mode does,
// and there is no error.
func (s *Service) Check(ctx context.Context, policy, key string, cost float64) (throttlekit.Decision, error) {
	h, err := s.find(policy)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	return s.check(ctx, h, key, cost)
}

func (s *Service) check(ctx context.Context, h *held, key string, cost float64) (throttlekit.Decision, error) {
	if err := s.ready(h, h.checker != nil, "check", key); err != nil {
		return throttlekit.Decision{}, err
	}
	start := s.begin(h)
	d, err := h.checker.Check(ctx, key, cost)
	return s.conclude(ctx, h, key, cost, start, d, err)
}

// begin is when a request began, or zero if it is not to be timed for the taps.
func (s *Service) begin(h *held) (start time.Time) {
	if len(h.taps) == 0 {
		return start
	}
	if s.clock != nil {
		now := s.clock.NowMillis()
		if h.timed.Load() == now {
			return start
		}
		h.timed.Store(now)
	}
	return s.now()
}

// endMillis is end in epoch milliseconds.
func (s *Service) endMillis(start time.Time) (atMillis int64, took time.Duration) {
	if s.clock != nil && start.IsZero() {
		return s.clock.NowMillis(), 0
	}
	at := s.now()
	return at.UnixMilli(), at.Sub(start)
}

// end is when a request ended, and how long it took if it was timed.
func (s *Service) end(start time.Time) (at time.Time, took time.Duration) {
	if s.clock != nil && start.IsZero() {
		return time.UnixMilli(s.clock.NowMillis()), 0
	}
	at = s.now()
	return at, at.Sub(start)
}

// conclude makes an answer of what a policy gave for a request that consumes: the fail mode
// decides where the store could not, and the taps are told.
func (s *Service) conclude(
	ctx context.Context, h *held, key string, cost float64, start time.Time, d throttlekit.Decision, err error,
) (throttlekit.Decision, error) {
	var stoodIn FailMode
	if err != nil {
		if d, err = s.standIn(ctx, h, err, 1); err != nil {
			return throttlekit.Decision{}, err
		}
		stoodIn = h.mode
	} else {
		s.decided(ctx, h)
	}
	if len(h.taps) == 0 {
		return d, nil
	}
	if stoodIn == "" {
		at, took := s.endMillis(start)
		s.tellCheck(ctx, h, key, cost, d, at, took)
		return d, nil
	}
	e := Event{Policy: h.info, Key: key, Cost: cost, Decision: d, FailMode: stoodIn}
	e.At, e.Elapsed = s.end(start)
	s.tell(ctx, h, &e)
	return d, nil
}

// CheckMany decides on one request of the given cost for each key, at one instant, and
// returns the decisions in the order of the keys; no keys give no decisions. It takes up
// to [MaxKeys] keys. Otherwise it follows [Service.Check]; if the store cannot decide,
// the fail mode does, for every key.
func (s *Service) CheckMany(ctx context.Context, policy string, keys []string, cost float64) ([]throttlekit.Decision, error) {
	h, err := s.find(policy)
	if err != nil {
		return nil, err
	}
	if err := s.ready(h, h.batch != nil, "check many", ""); err != nil {
		return nil, err
	}
	if err := validKeys(keys); err != nil {
		return nil, err
	}
	start := s.begin(h)
	var stoodIn FailMode
	decisions, err := h.batch.CheckMany(ctx, keys, cost)
	switch {
	case err != nil:
		d, err := s.standIn(ctx, h, err, len(keys))
		if err != nil {
			return nil, err
		}
		stoodIn, decisions = h.mode, make([]throttlekit.Decision, len(keys))
		for i := range decisions {
			decisions[i] = d
		}
	case len(decisions) != len(keys):
		return nil, fmt.Errorf("service: policy %s gave %d decisions for %d keys", quoted(h.info.Name), len(decisions), len(keys))
	default:
		s.decided(ctx, h)
	}
	if len(h.taps) > 0 && len(keys) > 0 {
		at, took := s.end(start)
		share := took / time.Duration(len(keys))
		for i, key := range keys {
			s.tell(ctx, h, &Event{Policy: h.info, Key: key, Cost: cost, Decision: decisions[i], FailMode: stoodIn, At: at, Elapsed: share})
		}
	}
	return decisions, nil
}

// Peek is the decision that a check of cost 1 would get now. It charges nothing, and
// no tap is told. Errors are those of [Service.Check], and ErrStoreUnavailable: the fail
// mode is for requests that consume.
func (s *Service) Peek(ctx context.Context, policy, key string) (throttlekit.Decision, error) {
	h, err := s.find(policy)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	if err := s.ready(h, h.peeker != nil, "peek", key); err != nil {
		return throttlekit.Decision{}, err
	}
	return h.peeker.Peek(ctx, key)
}

// Forecast says how many requests of the given cost the key could spend now, and when it
// gets more. It charges nothing, and no tap is told. Errors are those of [Service.Peek].
func (s *Service) Forecast(ctx context.Context, policy, key string, cost float64) (throttlekit.Forecast, error) {
	h, err := s.find(policy)
	if err != nil {
		return throttlekit.Forecast{}, err
	}
	if err := s.ready(h, h.forecaster != nil, "forecast", key); err != nil {
		return throttlekit.Forecast{}, err
	}
	return h.forecaster.Forecast(ctx, key, cost)
}

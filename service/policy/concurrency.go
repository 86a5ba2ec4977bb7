package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/concurrency"
	"github.com/throttlekit/throttlekit-go/service"
)

// admitter is a policy that limits what is in flight, and with a strategy or a budget also how much
// is admitted over time. It admits and nothing else. Both kinds of concurrency make it.
type admitter struct {
	info    service.Info
	slots   admission.Guard
	guard   guard
	unified *admission.Admitter
	own     *throttlekit.MemoryStore // nil if the store is shared, or there is nothing to store
}

var (
	_ service.Admitter = (*admitter)(nil)
	_ service.Guarded  = (*admitter)(nil)
)

// guard is one of those in package concurrency.
type guard interface {
	TryAcquire() concurrency.Permit
	Close() error
}

const (
	// defaultWait is how long a request waits for a slot where requests may wait: half of what clients wait
	// for an answer if nobody tells them otherwise.
	defaultWait = 500 * time.Millisecond
	// longestWait leaves servers, which cut requests off after 30 s, the time to answer.
	longestWait = 25 * time.Second
)

// readConcurrency reads a policy that limits what is in flight in this process.
func readConcurrency(p *draft, block *entry) {
	ok := p.axes(block.key)
	s := p.block(block.key)
	if s == nil {
		return
	}
	config, wait, from := s.guard()
	s.finish()
	_, err := concurrency.NewGuard(config)
	s.place(err, from)
	if !ok || len(s.wrong) > 0 {
		return
	}
	p.admits(config, func(spec *spec, env Env) (service.Policy, error) {
		c := config
		c.Elapsed = env.elapsed()
		g, err := concurrency.NewGuard(c)
		if err != nil {
			return nil, err
		}
		return spec.admitter(env, g, g, wait)
	})
}

// axes reads the strategy and the budget of a policy that admits, if it has them.
func (p *draft) axes(kind string) (ok bool) {
	ok = true
	rated, budgeted := p.find("strategy") != nil, p.find("budget") != nil
	if rated {
		p.spec.rule, ok = readStrategy(p.scope)
	} else {
		p.explain = fieldOfStrategy
	}
	if budgeted {
		ok = p.costs() && ok
	}
	switch {
	case !rated:
		p.idle(kind, budgeted)
	case ok && budgeted:
		p.apart()
	}
	return ok
}

// idle reports fields of a policy without strategy that mean nothing: those about records, or a store,
// that it does not have.
func (p *draft) idle(kind string, budgeted bool) {
	var elsewhere, instead string
	if kind == "distributedConcurrency" {
		elsewhere = "that of the ceiling stands in distributedConcurrency"
		instead = "onCoordinatorOutage says what happens without the store"
	}
	if n := p.get("prefix"); n != nil && !p.wrong["prefix"] {
		switch b := p.inner["budget"]; {
		case !budgeted:
			p.fail("prefix", n, "must not be given without strategy or budget, whose records it is for", elsewhere)
		case b != nil && b.get("prefix") != nil:
			p.fail("prefix", n, "must not be given without strategy and with budget.prefix, for it has no records then", elsewhere)
		}
	}
	if n := p.get("failMode"); n != nil && !p.wrong["failMode"] && !budgeted {
		p.fail("failMode", n, "must not be given without strategy or budget, for slots need no store", instead)
	}
}

// fieldOfStrategy explains fields that stand where there is no strategy.
func fieldOfStrategy(field string) string {
	if slices.Contains(strategyFields(), field) {
		return "must not be given without strategy, whose field it is"
	}
	return ""
}

// costs reads by what a policy limits the costs of its requests, and where it keeps them.
func (p *draft) costs() (ok bool) {
	if n := p.entry("budget").value; n.kind != mapNode {
		p.fail("budget", n, "must be a mapping with budget and window, or with strategy", "")
		return false
	}
	s := p.block("budget")
	defer s.finish()
	prefix, given := s.word("prefix")
	switch {
	case given && prefix == "":
		s.fail("prefix", s.get("prefix"), "must not be empty", "")
	case p.inherits: // so do others, who would share their budgets
		p.spec.costs.prefix = cmp.Or(prefix, p.spec.prefix+"/"+p.spec.info.Name+"/cost")
	default: // no key of the rate begins like this, whatever callers name their keys
		p.spec.costs.prefix = cmp.Or(prefix, p.spec.prefix+"/cost")
	}
	if s.get("strategy") != nil {
		for _, field := range []string{"budget", "window"} {
			if n := s.get(field); n != nil {
				s.fail(field, n, "must not be given beside strategy, for one excludes the other", "")
			}
		}
		p.spec.costs.rule, ok = readStrategy(s)
		return ok
	}
	s.explain = fieldOfStrategy
	limit := s.needed("budget")
	if limit > budget.MaxTokens {
		s.fail("budget", s.get("budget"), fmt.Sprintf("must be at most %d", int64(budget.MaxTokens)), "")
	}
	width, from := s.window(true, "window", "windowMs")
	made := throttlekit.FixedWindow{Limit: limit, Window: width}
	p.spec.costs.rule, ok = s.judge(made, map[string]string{"limit": "budget", "window": from})
	return ok
}

// apart reports prefixes under which a key of the rate could be one of the cost.
func (p *draft) apart() {
	if p.spec.prefix == "" {
		p.require("prefix", "must not be empty with strategy and budget, whose records it tells apart")
		return
	}
	rate, cost := p.spec.prefix+":", p.spec.costs.prefix+":"
	if strings.HasPrefix(rate, cost) || strings.HasPrefix(cost, rate) {
		p.inner["budget"].require("prefix", fmt.Sprintf(
			"must not be %s, the prefix of strategy, and neither may be the other up to a colon", quote(p.spec.prefix)))
	}
}

// admits fills in what is known of a policy that admits, and how to build it.
func (p *draft) admits(config concurrency.Config, build maker) {
	info := &p.spec.info
	info.Limit = int64(cmp.Or(config.MaxLimit, defaultMaxLimit))
	for _, rule := range []throttlekit.Rule{p.spec.costs.rule, p.spec.rule} {
		if rule != nil {
			info.Strategy, info.Limit = rule.Name(), rule.Limit()
		}
	}
	p.spec.make = func(s *spec, env Env) (service.Policy, error) {
		if err := s.chargeable(env); err != nil {
			return nil, err
		}
		return build(s, env)
	}
}

// chargeable reports why a store cannot charge the rate and the cost at once, if it cannot: then it
// refuses every batch that is one step, also an empty one, and asks nobody for that.
func (s *spec) chargeable(env Env) error {
	if env.Store == nil || s.rule == nil || s.costs.rule == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := env.Store.Batch(ctx, nil, throttlekit.CommitAll)
	if errors.Is(err, throttlekit.ErrUnsupported) {
		return fmt.Errorf("strategy and budget are charged at once: %w", err)
	}
	return nil
}

// guard reads what a guard is made of, how long requests wait for a slot, and how the file spells
// fields that package concurrency names otherwise.
func (s *scope) guard() (c concurrency.Config, wait time.Duration, from map[string]string) {
	from = make(map[string]string)
	whole := func(field string) int {
		n, ok := s.integer(field, 1, mostInFlight)
		if !ok && s.wrong[field] {
			return 0
		}
		return int(n)
	}
	c.MinLimit, c.MaxLimit, c.InitialLimit = whole("minLimit"), whole("maxLimit"), whole("initialLimit")
	if s.wrong["minLimit"] { // then nothing is judged by it
		c.MinLimit = 1
	}
	if s.wrong["maxLimit"] {
		c.MaxLimit = mostInFlight
	}
	algorithm, _ := s.choice("algorithm", []string{string(concurrency.Gradient2), string(concurrency.AIMD)})
	c.Algorithm, c.RTTWindow = concurrency.Algorithm(algorithm), whole("rttWindow")
	c.Smoothing, c.Tolerance, c.BackoffRatio = s.size("smoothing"), s.size("tolerance"), s.size("backoffRatio")
	if s.find("recalibration") != nil {
		c.Recalibration, from["recalibration.interval"] = s.recalibration()
	}
	s.reserveFields(cmp.Or(c.Algorithm, concurrency.Gradient2))
	queue, _ := s.integer("queue", 0, mostInFlight)
	c.Queue = int(queue)
	wait, timeout := s.window(false, "queueTimeout", "queueTimeoutMs")
	if n := s.get(timeout); n != nil && c.Queue == 0 && !s.wrong["queue"] && !s.wrong[timeout] {
		s.fail(timeout, n, "must not be given without queue", "")
	}
	if wait > longestWait && !s.wrong[timeout] {
		s.fail(timeout, s.get(timeout), "must be at most 25s, for servers cut requests off after 30s", "")
	}
	if c.Queue > 0 && wait == 0 {
		wait = defaultWait
	}
	return c, wait, from
}

// reserveFields reports fields that mean nothing to an algorithm.
func (s *scope) reserveFields(algorithm concurrency.Algorithm) {
	for _, of := range []struct {
		field     string
		algorithm concurrency.Algorithm
	}{{"smoothing", concurrency.Gradient2}, {"backoffRatio", concurrency.AIMD}} {
		if n := s.get(of.field); n != nil && !s.wrong[of.field] && !s.wrong["algorithm"] && algorithm != of.algorithm {
			s.fail(of.field, n, fmt.Sprintf("is for algorithm %s, not %s", of.algorithm, algorithm), "")
		}
	}
}

// recalibration reads when and how to measure anew, and how the file spells the interval.
func (s *scope) recalibration() (r *concurrency.Recalibration, from string) {
	r = &concurrency.Recalibration{}
	b := s.block("recalibration")
	if b == nil {
		return r, ""
	}
	r.Interval, from = b.window(false, "interval", "intervalMs")
	limit, _ := b.integer("probeLimit", 1, mostInFlight)
	samples, _ := b.integer("probeSamples", 1, mostInFlight)
	r.ProbeLimit, r.ProbeSamples = int(limit), int(samples)
	b.finish()
	if len(b.wrong) > 0 {
		s.wrong["recalibration"] = true
	}
	return r, "recalibration." + from
}

const (
	mostInFlight    = 1_000_000 // that package concurrency takes
	defaultMaxLimit = 512       // that package concurrency has
)

// admitter builds a policy of a guard, which it closes if it fails, and of how admission sees that guard.
func (s *spec) admitter(env Env, slots admission.Guard, g guard, wait time.Duration) (*admitter, error) {
	p := &admitter{info: s.info, slots: slots, guard: g}
	config := admission.Config{Guard: slots, Clock: env.Clock}
	if wait > 0 {
		config.Guard = queued{slots, g.TryAcquire, wait}
	}
	if s.rule != nil || s.costs.rule != nil {
		store, rates, own, err := s.store(env)
		if err != nil {
			return nil, errors.Join(err, g.Close())
		}
		p.own, config.Store = own, store
		costs := s.costs.prefix
		switch {
		case own == nil:
		case s.rule != nil && s.costs.rule != nil:
			rates, costs = "rate", "cost"
		default:
			costs = "" // as rates is
		}
		if s.rule != nil {
			config.Rate = &admission.Limit{Strategy: s.rule.Strategy(), Prefix: rates}
		}
		if s.costs.rule != nil {
			config.Cost = &admission.Limit{Strategy: s.costs.rule.Strategy(), Prefix: costs}
		}
	}
	var err error
	if p.unified, err = admission.New(config); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Info implements [service.Policy].
func (p *admitter) Info() service.Info { return p.info }

// Close implements [service.Policy].
func (p *admitter) Close() error {
	err := p.guard.Close()
	if p.own != nil {
		err = errors.Join(err, p.own.Close())
	}
	return err
}

// AdmitOr implements [service.Admitter].
func (p *admitter) AdmitOr(ctx context.Context, req service.AdmitRequest, standIn admission.StandIn) (admission.Admission, error) {
	return p.unified.AdmitOr(ctx, req, standIn)
}

// Guard implements [service.Guarded].
func (p *admitter) Guard() service.GuardState { return stateOf(p.slots.Stats()) }

func stateOf(s concurrency.Stats) service.GuardState {
	return service.GuardState{Limit: s.Limit, InFlight: s.InFlight, Waiting: s.Waiting, NoLoad: s.NoLoad, Last: s.Last}
}

// queued is a guard at which requests wait no longer than they may. Then they are refused.
type queued struct {
	admission.Guard

	try  func() concurrency.Permit
	wait time.Duration
}

// Acquire implements [admission.Guard]. A caller with a deadline waits for three quarters of what is left
// of it at most: a denial that came at the deadline would reach nobody.
func (q queued) Acquire(ctx context.Context) (concurrency.Permit, error) {
	if p := q.try(); p.Allowed {
		return p, nil
	}
	wait := q.wait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/4*3) //nolint:forbidigo // the deadline of a context is one of the wall clock
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	p, err := q.Guard.Acquire(bounded)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return q.try(), nil // which says what the limit is now
	}
	return p, err
}

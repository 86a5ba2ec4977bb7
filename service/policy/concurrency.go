package policy

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/concurrency"
	"github.com/throttlekit/throttlekit-go/service"
)

// admitter is a policy that limits what is in flight, and with a strategy or a budget also how much
// is admitted over time. It admits and nothing else. Both kinds of concurrency make it.
type admitter struct {
	info    service.Info
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
	admission.Guard

	TryAcquire() concurrency.Permit
	Close() error
}

// axes are what a policy limits besides what is in flight, nil for what it does not.
type axes struct {
	rate, cost throttlekit.Rule
	costPrefix string
}

// defaultWait is how long a request waits for a slot where requests may wait.
const defaultWait = time.Second

// readConcurrency reads a policy that limits what is in flight in this process.
func readConcurrency(p *draft, block *entry) {
	a, ok := p.axes()
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
	p.admits(a, config)
	p.spec.make = func(spec *spec, env Env) (service.Policy, error) {
		c := config
		c.Elapsed = env.elapsed()
		g, err := concurrency.NewGuard(c)
		if err != nil {
			return nil, err
		}
		return spec.admitter(env, a, g, wait)
	}
}

// axes reads the strategy and the budget of a policy that admits, if it has them.
func (p *draft) axes() (a axes, ok bool) {
	ok = true
	if p.find("strategy") != nil {
		a.rate, ok = readStrategy(p.scope)
	} else {
		p.explain = func(field string) string {
			if slices.Contains(strategyFields(), field) {
				return "must not be given without strategy, whose field it is"
			}
			return ""
		}
	}
	if p.find("budget") != nil {
		var budgeted bool
		a.cost, a.costPrefix, budgeted = p.costs()
		ok = ok && budgeted
	}
	return a, ok
}

// costs reads by what a policy limits the costs of its requests.
func (p *draft) costs() (rule throttlekit.Rule, prefix string, ok bool) {
	s := p.block("budget")
	if s == nil {
		return nil, "", false
	}
	defer s.finish()
	if prefix, ok = s.word("prefix"); ok && prefix == "" {
		s.fail("prefix", s.get("prefix"), "must not be empty", "")
	}
	if s.find("strategy") != nil {
		rule, ok = readStrategy(s)
		return rule, prefix, ok
	}
	limit := s.needed("budget")
	width, from := s.window(true, "window", "windowMs")
	rule, ok = s.judge(throttlekit.FixedWindow{Limit: limit, Window: width}, map[string]string{"limit": "budget", "window": from})
	return rule, prefix, ok
}

// admits fills in what is known of a policy that admits.
func (p *draft) admits(a axes, config concurrency.Config) {
	info := &p.spec.info
	info.Limit = int64(cmp.Or(config.MaxLimit, defaultMaxLimit))
	for _, rule := range []throttlekit.Rule{a.cost, a.rate} {
		if rule != nil {
			info.Strategy, info.Limit = rule.Name(), rule.Limit()
		}
	}
	p.spec.rule = a.rate
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
	algorithm, _ := s.choice("algorithm", []string{string(concurrency.Gradient2), string(concurrency.AIMD)})
	c.Algorithm, c.RTTWindow = concurrency.Algorithm(algorithm), whole("rttWindow")
	c.Smoothing, c.Tolerance, c.BackoffRatio = s.size("smoothing"), s.size("tolerance"), s.size("backoffRatio")
	if s.find("recalibration") != nil {
		c.Recalibration = s.recalibration()
		for _, field := range []string{"interval", "probeLimit", "probeSamples"} {
			from["recalibration."+field] = "recalibration"
		}
	}
	c.Queue = whole("queue")
	wait, timeout := s.window(false, "queueTimeout", "queueTimeoutMs")
	if n := s.get(timeout); n != nil && c.Queue == 0 && !s.wrong["queue"] && !s.wrong[timeout] {
		s.fail(timeout, n, "must not be given without queue", "")
	}
	if c.Queue > 0 && wait == 0 {
		wait = defaultWait
	}
	return c, wait, from
}

func (s *scope) recalibration() *concurrency.Recalibration {
	r := &concurrency.Recalibration{}
	b := s.block("recalibration")
	if b == nil {
		return r
	}
	r.Interval, _ = b.window(false, "interval", "intervalMs")
	limit, _ := b.integer("probeLimit", 1, mostInFlight)
	samples, _ := b.integer("probeSamples", 1, mostInFlight)
	r.ProbeLimit, r.ProbeSamples = int(limit), int(samples)
	b.finish()
	if len(b.wrong) > 0 {
		s.wrong["recalibration"] = true
	}
	return r
}

const (
	mostInFlight    = 1_000_000 // that package concurrency takes
	defaultMaxLimit = 512       // that package concurrency has
)

// admitter builds a policy around a guard, which it closes if it fails.
func (s *spec) admitter(env Env, a axes, g guard, wait time.Duration) (*admitter, error) {
	p := &admitter{info: s.info, guard: g}
	config := admission.Config{Guard: g, Clock: env.Clock}
	if wait > 0 {
		config.Guard = queued{g, wait}
	}
	if a.rate != nil || a.cost != nil {
		store, prefix, own, err := s.store(env)
		if err != nil {
			return nil, errors.Join(err, g.Close())
		}
		p.own, config.Store = own, store
		if own != nil && a.cost != nil {
			prefix = "rate" // which tells its keys from those of the cost
		}
		if a.rate != nil {
			config.Rate = &admission.Limit{Strategy: a.rate.Strategy(), Prefix: prefix}
		}
		if a.cost != nil {
			// No key of the rate begins like this, whatever callers name their keys.
			config.Cost = &admission.Limit{Strategy: a.cost.Strategy(), Prefix: cmp.Or(a.costPrefix, s.prefix+"/cost")}
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
func (p *admitter) Guard() service.GuardState { return stateOf(p.guard.Stats()) }

func stateOf(s concurrency.Stats) service.GuardState {
	return service.GuardState{Limit: s.Limit, InFlight: s.InFlight, Waiting: s.Waiting, NoLoad: s.NoLoad, Last: s.Last}
}

// queued is a guard at which requests wait no longer than they may. Then they are refused.
type queued struct {
	guard

	wait time.Duration
}

// Acquire implements [admission.Guard].
func (q queued) Acquire(ctx context.Context) (concurrency.Permit, error) {
	if p := q.TryAcquire(); p.Allowed {
		return p, nil
	}
	bounded, cancel := context.WithTimeout(ctx, q.wait)
	defer cancel()
	p, err := q.guard.Acquire(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		s := q.Stats()
		return concurrency.Permit{Limit: s.Limit, InFlight: s.InFlight}, nil
	}
	return p, err
}

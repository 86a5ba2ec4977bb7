package policy

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
	"github.com/throttlekit/throttlekit-go/service"
)

// twoTier is a policy with a first tier in the process. It checks and nothing else: what a
// key has left is spread over the processes that hold leases, so nobody can look at it.
type twoTier struct {
	info    service.Info
	limiter *lease.TwoTier
	own     *throttlekit.MemoryStore // nil if the store is shared
}

var (
	_ service.Checker      = (*twoTier)(nil)
	_ service.BatchChecker = (*twoTier)(nil)
)

// leaseFields are the fields of twoTier that say how to lease.
var leaseFields = []string{
	"batch", "lowWater", "windowCoupled", "returnIdleAfter", "returnIdleAfterMs", "expireAfter", "expireAfterMs", "adaptive",
}

// readTwoTier reads a policy that spends its strategy in leases, or remembers its denials.
func readTwoTier(p *draft, block *entry) {
	rule, rated := readStrategy(p.scope)
	s := p.block(block.key)
	if s == nil {
		return
	}
	config, from := s.twoTier()
	s.finish()
	if !rated {
		return
	}
	charged := rule
	if config.Mode == lease.Leased {
		config.Strategy = rule.Strategy()
		charged = s.charged(config, from)
	}
	if len(s.wrong) > 0 {
		return
	}
	info := &p.spec.info
	info.Strategy, info.Limit = rule.Name(), rule.Limit()
	p.spec.rule, p.spec.make = charged, makePlain
	if config.Mode != lease.Strict {
		config.Strategy = rule.Strategy()
		p.spec.make = makeTwoTier(config)
	}
}

// twoTier reads the block. It returns how the file spells the fields that say durations.
func (s *scope) twoTier() (c lease.TwoTierConfig, from map[string]string) {
	modes := make([]string, 0, len(lease.Modes()))
	for _, m := range lease.Modes() {
		modes = append(modes, string(m))
	}
	mode, ok := s.choice("mode", modes)
	if c.Mode = lease.Mode(mode); !ok && !s.wrong["mode"] {
		c.Mode = lease.Modes()[0]
	}
	c.Batch, _ = s.integer("batch", 1, throttlekit.MaxSafe)
	c.LowWater, _ = s.integer("lowWater", 0, throttlekit.MaxSafe)
	c.WindowCoupled, _ = s.boolean("windowCoupled")
	var expire string
	c.ReturnIdleAfter, _ = s.window(false, "returnIdleAfter", "returnIdleAfterMs")
	c.ExpireAfter, expire = s.window(false, "expireAfter", "expireAfterMs")
	c.Sizer = s.adaptive(float64(c.Batch))
	c.MaxKeys = s.heldKeys()
	s.reserveFor(c.Mode)
	return c, map[string]string{"lease.batch": "batch", "lease.adaptive": "adaptive", "expireAfter": expire}
}

// heldKeys reads for how many keys units are held.
func (s *scope) heldKeys() int {
	n, _ := s.integer("maxKeys", 1, math.MaxInt32)
	return int(n)
}

// reserveFor reports fields that mean nothing in a mode.
func (s *scope) reserveFor(mode lease.Mode) {
	var idle []string
	switch mode {
	case lease.CachedDeny:
		idle = leaseFields
	case lease.Strict:
		idle = append([]string{"maxKeys"}, leaseFields...)
	case lease.Leased:
	}
	for _, field := range idle {
		if n := s.get(field); n != nil && !s.wrong[field] {
			s.fail(field, n, "must not be given with mode "+string(mode), "")
		}
	}
}

// adaptive reads how sizes of leases are learned, nil if they are not.
func (s *scope) adaptive(initial float64) func() lease.Sizer {
	if s.find("adaptive") == nil {
		return nil
	}
	c := lease.LearnerConfig{InitialSize: initial}
	if b := s.block("adaptive"); b != nil {
		c.MinSize, c.MaxSize = b.size("minSize"), b.size("maxSize")
		c.OrderCost, c.StrandPenalty = b.size("orderCost"), b.size("strandPenalty")
		b.finish()
		_, err := lease.NewLearner(c)
		b.place(err, nil)
		if len(b.wrong) > 0 {
			s.wrong["adaptive"] = true
		}
	}
	return func() lease.Sizer {
		learner, err := lease.NewLearner(c)
		if err != nil {
			return nil // it has been reported
		}
		return learner
	}
}

// size reads a number above 0, which would stand for a default.
func (s *scope) size(field string) float64 {
	x, ok := s.number(field)
	if ok && x == 0 {
		s.fail(field, s.get(field), "must be a positive finite number", "")
	}
	return x
}

// unused stands for the store when a configuration is judged, which asks no store anything.
type unused struct{ throttlekit.Store }

// charged is the rule that leases are charged by. What package lease refuses is reported.
func (s *scope) charged(c lease.TwoTierConfig, from map[string]string) throttlekit.Rule {
	c.Store, c.ReturnIdleAfter = unused{}, 0
	if _, err := lease.NewTwoTier(c); err != nil {
		s.place(err, from)
		return nil
	}
	strategy := c.Strategy
	if d, ok := strategy.(throttlekit.Deferrable); ok && c.ExpireAfter > 0 {
		var err error
		if strategy, err = d.Defer(c.ExpireAfter); err != nil {
			s.place(err, from)
			return nil
		}
	}
	rule, err := strategy.Rule()
	s.place(err, from)
	return rule
}

// makeTwoTier builds a policy of a configuration without a store.
func makeTwoTier(config lease.TwoTierConfig) maker {
	return func(s *spec, env Env) (service.Policy, error) {
		store, prefix, own, err := s.store(env)
		if err != nil {
			return nil, err
		}
		c := config
		c.Store, c.Prefix, c.Elapsed = store, prefix, env.elapsed()
		limiter, err := lease.NewTwoTier(c)
		if err != nil {
			return nil, err
		}
		return &twoTier{info: s.info, limiter: limiter, own: own}, nil
	}
}

// elapsed is the clock that leases last by, nil for the default.
func (e Env) elapsed() func() time.Duration {
	if e.Clock == nil {
		return nil
	}
	return func() time.Duration {
		return time.Duration(min(e.Clock.NowMillis(), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	}
}

// Info implements [service.Policy].
func (p *twoTier) Info() service.Info { return p.info }

// Close implements [service.Policy]. It gives back what is held and closes a private store.
func (p *twoTier) Close() error {
	err := p.limiter.Close()
	if p.own != nil {
		err = errors.Join(err, p.own.Close())
	}
	return err
}

// Check implements [service.Checker].
func (p *twoTier) Check(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return p.limiter.CheckN(ctx, key, cost)
}

// CheckMany implements [service.BatchChecker].
func (p *twoTier) CheckMany(ctx context.Context, keys []string, cost float64) ([]throttlekit.Decision, error) {
	return p.limiter.CheckMany(ctx, keys, cost)
}

package policy

import (
	"context"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

// plain is a policy that is one limiter. It can do all that a limiter can.
type plain struct {
	info    service.Info
	limiter *throttlekit.Limiter
	own     *throttlekit.MemoryStore // nil if the store is shared
}

var (
	_ service.Checker      = (*plain)(nil)
	_ service.BatchChecker = (*plain)(nil)
	_ service.Peeker       = (*plain)(nil)
	_ service.Forecaster   = (*plain)(nil)
)

// readPlain reads a policy that is a strategy and nothing else.
func readPlain(p *draft) {
	rule, ok := readStrategy(p.scope)
	if !ok {
		return
	}
	info := &p.spec.info
	info.Kind, info.Strategy, info.Limit = "plain", rule.Name(), rule.Limit()
	p.spec.rule, p.spec.make = rule, makePlain
}

func makePlain(s *spec, env Env) (service.Policy, error) {
	store, prefix, own, err := s.store(env)
	if err != nil {
		return nil, err
	}
	p := &plain{info: s.info, own: own}
	p.limiter, err = throttlekit.NewLimiter(s.rule.Strategy(), throttlekit.WithStore(store), throttlekit.WithPrefix(prefix))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// store is the shared store with the prefix of the policy's keys there, or one of the
// policy's own. That has no other policy's keys in it, so they need no prefix, and the hot
// path needs no string built.
func (s *spec) store(env Env) (store throttlekit.Store, prefix string, own *throttlekit.MemoryStore, err error) {
	if env.Store != nil {
		return env.Store, s.prefix, nil, nil
	}
	own, err = throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: env.Clock, MaxKeys: env.MaxKeys})
	return own, "", own, err
}

// Info implements [service.Policy].
func (p *plain) Info() service.Info { return p.info }

// Close implements [service.Policy]. It closes a private store; a shared one stays open.
func (p *plain) Close() error {
	if p.own == nil {
		return nil
	}
	return p.own.Close()
}

// Check implements [service.Checker].
func (p *plain) Check(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return p.limiter.CheckN(ctx, key, cost)
}

// CheckMany implements [service.BatchChecker].
func (p *plain) CheckMany(ctx context.Context, keys []string, cost float64) ([]throttlekit.Decision, error) {
	return p.limiter.CheckMany(ctx, keys, cost)
}

// Peek implements [service.Peeker].
func (p *plain) Peek(ctx context.Context, key string) (throttlekit.Decision, error) {
	return p.limiter.Peek(ctx, key)
}

// Forecast implements [service.Forecaster].
func (p *plain) Forecast(ctx context.Context, key string, cost float64) (throttlekit.Forecast, error) {
	return p.limiter.Forecast(ctx, key, cost)
}

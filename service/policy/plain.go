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
	p := &plain{info: s.info}
	opts := []throttlekit.Option{throttlekit.WithStore(env.Store), throttlekit.WithPrefix(s.prefix)}
	if env.Store == nil {
		// A private store has no other policy's keys in it, so they need no prefix, and the
		// hot path needs no string built.
		own, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: env.Clock, MaxKeys: env.MaxKeys})
		if err != nil {
			return nil, err
		}
		p.own, opts = own, []throttlekit.Option{throttlekit.WithStore(own)}
	}
	var err error
	if p.limiter, err = throttlekit.NewLimiter(s.rule.Strategy(), opts...); err != nil {
		return nil, err
	}
	return p, nil
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

package policy

import (
	"cmp"
	"context"
	"errors"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
	"github.com/throttlekit/throttlekit-go/service"
)

// federated is a policy whose budget the members of a fleet share in leases: servers that
// check, and clients that reserve.
type federated struct {
	info        service.Info
	coordinator *lease.Coordinator
	member      *lease.Federated
	told        func(err error) // nil if nobody wants to know; set before the first request
}

var (
	_ service.Checker      = (*federated)(nil)
	_ service.BatchChecker = (*federated)(nil)
	_ service.Reserver     = (*federated)(nil)
	_ service.Steadfast    = (*federated)(nil)
)

// readFederated reads a policy that leases from a coordinator on the shared store.
func readFederated(p *draft, block *entry) {
	rule, rated := readStrategy(p.scope)
	p.settled()
	s := p.block(block.key)
	if s == nil {
		return
	}
	config, prefix := s.federated()
	s.finish()
	if !rated {
		return
	}
	coordinator := p.coordinator(lease.CoordinatorConfig{Strategy: rule.Strategy(), Store: unused{}})
	if coordinator == nil || len(s.wrong) > 0 {
		return
	}
	counted, err := throttlekit.FixedWindow{Limit: float64(coordinator.Limit()), Window: coordinator.Window()}.Rule()
	if err != nil {
		p.place(err, nil)
		return
	}
	info := &p.spec.info
	info.Strategy, info.Limit, info.FailMode = rule.Name(), coordinator.Limit(), service.FailClosed
	p.spec.common = prefix == ""
	p.spec.prefix = cmp.Or(prefix, lease.CoordinatorPrefix)
	p.spec.rule = counted
	p.spec.make = makeFederated(config)
}

// settled reports fields of the policy that a federated one cannot follow.
func (p *draft) settled() {
	if n := p.get("prefix"); n != nil && !p.wrong["prefix"] {
		p.fail("prefix", n, "must not be given for a federated policy", "give it in federated")
	}
	if n := p.get("failMode"); n != nil && !p.wrong["failMode"] && p.spec.info.FailMode == service.FailOpen {
		p.fail("failMode", n, "must be closed for a federated policy, whose bound holds through outages", "")
	}
}

// coordinator is that of a configuration, nil if its strategy cannot be federated.
func (p *draft) coordinator(config lease.CoordinatorConfig) *lease.Coordinator {
	c, err := lease.NewCoordinator(config)
	switch {
	case err == nil:
		return c
	case errors.Is(err, throttlekit.ErrUnsupported):
		p.require("strategy", "cannot be federated: it must be fixedWindow, slidingWindow, or quota with resetCadence fixed or rolling")
	default:
		p.place(err, nil)
	}
	return nil
}

// federated reads the block.
func (s *scope) federated() (c lease.FederatedConfig, prefix string) {
	named := func(field string) string {
		name, ok := s.word(field)
		if ok && name == "" {
			s.fail(field, s.get(field), "must not be empty", "")
		}
		return name
	}
	c.Region, prefix = named("region"), named("prefix")
	c.Batch, _ = s.integer("batch", 1, throttlekit.MaxSafe)
	c.LowWater, _ = s.integer("lowWater", 0, throttlekit.MaxSafe)
	c.ReturnIdleAfter, _ = s.window(false, "returnIdleAfter", "returnIdleAfterMs")
	c.MaxKeys = s.heldKeys()
	return c, prefix
}

// makeFederated builds a policy of a configuration without a coordinator.
func makeFederated(config lease.FederatedConfig) maker {
	return func(s *spec, env Env) (service.Policy, error) {
		if env.Store == nil {
			return nil, errors.New("a federated policy needs a shared coordinator store, such as Redis or PostgreSQL")
		}
		p := &federated{info: s.info}
		var err error
		p.coordinator, err = lease.NewCoordinator(lease.CoordinatorConfig{
			Strategy: s.rule.Strategy(), Store: env.Store, Prefix: s.prefix,
		})
		if err != nil {
			return nil, err
		}
		c := config
		c.Coordinator, c.Elapsed, c.Region = p.coordinator, env.elapsed(), cmp.Or(config.Region, env.Region)
		c.OnError = func(err error) {
			if p.told != nil {
				p.told(err)
			}
		}
		if p.member, err = lease.NewFederated(c); err != nil {
			return nil, err
		}
		return p, nil
	}
}

// Info implements [service.Policy].
func (p *federated) Info() service.Info { return p.info }

// Close implements [service.Policy]. It gives back what this server holds.
func (p *federated) Close() error { return p.member.Close() }

// TellOutages implements [service.Steadfast].
func (p *federated) TellOutages(f func(err error)) { p.told = f }

// Check implements [service.Checker].
func (p *federated) Check(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return p.member.CheckN(ctx, key, cost)
}

// CheckMany implements [service.BatchChecker].
func (p *federated) CheckMany(ctx context.Context, keys []string, cost float64) ([]throttlekit.Decision, error) {
	return p.member.CheckMany(ctx, keys, cost)
}

// Reserve implements [service.Reserver]. What is lent does not pass through what this server holds.
func (p *federated) Reserve(ctx context.Context, domain string, wants int64) (service.Grant, error) {
	return p.coordinator.Lease(ctx, domain, 1, wants)
}

package policy

import (
	"cmp"
	"errors"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go/concurrency"
	"github.com/throttlekit/throttlekit-go/service"
)

// fleetAdmitter is a policy that limits what is in flight in a whole fleet.
type fleetAdmitter struct {
	*admitter

	fleet *concurrency.FleetGuard
	told  *fleetTold
}

var (
	_ service.Admitter  = (*fleetAdmitter)(nil)
	_ service.Guarded   = (*fleetAdmitter)(nil)
	_ service.Steadfast = (*fleetAdmitter)(nil)
	_ service.Fenceable = (*fleetAdmitter)(nil)
)

// fleetTold is who wants to know of the fleet's troubles, which begin before anybody can say so.
type fleetTold struct {
	outage atomic.Pointer[func(err error)]
	fence  atomic.Pointer[func()]
}

// readDistributedConcurrency reads a policy that limits what is in flight in a whole fleet, by way
// of the shared store.
func readDistributedConcurrency(p *draft, block *entry) {
	a, ok := p.axes()
	s := p.block(block.key)
	if s == nil {
		return
	}
	config, prefix, wait, from := s.fleet()
	s.finish()
	judged := config
	judged.Node, judged.Store, judged.Key = "node", unused{}, p.spec.info.Name
	s.place(judged.Validate(), from)
	if !ok || len(s.wrong) > 0 {
		return
	}
	p.admits(a, config.Local)
	key := concurrency.CeilingKey(cmp.Or(prefix, concurrency.DefaultCeilingPrefix), p.spec.info.Name)
	p.spec.make = func(spec *spec, env Env) (service.Policy, error) {
		switch {
		case env.Store == nil:
			return nil, errors.New("a distributedConcurrency policy needs a shared coordinator store, such as Redis or PostgreSQL")
		case env.Node == "":
			return nil, errors.New("a distributedConcurrency policy needs a node id")
		}
		made := &fleetAdmitter{told: &fleetTold{}}
		c := config
		c.Node, c.Store, c.Key, c.Local.Elapsed = env.Node, env.Store, key, env.elapsed()
		c.OnError, c.OnFence = made.told.error, made.told.fenced
		var err error
		if made.fleet, err = concurrency.NewFleetGuard(c); err != nil {
			return nil, err
		}
		made.admitter, err = spec.admitter(env, a, localView{made.fleet}, wait)
		if err != nil {
			return nil, err
		}
		return made, nil
	}
}

// fleet reads what a guard of a fleet is made of.
func (s *scope) fleet() (c concurrency.FleetConfig, prefix string, wait time.Duration, from map[string]string) {
	c.Local, wait, from = s.guard()
	aggregate, _ := s.choice("aggregate", []string{string(concurrency.Median), string(concurrency.Min)})
	allocation, _ := s.choice("allocation", []string{string(concurrency.EqualSplit), string(concurrency.DemandProportional)})
	handoff, _ := s.boolean("acknowledgedHandoff")
	ceiling, err := concurrency.NewCeiling(concurrency.CeilingConfig{
		Aggregate: concurrency.Aggregate(aggregate), Allocation: concurrency.Allocation(allocation), AcknowledgedHandoff: handoff,
	})
	s.place(err, nil)
	c.Ceiling = ceiling
	prefix, ok := s.word("prefix")
	if ok && prefix == "" {
		s.fail("prefix", s.get("prefix"), "must not be empty", "")
	}
	c.Heartbeat, from["heartbeat"] = s.window(false, "heartbeat", "heartbeatMs")
	c.TTL, from["ttl"] = s.window(false, "leaseTtl", "leaseTtlMs")
	c.MinHeartbeat, from["minHeartbeat"] = s.window(false, "minHeartbeat", "minHeartbeatMs")
	c.FenceMargin, from["fenceMargin"] = s.window(false, "fenceSafetyMargin", "fenceSafetyMarginMs")
	c.Eager, _ = s.boolean("eagerHandoff")
	from["outage"] = "onCoordinatorOutage"
	outage, _ := s.choice("onCoordinatorOutage", []string{string(concurrency.FailClosed), string(concurrency.LocalOnly)})
	c.Outage = concurrency.Outage(outage)
	if fences, ok := s.boolean("selfFence"); ok {
		c.NoFence = !fences
		if n := s.get("selfFence"); fences && c.Outage == concurrency.LocalOnly {
			s.fail("selfFence", n, "must not be true with onCoordinatorOutage local-only, which goes on alone", "")
		}
	}
	return c, prefix, wait, from
}

// localView is a guard of a fleet as package admission sees it.
type localView struct{ *concurrency.FleetGuard }

// Stats implements [admission.Guard].
func (v localView) Stats() concurrency.Stats { return v.FleetGuard.Stats().Stats }

// Guard implements [service.Guarded].
func (p *fleetAdmitter) Guard() service.GuardState {
	s := p.fleet.Stats()
	state := stateOf(s.Stats)
	state.Fleet = &service.FleetState{Share: s.Share, Ceiling: s.Ceiling, Nodes: s.Nodes, Fenced: s.Fenced}
	return state
}

// TellOutages implements [service.Steadfast].
func (p *fleetAdmitter) TellOutages(f func(err error)) { p.told.outage.Store(&f) }

// TellFences implements [service.Fenceable].
func (p *fleetAdmitter) TellFences(f func()) { p.told.fence.Store(&f) }

func (t *fleetTold) error(err error) {
	if f := t.outage.Load(); f != nil {
		(*f)(err)
	}
}

func (t *fleetTold) fenced() {
	if f := t.fence.Load(); f != nil {
		(*f)()
	}
}

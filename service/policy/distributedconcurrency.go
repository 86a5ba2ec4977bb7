package policy

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/concurrency"
	"github.com/throttlekit/throttlekit-go/service"
)

// fleetAdmitter is a policy that limits what is in flight in a whole fleet.
type fleetAdmitter struct {
	*admitter

	fleet  *concurrency.FleetGuard
	strict bool // the ceiling is never exceeded
	told   *fleetTold
}

var (
	_ service.Admitter  = (*fleetAdmitter)(nil)
	_ service.Guarded   = (*fleetAdmitter)(nil)
	_ service.Steadfast = (*fleetAdmitter)(nil)
	_ service.Fenceable = (*fleetAdmitter)(nil)
)

// fleetTold is who wants to know of the fleet's troubles, which begin before anybody can say so. The
// latest error is kept for who says so first.
type fleetTold struct {
	mu      sync.Mutex
	outages func(err error)
	fences  func()
	latest  error
}

// readDistributedConcurrency reads a policy that limits what is in flight in a whole fleet, by way
// of the shared store.
func readDistributedConcurrency(p *draft, block *entry) {
	ok := p.axes(block.key)
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
	key := concurrency.CeilingKey(cmp.Or(prefix, concurrency.DefaultCeilingPrefix), p.spec.info.Name)
	p.admits(config.Local, func(spec *spec, env Env) (service.Policy, error) {
		switch {
		case env.Store == nil:
			return nil, errors.New("a distributedConcurrency policy needs a shared coordinator store, such as Redis or PostgreSQL")
		case env.Node == "":
			return nil, errors.New("a distributedConcurrency policy needs a node id")
		}
		made := &fleetAdmitter{strict: config.Ceiling.Config().AcknowledgedHandoff, told: &fleetTold{}}
		c := config
		c.Node, c.Store, c.Key, c.Local.Elapsed = env.Node, env.Store, key, env.elapsed()
		c.OnError, c.OnFence = made.told.error, made.told.fenced
		var err error
		if made.fleet, err = concurrency.NewFleetGuard(c); err != nil {
			return nil, err
		}
		made.admitter, err = spec.admitter(env, admission.Fleet(made.fleet), made.fleet, wait)
		if err != nil {
			return nil, err
		}
		return made, nil
	})
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

// Guard implements [service.Guarded].
func (p *fleetAdmitter) Guard() service.GuardState {
	s := p.fleet.Stats()
	state := stateOf(s.Stats)
	state.Fleet = &service.FleetState{
		Share: s.Share, Ceiling: s.Ceiling, Nodes: s.Nodes, Fenced: s.Fenced, Margin: s.Margin, Strict: p.strict,
	}
	return state
}

// TellOutages implements [service.Steadfast].
func (p *fleetAdmitter) TellOutages(f func(err error)) {
	p.told.mu.Lock()
	p.told.outages = f
	latest := p.told.latest
	p.told.latest = nil
	p.told.mu.Unlock()
	if latest != nil {
		f(latest)
	}
}

// TellFences implements [service.Fenceable].
func (p *fleetAdmitter) TellFences(f func()) {
	p.told.mu.Lock()
	defer p.told.mu.Unlock()
	p.told.fences = f
}

func (t *fleetTold) error(err error) {
	t.mu.Lock()
	f := t.outages
	if f == nil {
		t.latest = err
	}
	t.mu.Unlock()
	if f != nil {
		f(err)
	}
}

func (t *fleetTold) fenced() {
	t.mu.Lock()
	f := t.fences
	t.mu.Unlock()
	if f != nil {
		f()
	}
}

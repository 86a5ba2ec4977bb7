package policy

import (
	"cmp"
	"errors"
	"math"

	"github.com/throttlekit/throttlekit-go/fair"
	"github.com/throttlekit/throttlekit-go/service"
)

// defaultRegion is where a program stands that does not say it.
const defaultRegion = "default"

// readFederatedFairEscrow reads a policy that divides its limit among the tenants of several
// regions, by way of a pool on the shared store.
func readFederatedFairEscrow(p *draft, block *entry) {
	s := p.escrowBlock(block)
	if s == nil {
		return
	}
	b := s.escrow(fair.DefaultPoolPrefix, p.spec.info.Name)
	region, ok := s.word("region")
	if ok && region == "" {
		s.fail("region", s.get("region"), "must not be empty", "")
	}
	s.finish()
	pool, err := fair.NewRegionPool(fair.PoolConfig{Limit: b.limit, Window: b.width})
	s.place(err, b.from)
	if len(s.wrong) > 0 {
		return
	}
	p.spec.info.Limit = int64(math.Floor(b.limit))
	p.spec.make = func(spec *spec, env Env) (service.Policy, error) {
		if env.Store == nil {
			return nil, errors.New("a federatedFairEscrow policy needs a region-fair-pool store, which is any shared store; " +
				"for one process alone there is fairEscrow")
		}
		made, err := fair.NewFederatedEscrow(fair.FederatedConfig{
			Region: cmp.Or(region, env.Region, defaultRegion), Pool: pool, Store: env.Store, Key: b.prefix + ":" + b.key,
			WeightOf: b.weights, MaxTenants: b.most, Monotonic: env.elapsed(),
		})
		if err != nil {
			return nil, err
		}
		return &fairEscrow{info: spec.info, escrow: made, room: b.room, width: b.width}, nil
	}
}

package policy

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/fair"
	"github.com/throttlekit/throttlekit-go/service"
)

// fairEscrow is a policy whose keys are tenants, which share one limit by their weights. It
// checks one tenant at a time and nothing else: what one has left depends on the others.
// Both kinds of escrow make it.
type fairEscrow struct {
	info   service.Info
	escrow escrow
	room   costRoom
	width  time.Duration
}

var (
	_ service.Checker = (*fairEscrow)(nil)
	_ service.Sharer  = (*fairEscrow)(nil)
)

// escrow is one of those in package fair.
type escrow interface {
	CheckN(ctx context.Context, tenant string, cost float64) (throttlekit.Decision, error)
	Stats() fair.Stats
	Close() error
}

// escrowBlock is what the blocks of both kinds say.
type escrowBlock struct {
	limit   float64
	width   time.Duration
	from    map[string]string // how the file spells the width
	weights fair.WeightOf
	most    int
	key     string
	prefix  string
	room    costRoom
}

// costRoom says how a monitor shows the tenants of a policy.
type costRoom struct {
	shown        bool
	most, points int
	unit         string
}

// readFairEscrow reads a policy that divides its limit among tenants.
func readFairEscrow(p *draft, block *entry) {
	s := p.escrowBlock(block)
	if s == nil {
		return
	}
	b := s.escrow("tk:wfe", p.spec.info.Name)
	quantum, _ := s.integer("quantum", 1, throttlekit.MaxSafe)
	if quantum == 0 {
		for _, field := range []string{"key", "prefix"} {
			if n := s.get(field); n != nil && !s.wrong[field] && !s.wrong["quantum"] {
				s.fail(field, n, "must not be given without quantum, which shares the limit through the store", "")
			}
		}
	}
	s.finish()
	config := fair.EscrowConfig{Limit: b.limit, Window: b.width, WeightOf: b.weights, MaxTenants: b.most}
	if _, err := fair.NewEscrow(config); err != nil {
		s.place(err, b.from)
	}
	if len(s.wrong) > 0 {
		return
	}
	p.spec.info.Limit = int64(math.Floor(b.limit))
	p.spec.make = func(spec *spec, env Env) (service.Policy, error) {
		c := config
		if quantum > 0 && env.Store != nil {
			c.Store, c.Key, c.Quantum, c.Monotonic = env.Store, b.prefix+":"+b.key, quantum, env.elapsed()
		} else {
			c.Clock = env.Clock
		}
		made, err := fair.NewEscrow(c)
		if err != nil {
			return nil, err
		}
		return &fairEscrow{info: spec.info, escrow: made, room: b.room, width: b.width}, nil
	}
}

// escrowBlock is the block of an escrow, nil if it is no mapping. The policy itself has no
// further fields but failMode: its strategy is the escrow.
func (p *draft) escrowBlock(block *entry) *scope {
	if n := p.get("prefix"); n != nil && !p.wrong["prefix"] {
		p.fail("prefix", n, "must not be given for a "+block.key+" policy", "give it in "+block.key)
	}
	p.explain = func(field string) string {
		if field == "strategy" || slices.Contains(strategyFields(), field) {
			return "must not be given for a " + block.key + " policy, which is its own strategy"
		}
		return ""
	}
	return p.block(block.key)
}

// escrow reads what both kinds have.
func (s *scope) escrow(prefix, key string) (b escrowBlock) {
	b.limit = s.needed("limit")
	width, from := s.window(true, "window", "windowMs")
	b.width, b.from = width, map[string]string{"window": from}
	b.weights = s.weights()
	most, _ := s.integer("maxKeys", 1, math.MaxInt32)
	b.most = int(most)
	named := func(field, fallback string) string {
		word, ok := s.word(field)
		if ok && word == "" {
			s.fail(field, s.get(field), "must not be empty", "")
		}
		return cmp.Or(word, fallback)
	}
	b.key, b.prefix = named("key", key), named("prefix", prefix)
	b.room = costRoom{shown: true, unit: named("unit", "units (cost)")}
	if shown, ok := s.boolean("costRoom"); ok {
		b.room.shown = shown
	}
	rows, _ := s.integer("costRoomMaxKeys", 1, math.MaxInt32)
	points, _ := s.integer("costRoomRingSize", 1, math.MaxInt32)
	b.room.most, b.room.points = cmp.Or(int(rows), 64), cmp.Or(int(points), 16)
	return b
}

// weights reads the weights of tenants.
func (s *scope) weights() fair.WeightOf {
	n := s.get("weights")
	if n == nil {
		return nil
	}
	if n.kind != mapNode {
		s.fail("weights", n, "must be a mapping of tenants to weights", "")
		return nil
	}
	const rule = "must be a number greater than 0 and at most 9007199254740991"
	inner := newScope(s.out, join(s.path, "weights"), n.pos, n)
	table := make(map[string]float64, len(n.entries))
	for _, e := range n.entries {
		if e.repeat || e.value.kind == nullNode {
			continue
		}
		weight, ok := inner.numberOf(e.key, e.value, rule)
		switch {
		case !ok:
		case e.key == "":
			inner.fail(e.key, e.value, "must belong to a tenant, whose name is not empty", "")
		case !(weight > 0 && weight <= throttlekit.MaxSafe):
			inner.fail(e.key, e.value, rule, "")
		default:
			table[e.key] = weight
		}
	}
	of, err := fair.Weights(table)
	if err != nil || len(inner.wrong) > 0 {
		s.wrong["weights"] = true
		return nil
	}
	return of
}

// Info implements [service.Policy].
func (p *fairEscrow) Info() service.Info { return p.info }

// Close implements [service.Policy]. It gives back what was leased from a store and not used.
func (p *fairEscrow) Close() error { return p.escrow.Close() }

// Check implements [service.Checker]. The key is the tenant, which must not be empty.
func (p *fairEscrow) Check(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return p.escrow.CheckN(ctx, key, cost)
}

// Shares implements [service.Sharer].
func (p *fairEscrow) Shares() service.ShareState {
	return service.ShareState{
		Unit: p.room.unit, Shown: p.room.shown, MaxTenants: p.room.most, Points: p.room.points,
		Window: p.width, Stats: p.escrow.Stats(),
	}
}

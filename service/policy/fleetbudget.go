package policy

import (
	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/service"
)

// readFleetBudget reads a policy that meters tokens on the shared store, for all servers. Without
// one, it is the budget of one process.
func readFleetBudget(p *draft, block *entry) {
	s := p.escrowBlock(block)
	if s == nil {
		return
	}
	b := s.budget()
	prefix, ok := s.word("prefix")
	s.finish()
	if !p.budgeted(s, b) {
		return
	}
	if ok {
		p.spec.prefix = prefix
	}
	rule, err := throttlekit.FixedWindow{Limit: b.budget, Window: b.width}.Rule()
	if err != nil {
		s.place(err, b.from)
		return
	}
	p.spec.rule = metered{rule}
	p.spec.make = func(spec *spec, env Env) (service.Policy, error) {
		if env.Store == nil {
			return b.meter(spec, budget.Config{Clock: env.Clock})
		}
		return b.meter(spec, budget.Config{Store: env.Store, Prefix: spec.prefix})
	}
}

// metered tells the records of meters from those of limiters, for warnings about shared prefixes:
// their layouts differ, though their windows may be the same.
type metered struct{ throttlekit.Rule }

// tokens is the strategy of a metered rule. It is comparable, and equal to no limiter's.
type tokens struct{ throttlekit.Strategy }

// Strategy implements [throttlekit.Rule].
func (m metered) Strategy() throttlekit.Strategy { return tokens{m.Rule.Strategy()} }

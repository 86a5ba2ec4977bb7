package policy

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/service"
)

// tokenBudget is a policy that counts tokens which were spent already. It debits and nothing
// else. Both kinds of budget make it.
type tokenBudget struct {
	info  service.Info
	meter *budget.Meter
}

var _ service.Debiter = (*tokenBudget)(nil)

// budgetBlock is what the blocks of both kinds say.
type budgetBlock struct {
	budget float64
	width  time.Duration
	from   map[string]string // how the file spells the width
	most   int
}

// readTokenBudget reads a policy that meters tokens in one process.
func readTokenBudget(p *draft, block *entry) {
	s := p.escrowBlock(block)
	if s == nil {
		return
	}
	b := s.budget()
	s.finish()
	if !p.budgeted(s, b) {
		return
	}
	p.spec.make = func(spec *spec, env Env) (service.Policy, error) {
		return b.meter(spec, budget.Config{Clock: env.Clock})
	}
}

// budget reads what both kinds have.
func (s *scope) budget() (b budgetBlock) {
	b.budget = s.needed("budget")
	width, from := s.window(true, "window", "windowMs")
	b.width, b.from = width, map[string]string{"window": from}
	most, _ := s.integer("maxKeys", 1, math.MaxInt32)
	b.most = int(most)
	return b
}

// budgeted puts a budget before package budget, which owns the rules about its numbers, and
// reports what it refuses at the place in the file.
func (p *draft) budgeted(s *scope, b budgetBlock) bool {
	_, err := budget.NewMeter(budget.Config{Budget: b.one()})
	s.place(err, b.from)
	p.spec.info.Limit = int64(math.Floor(b.budget))
	return len(s.wrong) == 0
}

func (b budgetBlock) one() *budget.Budget {
	return &budget.Budget{Windows: []budget.Window{{Limit: b.budget, Width: b.width}}}
}

func (b budgetBlock) meter(spec *spec, config budget.Config) (service.Policy, error) {
	config.Budget, config.MaxKeys = b.one(), b.most
	m, err := budget.NewMeter(config)
	if err != nil {
		return nil, err
	}
	return &tokenBudget{info: spec.info, meter: m}, nil
}

// Info implements [service.Policy].
func (p *tokenBudget) Info() service.Info { return p.info }

// Close implements [service.Policy].
func (p *tokenBudget) Close() error { return p.meter.Close() }

// Debit implements [service.Debiter].
func (p *tokenBudget) Debit(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error) {
	d, err := p.meter.Debit(ctx, key, tokens)
	if errors.Is(err, throttlekit.ErrStoreFull) {
		// No outage: a fail mode that lets new keys through would lift the budget from whoever invents them.
		now := throttlekit.SystemClock{}.NowMillis()
		return throttlekit.Decision{Limit: p.info.Limit, ResetAtMillis: now + fullRetryMillis, RetryAfterMillis: fullRetryMillis}, nil
	}
	return d, err
}

// fullRetryMillis is when a key that found no room may find some.
const fullRetryMillis = 1000

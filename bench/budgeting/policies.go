package main

import (
	"context"

	"github.com/throttlekit/throttlekit-go/budget"
)

// policy holds streams to the budget. It is used by one goroutine.
type policy interface {
	// admit reports whether one more stream may begin. It is asked again when a stream
	// has ended and when a window begins.
	admit(ctx context.Context, s *stream) (bool, error)
	// debit is told about tokens before they are passed on, and reports whether they may
	// be. If not, the stream is cut.
	debit(ctx context.Context, s *stream, tokens int) (bool, error)
	// end is told about a stream that was finished or cut.
	end(ctx context.Context, s *stream, cut bool) error
}

// contender is a policy that is compared.
type contender struct {
	name  string
	ours  bool // it has targets to reach
	begin func(w *world) (policy, error)
}

func contenders() []contender {
	return []contender{
		{name: "charge at the end", begin: func(w *world) (policy, error) { return &atEnd{world: w}, nil }},
		{name: "reserve the most", begin: func(w *world) (policy, error) { return &reserve{atEnd{world: w}, w.load.most, 0}, nil }},
		{name: "reserve a quarter", begin: func(w *world) (policy, error) { return &reserve{atEnd{world: w}, w.load.most / 4, 0}, nil }},
		{name: "meter and cut", begin: func(w *world) (policy, error) { return newMetered(w) }},
		{name: "ours", ours: true, begin: func(w *world) (policy, error) { return newLearnt(w) }},
	}
}

// atEnd admits while there is budget left, and charges what an answer took when it ends.
type atEnd struct {
	world   *world
	window  int
	charged int
}

func (p *atEnd) roll() {
	if w := p.world.window(); w != p.window {
		p.window, p.charged = w, 0
	}
}

func (p *atEnd) admit(context.Context, *stream) (bool, error) {
	p.roll()
	return p.charged < limit, nil
}

func (p *atEnd) debit(context.Context, *stream, int) (bool, error) { return true, nil }

func (p *atEnd) end(_ context.Context, s *stream, _ bool) error {
	p.roll()
	p.charged += prompt + s.produced
	return nil
}

// reserve holds the same number of tokens for each answer until that ends, and charges
// what it took then.
type reserve struct {
	atEnd

	each int
	held int
}

func (p *reserve) admit(context.Context, *stream) (bool, error) {
	p.roll()
	if p.charged+p.held+prompt+p.each > limit {
		return false, nil
	}
	p.held += prompt + p.each
	return true, nil
}

func (p *reserve) end(ctx context.Context, s *stream, cut bool) error {
	p.held -= prompt + p.each
	return p.atEnd.end(ctx, s, cut)
}

// key is that of the only budget.
const key = "tenant"

func minutely() *budget.Budget {
	return &budget.Budget{Windows: []budget.Window{{Limit: limit, Width: width}}}
}

// metered admits while there is budget left, and cuts where it ends.
type metered struct{ meter *budget.Meter }

func newMetered(w *world) (*metered, error) {
	m, err := budget.NewMeter(budget.Config{Budget: minutely(), Clock: w})
	return &metered{m}, err
}

func (p *metered) admit(ctx context.Context, _ *stream) (bool, error) {
	d, err := p.meter.Debit(ctx, key, prompt)
	return d.Allowed, err
}

func (p *metered) debit(ctx context.Context, _ *stream, tokens int) (bool, error) {
	d, err := p.meter.Debit(ctx, key, int64(tokens))
	return d.Allowed, err
}

func (p *metered) end(context.Context, *stream, bool) error { return nil }

// learnt is ours: it admits what fits beside what the streams under way are expected to
// take, learns that from those before them, and meters.
type learnt struct {
	ledger *budget.Ledger
	most   int
	leases map[*stream]*budget.Lease
}

func newLearnt(w *world) (*learnt, error) {
	l, err := budget.NewLedger(budget.LedgerConfig{
		Config: budget.Config{Budget: minutely(), Clock: w}, Elapsed: w.Elapsed, MaxInFlight: 4000,
		Learning: budget.PredictiveConfig{LearnedConfig: learning(w.load)},
	})
	return &learnt{l, w.load.most, make(map[*stream]*budget.Lease)}, err
}

// learning is how the lengths of answers are learned. All of it is for a user to choose: the
// quantile, here 14/15, where to begin, and how fast to learn: a tenth of the default, because
// there are hundreds of answers in a window.
func learning(load workload) budget.LearnedConfig {
	most := float64(load.most)
	return budget.LearnedConfig{Max: most, Initial: most / 3, OverrunCost: 14, StepScale: most / 140}
}

func (p *learnt) admit(ctx context.Context, s *stream) (bool, error) {
	l, err := p.ledger.Admit(ctx, budget.Request{Key: key, Input: prompt, MaxOutput: int64(p.most)})
	if err != nil || !l.Verdict().Allowed {
		return false, err
	}
	p.leases[s] = l
	return true, nil
}

func (p *learnt) debit(ctx context.Context, s *stream, tokens int) (bool, error) {
	v, err := p.leases[s].Debit(ctx, int64(tokens))
	return v.Allowed, err
}

func (p *learnt) end(ctx context.Context, s *stream, cut bool) error {
	l := p.leases[s]
	delete(p.leases, s)
	if !cut {
		if _, err := l.Settle(ctx, budget.Usage{Input: prompt, Output: int64(s.produced)}); err != nil {
			return err
		}
	}
	return l.Close() //nolint:contextcheck // it has none, so that it also ends what was canceled
}

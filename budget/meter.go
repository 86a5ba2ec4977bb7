package budget

import (
	"context"
	"hash/maphash"

	"github.com/throttlekit/throttlekit-go"
)

// Meter counts tokens against a budget. A debit is admitted while every window has anything left,
// and then counted in full, so that what is metered in a window exceeds its limit by at most the
// last debit less one, whatever the concurrency. It is safe for concurrent use.
//
// Of several levels and windows, one debit charges all or none; on a store it is one round trip,
// but for the first in a window of the calendar, which may take two.
type Meter struct {
	accounts *accounts
	plain    bool // one level of one window, in this process
}

// NewMeter returns a meter. The error matches [throttlekit.ErrInvalid] and names every field that
// breaks a rule.
func NewMeter(config Config) (*Meter, error) {
	a, err := newAccounts(config)
	if err != nil {
		return nil, err
	}
	return &Meter{accounts: a, plain: a.bare && a.store == nil}, nil
}

func validTokens(tokens int64) error {
	if tokens >= 1 && tokens <= throttlekit.MaxSafe {
		return nil
	}
	return &throttlekit.InvalidError{Field: "tokens", Value: tokens, Rule: "must be an integer from 1 to 9007199254740991"}
}

// validAmount is the rule for tokens that may be given back.
func validAmount(tokens int64) error {
	if tokens >= 1 && tokens <= MaxTokens {
		return nil
	}
	return &throttlekit.InvalidError{Field: "tokens", Value: tokens, Rule: amountRule}
}

// Debit counts tokens, from 1 to [throttlekit.MaxSafe], for a key. The error matches ErrInvalid, ErrStoreFull
// or ErrClosed of package throttlekit, or is that of the store; a debit that a store did not answer
// may have been counted.
func (m *Meter) Debit(ctx context.Context, key string, tokens int64) (d throttlekit.Decision, err error) {
	if err := validTokens(tokens); err != nil {
		return d, err
	}
	if m.plain && m.accounts.debitOpen(key, float64(tokens), &d) {
		return d, nil
	}
	v, err := m.DebitExplained(ctx, key, tokens)
	return v.Decision, err
}

// debitOpen debits an account of one window, in this process, whose window is open and has tokens
// left. That is what [accounts.run] comes to then, without the way there; ok is false in every other case.
func (a *accounts) debitOpen(key string, tokens float64, d *throttlekit.Decision) (ok bool) {
	t := a.tables[0]
	h := maphash.String(t.seed, key)
	c := t.find(h, key)
	if c == nil {
		return false
	}
	now := a.now()
	c.mu.Lock()
	p, limit := &c.periods[0], t.limit
	if ok = p.served > 0 && p.served < limit && float64(now) < c.closes[0] && !c.dead && !a.closed.Load(); ok {
		p.served = sum(p.served, tokens)
		d.Allowed, d.Limit, d.Remaining, d.ResetAtMillis = true, int64(limit), floor(limit-p.served), ceil(c.closes[0])
	}
	c.mu.Unlock()
	return ok
}

// DebitExplained is Debit, and says which window of which level bound.
func (m *Meter) DebitExplained(ctx context.Context, key string, tokens int64) (Verdict, error) {
	if err := validTokens(tokens); err != nil {
		return Verdict{}, err
	}
	return m.accounts.ask(ctx, key, &step{op: opDebit, cost: float64(tokens)})
}

// ask makes a step and says what bound.
func (a *accounts) ask(ctx context.Context, key string, s *step) (Verdict, error) {
	each := make([]throttlekit.Decision, len(a.levels))
	if err := a.run(ctx, key, s, each, nil); err != nil {
		return Verdict{}, err
	}
	return a.verdict(each), nil
}

// Peek is the decision that a debit would get now, with what is left before it. It charges nothing.
func (m *Meter) Peek(ctx context.Context, key string) (Verdict, error) {
	return m.accounts.ask(ctx, key, &step{op: opPeek, cost: 1})
}

// Reset forgets what a key has spent at the budget's own level.
func (m *Meter) Reset(ctx context.Context, key string) error { return m.accounts.reset(ctx, key) }

// Close makes later calls fail with ErrClosed of package throttlekit. A store stays open.
func (m *Meter) Close() error {
	m.accounts.closed.Store(true)
	return nil
}

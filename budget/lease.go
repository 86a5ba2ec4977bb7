package budget

import (
	"context"
	"math"
	"sync"

	"github.com/throttlekit/throttlekit-go"
)

// Lease is one request under way. It is safe for concurrent use. Close it on every path:
//
//	defer lease.Close()
type Lease struct {
	ledger    *Ledger
	key, id   string
	number    int64 // its name in a process, instead of id
	decision  throttlekit.Decision
	input     int64
	maxOutput int64
	output    *Predictive // guarded by the ledger
	play      play

	mu      sync.Mutex
	metered int64 // that is known to be charged
	seen    int64 // the latest sign of life, on the clock of this process or of its accounts
	unsure  bool  // a call was not answered
	level   uint8 // that bound when it was admitted
	cut     bool
	closed  bool
	hints   []int
	few     [1]int
}

// Verdict is the decision on the request. If it was admitted, Remaining is how much output fits in
// the tightest window beside what other requests are expected to use.
func (l *Lease) Verdict() Verdict { return l.ledger.accounts.verdictOf(int(l.level), &l.decision) }

// ID names the lease; nobody can guess it. It is empty if the request was refused.
func (l *Lease) ID() string {
	if !l.decision.Allowed {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == "" {
		l.id = l.ledger.ids.next()
	}
	return l.id
}

// here reports whether the accounts are in this process.
func (l *Lease) here() bool { return l.ledger.accounts.store == nil }

// MaxOutput is how many tokens to let the request produce at most: what it asked for, or what fits
// if that is less. Zero if it was refused.
func (l *Lease) MaxOutput() int64 { return l.maxOutput }

// Stands reports whether the reservation surely still stands. It does for the TTL, less what clocks
// may drift apart, from the admission, the latest renewal, or the latest debit that was answered
// while it stood. A request that goes on without one is metered all the same; others may be admitted
// to its place. That a store has lost its data is found out by [Lease.Renew].
func (l *Lease) Stands() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed && l.elapsed() < l.until()
}

// elapsed is the time on the clock that seen is of.
func (l *Lease) elapsed() int64 {
	if l.here() {
		return l.ledger.accounts.now()
	}
	return l.ledger.config.Elapsed().Milliseconds()
}

// until is when the reservation may be gone, on the same clock.
func (l *Lease) until() int64 {
	ttl := l.ledger.config.TTL
	if !l.here() {
		ttl = throttlekit.Usable(ttl)
	}
	return l.seen + ttl.Milliseconds()
}

// each is room for the decisions of all levels: few, if there is one.
func (l *Lease) each(few []throttlekit.Decision) []throttlekit.Decision {
	if n := len(l.ledger.accounts.levels); n > len(few) {
		return make([]throttlekit.Decision, n)
	}
	return few
}

// run makes a step of this lease. The lock is held, so that settling comes after what is under way.
func (l *Lease) run(ctx context.Context, s *step, each []throttlekit.Decision) error {
	if s.lasts = l.ledger.lasts(); l.here() {
		s.number = l.number
	} else {
		s.id, s.now = l.id, l.elapsed()
	}
	err := l.ledger.accounts.run(ctx, l.key, s, each, l.hints)
	l.unsure = l.unsure || err != nil && s.op == opSettle
	if err == nil {
		l.see(s, everyAllows(each))
	}
	return err
}

// see learns from an answer whether the reservation stood when the step was made, which then counts
// as a sign of life at the time it was sent. A debit is allowed without one too: only if its answer
// comes while the reservation stands for sure did it find it.
func (l *Lease) see(s *step, allowed bool) {
	answered := s.now
	if !l.here() {
		answered = l.elapsed()
	}
	switch {
	case s.op == opRenew && !allowed:
		l.seen = math.MinInt64
	case s.op == opRenew, s.op == opDebit && allowed && answered < l.until():
		l.seen = s.now
	default:
	}
}

// Debit meters tokens of output, from 1 to [MaxTokens], before they are handed on. If it is refused,
// nothing was charged and the request has to stop.
//
// The error matches ErrInvalid or ErrClosed of package throttlekit, or is that of the store; a debit
// that a store did not answer may have been charged, and [Lease.Settle] puts it right.
func (l *Lease) Debit(ctx context.Context, tokens int64) (Verdict, error) {
	if err := validAmount(tokens); err != nil {
		return Verdict{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Verdict{}, throttlekit.ErrClosed
	}
	var few [1]throttlekit.Decision
	each := l.each(few[:])
	if err := l.run(ctx, &step{op: opDebit, cost: float64(tokens)}, each); err != nil {
		return Verdict{}, err
	}
	v := l.ledger.accounts.verdict(each)
	switch {
	case v.Allowed:
		l.metered += tokens
		l.ledger.metered.Add(tokens)
	case !l.cut:
		l.cut = true
		l.ledger.cut.Add(1)
	}
	return v, nil
}

// Renew lets the reservation stand for another TTL, for requests that produce nothing for long. It
// reports whether there still is one.
func (l *Lease) Renew(ctx context.Context) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, throttlekit.ErrClosed
	}
	each := l.each(nil)
	err := l.run(ctx, &step{op: opRenew, cost: 1}, each)
	return err == nil && everyAllows(each), err
}

// Usage is what a request used, as its provider reports it.
type Usage struct{ Input, Output int64 }

func (u Usage) check() error {
	if u.Input >= 0 && u.Input <= MaxTokens && u.Output >= 0 && u.Output <= MaxTokens {
		return nil
	}
	var f faults
	f.require(u.Input >= 0 && u.Input <= MaxTokens, "usage.input", u.Input, "must be an integer from 0 to 4503599627370496")
	f.require(u.Output >= 0 && u.Output <= MaxTokens, "usage.output", u.Output, "must be an integer from 0 to 4503599627370496")
	return joined(f)
}

// Receipt is what settling came to.
type Receipt struct {
	// Metered is how many tokens were charged before, Reported how many were used.
	Metered, Reported int64
	// Debt is by how much the report exceeds that, which is charged however full the budget is;
	// Refund by how much it falls short, of which each window takes back what was charged in it.
	Debt, Refund int64
	// Lapsed says that the reservation had been dropped or settled before, so that nothing was
	// given back.
	Lapsed bool
}

// Settle ends the lease and puts right what was metered by what was reported. It may be repeated
// after an error of the store, and changes nothing then if the first call had arrived.
//
// The error matches ErrInvalid, ErrClosed of package throttlekit if the lease was closed or the
// request refused, or is that of the store.
func (l *Lease) Settle(ctx context.Context, u Usage) (Receipt, error) {
	if err := u.check(); err != nil {
		return Receipt{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Receipt{}, throttlekit.ErrClosed
	}
	known := float64(l.metered)
	if l.unsure {
		known = -1
	}
	var few [1]throttlekit.Decision
	each := l.each(few[:])
	if err := l.run(ctx, &step{op: opSettle, cost: 1, amount: float64(u.Input + u.Output), extra: known}, each); err != nil {
		return Receipt{}, err
	}
	l.closed = true
	l.ledger.learn(l, u.Output, !l.cut)
	r := Receipt{Metered: l.metered, Reported: u.Input + u.Output, Lapsed: !each[0].Allowed}
	if r.Lapsed {
		return r, nil
	}
	r.Metered = each[0].Remaining
	r.Debt, r.Refund = max(0, r.Reported-r.Metered), max(0, r.Metered-r.Reported)
	if r.Debt > 0 {
		l.ledger.debt.Add(r.Debt)
	}
	if r.Refund > 0 {
		l.ledger.refunded.Add(r.Refund)
	}
	return r, nil
}

// Close ends the lease at what was metered, if it has not been settled. It may be called more than
// once. If the store does not answer within 5 seconds, the reservation is dropped at its TTL.
func (l *Lease) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.ledger.learn(l, l.metered-l.input, false)
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	return l.run(ctx, &step{op: opSettle, cost: 1, amount: -1, extra: -1}, l.each(nil))
}

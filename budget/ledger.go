package budget

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/internal/monotonic"
)

// LedgerConfig describes a [Ledger].
type LedgerConfig struct {
	Config

	// Learning says how the expected output of requests is learned, for each key and model.
	Learning PredictiveConfig
	// MaxModels bounds for how many pairs of key and model it is learned; beyond, another one
	// is forgotten. Defaults to 10,000.
	MaxModels int
	// MaxInFlight bounds the requests under way of one key at each level. Defaults to 1,000, at most 4,000.
	MaxInFlight int
	// TTL is for how long a reservation stands after the latest debit or [Lease.Renew]; one that nobody
	// settles is dropped then. At least a second. Defaults to a minute.
	TTL time.Duration
	// Elapsed is a monotonic clock, by which leases on a store know how long they stand. Defaults to the process's.
	Elapsed func() time.Duration
}

// closing bounds how long [Lease.Close] takes.
const closing = 5 * time.Second

func (c LedgerConfig) complete() (LedgerConfig, error) {
	if c.MaxModels == 0 {
		c.MaxModels = 10_000
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 1000
	}
	if c.TTL == 0 {
		c.TTL = time.Minute
	}
	if c.Elapsed == nil {
		c.Elapsed = monotonic.Elapsed
	}
	var f faults
	f.require(c.MaxModels >= 1, "maxModels", c.MaxModels, "must be a positive integer")
	f.require(c.MaxInFlight >= 1 && c.MaxInFlight <= 4000, "maxInFlight", c.MaxInFlight, "must be an integer from 1 to 4000")
	f.require(c.TTL >= time.Second && c.TTL <= 30*24*time.Hour, "ttl", c.TTL, "must be a duration from 1s to 720h")
	if len(f) > 0 {
		return c, joined(f)
	}
	return c, nil
}

// Ledger admits requests whose input is known and whose output is not. A request is admitted if its
// input and what its output is expected to be fit beside what is used and what the requests under way
// are expected to use yet. The input is charged at once, the output as it is metered.
//
// What is metered in a window never exceeds a budget by more than the last debit less one, whatever
// was expected; expectations decide only how many streams are cut short. It is safe for concurrent use.
type Ledger struct {
	config   LedgerConfig
	accounts *accounts
	ids      ids
	numbers  atomic.Int64
	fresh    *Predictive // what is known of a new model

	mu     sync.Mutex
	models map[modelKey]*Predictive // what is known about the output of a model, for a key

	admitted, refused, cut, metered, debt, refunded atomic.Int64
}

type modelKey struct{ key, model string }

// NewLedger returns a ledger. The error matches [throttlekit.ErrInvalid] and names every field
// that breaks a rule.
func NewLedger(config LedgerConfig) (*Ledger, error) {
	var f faults
	config, err := config.complete()
	a, accountsErr := newAccounts(config.Config)
	fresh, learningErr := NewPredictive(config.Learning)
	for _, err := range []error{err, accountsErr, learningErr} {
		if err != nil {
			f = append(f, err)
		}
	}
	if len(f) > 0 {
		return nil, joined(f)
	}
	return &Ledger{config: config, accounts: a, fresh: fresh, models: make(map[modelKey]*Predictive)}, nil
}

// Request is what [Ledger.Admit] decides on.
type Request struct {
	// Key is whose budget it is.
	Key string
	// Model tells requests apart whose outputs differ in length. It may be empty.
	Model string
	// Input is how many tokens the request has; from 1 to [MaxTokens]. They are charged when it is admitted.
	Input int64
	// MaxOutput is how many tokens it may produce; zero if that is not bounded.
	MaxOutput int64
	// Hint is how many tokens it is thought to produce; zero for no idea. How far hints are
	// followed depends on how good they were.
	Hint float64
}

func (r *Request) check() error {
	if r.Input >= 1 && r.Input <= MaxTokens && r.MaxOutput >= 0 && r.MaxOutput <= MaxTokens && observable(r.Hint) {
		return nil
	}
	var f faults
	f.require(r.Input >= 1 && r.Input <= MaxTokens, "input", r.Input, amountRule)
	f.require(r.MaxOutput >= 0 && r.MaxOutput <= MaxTokens, "maxOutput", r.MaxOutput, "must be an integer from 0 to 4503599627370496")
	f.require(observable(r.Hint), "hint", r.Hint, "must be a finite number, not negative")
	return joined(f)
}

// Admit decides on a request. The lease says in [Lease.Verdict] whether it was admitted; if not,
// nothing was charged and nothing is held. One that was has to be closed.
//
// The error matches ErrInvalid, ErrStoreFull or ErrClosed of package throttlekit, or is that of the
// store. A request that a store did not answer may have been charged its input; a reservation that
// it may have made is dropped at its TTL.
func (l *Ledger) Admit(ctx context.Context, r Request) (*Lease, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	lease := &Lease{ledger: l, key: r.Key, input: r.Input}
	expected := l.expect(&r, lease)
	var few [1]throttlekit.Decision
	each := few[:]
	lease.hints = lease.few[:]
	if n := len(l.accounts.levels); n > 1 {
		each, lease.hints = make([]throttlekit.Decision, n), make([]int, n)
	}
	s := step{op: opAdmit, cost: float64(r.Input), amount: expected, extra: float64(l.config.MaxInFlight), lasts: l.lasts()}
	if lease.here() {
		lease.number = l.numbers.Add(1)
		s.number = lease.number
	} else {
		lease.id = l.ids.next()
		s.id, lease.seen = lease.id, l.config.Elapsed().Milliseconds()
	}
	err := l.accounts.run(ctx, r.Key, &s, each, lease.hints)
	if err != nil {
		return nil, err
	}
	level := binding(each)
	lease.level, lease.decision = uint8(level), each[level]
	if !lease.decision.Allowed {
		lease.closed = true
		l.refused.Add(1)
		return lease, nil
	}
	if lease.here() {
		lease.seen = s.now
	}
	l.admitted.Add(1)
	l.metered.Add(r.Input)
	lease.metered = r.Input
	// What it reserved for itself has been counted among what is left.
	if lease.maxOutput = lease.decision.Remaining; r.MaxOutput > 0 {
		lease.maxOutput = min(lease.maxOutput, r.MaxOutput)
	}
	return lease, nil
}

func (l *Ledger) lasts() float64 { return float64(l.config.TTL.Milliseconds()) }

// expect is how much output to expect of a request.
func (l *Ledger) expect(r *Request, lease *Lease) (expected float64) {
	hint := r.Hint
	if hint == 0 {
		hint = math.NaN()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lease.output = l.model(modelKey{r.Key, r.Model})
	expected, lease.play = lease.output.mix(hint)
	if expected = max(1, expected); r.MaxOutput > 0 {
		expected = min(expected, float64(r.MaxOutput))
	}
	return expected
}

// model is what is known about a pair of key and model. The lock is held.
func (l *Ledger) model(k modelKey) *Predictive {
	if m := l.models[k]; m != nil {
		return m
	}
	for forgotten := range l.models {
		if len(l.models) < l.config.MaxModels {
			break
		}
		delete(l.models, forgotten)
	}
	m := l.fresh.clone()
	l.models[k] = m
	return m
}

// learn tells what output a request came to, whole or cut off.
func (l *Ledger) learn(lease *Lease, output int64, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lease.output.learn(lease.play, float64(output), whole)
}

// ids makes names that nobody can guess, of 128 random bits.
type ids struct {
	mu   sync.Mutex
	made string // names that are not taken yet, side by side
}

const (
	idBytes = 16
	idBatch = 32
)

func (i *ids) next() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.made == "" {
		var random [idBatch * idBytes]byte
		_, _ = rand.Read(random[:]) // it never fails
		i.made = hex.EncodeToString(random[:])
	}
	id := i.made[:2*idBytes]
	i.made = i.made[2*idBytes:]
	return id
}

// Stats counts what a ledger has done since it was made, in this process.
type Stats struct {
	// Admitted and Refused count requests, Cut those whose debits were refused.
	Admitted, Refused, Cut int64
	// Metered is how many tokens were charged as they were used. No budget was exceeded by them
	// beyond the last debit less one.
	Metered int64
	// Debt is how many tokens were reported beyond what was metered, and charged however full the
	// budget was; Refunded how many fewer were reported.
	Debt, Refunded int64
}

// Stats is a snapshot.
func (l *Ledger) Stats() Stats {
	return Stats{
		Admitted: l.admitted.Load(), Refused: l.refused.Load(), Cut: l.cut.Load(),
		Metered: l.metered.Load(), Debt: l.debt.Load(), Refunded: l.refunded.Load(),
	}
}

// InFlight is what a key's requests under way hold.
type InFlight struct {
	// Requests is how many there are, Expected how many tokens they are expected to use yet.
	Requests, Expected int64
}

// InFlight looks at a key, at the budget's own level.
func (l *Ledger) InFlight(ctx context.Context, key string) (InFlight, error) {
	each := make([]throttlekit.Decision, len(l.accounts.levels))
	err := l.accounts.run(ctx, key, &step{op: opInspect, cost: 1}, each, nil)
	return InFlight{Requests: each[0].Limit, Expected: each[0].Remaining}, err
}

// Peek is the decision that a debit of one token would get now. It charges nothing.
func (l *Ledger) Peek(ctx context.Context, key string) (Verdict, error) {
	return l.accounts.ask(ctx, key, &step{op: opPeek, cost: 1})
}

// Close makes later calls fail with ErrClosed of package throttlekit, those of leases included: what
// they hold is dropped at its TTL. A store stays open.
func (l *Ledger) Close() error {
	l.accounts.closed.Store(true)
	return nil
}

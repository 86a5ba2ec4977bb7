package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// Guard is the axis of concurrency. A [concurrency.Guard] is one.
type Guard interface {
	// Acquire asks for a permit, and waits for it if the guard has a queue, as long as ctx allows.
	Acquire(ctx context.Context) (concurrency.Permit, error)
	// Stats tells how long the latest request took, which is what a denial says to wait.
	Stats() concurrency.Stats
}

// Limit is the axis of the rate or of the cost.
type Limit struct {
	// Strategy is its rule.
	Strategy throttlekit.Strategy
	// Prefix is where its records are: under "prefix:key", or under the key itself if it is empty.
	Prefix string
}

// Config describes an [Admitter]. At least one axis must be given.
type Config struct {
	// Guard limits how many requests are under way. Nil means any number.
	Guard Guard
	// Rate is charged 1 for each request, Cost what the request costs. Nil means no such limit. If both
	// are given, no key of one may ever be one of the other: neither prefix, with the colon behind
	// it, may begin the other.
	Rate, Cost *Limit
	// Store keeps the records of Rate and Cost. One store has both, so that both are charged in one
	// atomic step or none. The admitter does not close it.
	Store throttlekit.Store
	// Price refuses requests that are worth too little. Nil admits all. It needs Cost or a Guard.
	Price *Price
	// Clock is read for the ResetAtMillis of the guard's decisions, which is always now. Defaults to
	// [throttlekit.SystemClock].
	Clock throttlekit.Clock
}

// Admitter admits requests that all of its axes allow. See the package's documentation for what it
// promises. It is safe for concurrent use.
type Admitter struct {
	guard  Guard
	price  *Price
	store  throttlekit.Store
	limits []limit
	clock  throttlekit.Clock
}

// limit is an axis that lives on the store.
type limit struct {
	place  int
	prefix string // with its colon
	rule   throttlekit.Rule
}

// op is what a request asks of the limit.
func (l *limit) op(r *Request) throttlekit.Op {
	op := throttlekit.Op{Key: r.Key, Transition: l.rule, Cost: 1}
	if l.prefix != "" {
		op.Key = l.prefix + r.Key
	}
	if l.place == placeCost {
		op.Cost = r.Cost
	}
	return op
}

// New returns an admitter. The error matches [throttlekit.ErrInvalid] and names every field that
// breaks a rule.
//
// With Rate and Cost, the store must be able to charge two keys in one atomic step
// ([throttlekit.CommitAll]). Whether it can shows at the first request, whose error matches
// [throttlekit.ErrUnsupported] if not.
func New(config Config) (*Admitter, error) {
	a := &Admitter{guard: config.Guard, price: config.Price, store: config.Store, clock: config.Clock}
	if a.clock == nil {
		a.clock = throttlekit.SystemClock{}
	}
	var wrong checks
	wrong.require(config.Guard != nil || config.Rate != nil || config.Cost != nil,
		"axes", "none", "must be at least one of guard, rate and cost")
	wrong.require(config.Store != nil || config.Rate == nil && config.Cost == nil,
		"store", nil, "must be given for rate and cost")
	wrong.require(config.Price == nil || config.Guard != nil || config.Cost != nil,
		"price", "a price of the rate alone", "needs a guard or a limit of cost")
	a.add(&wrong, placeRate, config.Rate)
	a.add(&wrong, placeCost, config.Cost)
	if config.Rate != nil && config.Cost != nil {
		rate, cost := a.limits[0].prefix, a.limits[1].prefix
		wrong.require(!strings.HasPrefix(rate, cost) && !strings.HasPrefix(cost, rate),
			"cost.prefix", config.Cost.Prefix, fmt.Sprintf("must neither begin rate.prefix %q nor the other way about", config.Rate.Prefix))
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return a, nil
}

// add adds a limit, if there is one.
func (a *Admitter) add(wrong *checks, place int, l *Limit) {
	if l == nil {
		return
	}
	field := string(axes[place]) + ".strategy"
	added := limit{place: place}
	if l.Prefix != "" {
		added.prefix = l.Prefix + ":"
	}
	if l.Strategy == nil {
		wrong.require(false, field, nil, "must be given")
	} else {
		rule, err := l.Strategy.Rule()
		if err != nil {
			*wrong = append(*wrong, fmt.Errorf("%s: %w", field, err))
		}
		added.rule = rule
	}
	a.limits = append(a.limits, added)
}

// Request is what asks to be admitted.
type Request struct {
	// Key is whom to charge. The guard and the price are for all keys together.
	Key string
	// Cost is what to charge, above 0 and at most [throttlekit.MaxSafe]. Zero means 1.
	Cost float64
	// Value is what the request is worth, in the unit of the price; finite and not negative. Zero
	// means 1. Only a price looks at it.
	Value float64
	// Hold is how long the request will hold its slot, in the unit of the price's budget of
	// concurrency; finite and not negative. Zero means that it is not known. Only a price looks at it.
	Hold float64
}

// complete fills the defaults in and refuses what breaks a rule.
func (r *Request) complete() error {
	if r.Cost == 0 {
		r.Cost = 1
	}
	if r.Value == 0 {
		r.Value = 1
	}
	if r.Cost > 0 && r.Cost <= throttlekit.MaxSafe && amount(r.Value) && amount(r.Hold) {
		return nil
	}
	var wrong checks
	wrong.require(r.Cost > 0 && r.Cost <= throttlekit.MaxSafe, "cost", r.Cost,
		"must be a finite number greater than 0 and at most 9007199254740991")
	wrong.amount("value", r.Value)
	wrong.amount("hold", r.Hold)
	return errors.Join(wrong...)
}

// StandIn decides for a store that could not; err is that of the store. It returns err, or another
// error, if it does not decide either.
type StandIn func(ctx context.Context, err error) (throttlekit.Decision, error)

// Admit decides on a request. An error matches [throttlekit.ErrInvalid], or is that of the guard or of
// the store; there is no slot to end then. A denial is no error.
func (a *Admitter) Admit(ctx context.Context, r Request) (adm Admission, err error) {
	err = a.admit(ctx, &r, nil, &adm)
	return adm, err
}

// AdmitOr is Admit with a decision in place of the store's where that fails, such as that of a fail
// mode. The guard is asked as ever, so what a stand-in lets through is still limited in how much of it
// is under way; a denial or an error gives the slot back. Every error of the store goes to standIn,
// those included that are the caller's own.
func (a *Admitter) AdmitOr(ctx context.Context, r Request, standIn StandIn) (adm Admission, err error) {
	err = a.admit(ctx, &r, standIn, &adm)
	return adm, err
}

// admit leaves the answer in adm, which is empty if there is an error. Admissions are large, and every
// function that hands one on by value would copy it once more.
func (a *Admitter) admit(ctx context.Context, r *Request, standIn StandIn, adm *Admission) error {
	if err := r.complete(); err != nil {
		return err
	}
	if a.guard == nil {
		adm.Decision = AllowFull()
		return a.decide(ctx, r, standIn, adm)
	}
	permit, err := a.guard.Acquire(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if !adm.permit.Allowed { // denied, failed, or left by a panic
			permit.Cancel()
		}
	}()
	adm.Decision = AllowFull()
	if adm.ask(placeConcurrency, a.seat(&permit)) {
		if err := a.decide(ctx, r, standIn, adm); err != nil {
			return err
		}
	}
	if adm.Allowed {
		if len(a.limits) > 0 {
			permit.Begin() // how long the store took says nothing about the backend
		}
		adm.permit = permit
	}
	return nil
}

// seat is the decision that a permit stands for. Specification: "TALE" §3.2.
func (a *Admitter) seat(p *concurrency.Permit) throttlekit.Decision {
	d := throttlekit.Decision{Allowed: p.Allowed, Limit: int64(p.Limit), ResetAtMillis: a.clock.NowMillis()}
	if p.Allowed {
		d.Remaining = max(0, int64(p.Limit)-int64(p.InFlight))
		return d
	}
	// A slot comes free when a request ends: the latest took this long, rounded.
	d.RetryAfterMillis = max(1, int64((a.guard.Stats().Last+time.Millisecond/2)/time.Millisecond))
	if p.Limit == 0 {
		d.RetryAfterMillis = noShareRetryMillis
	}
	return d
}

// noShareRetryMillis is when to try again at a guard that admits nobody: it has no share of its fleet's
// ceiling until a heartbeat brings one, which usually come every second.
const noShareRetryMillis = 1000

// decide asks what stands behind the guard: the price, then rate and cost.
func (a *Admitter) decide(ctx context.Context, r *Request, standIn StandIn, adm *Admission) error {
	if a.price != nil && !a.price.admits(r.Cost, r.Value, r.Hold) {
		adm.denyByPrice()
		return nil
	}
	if len(a.limits) == 0 {
		return nil
	}
	err := a.charge(ctx, r, adm)
	if err != nil && standIn != nil {
		var d throttlekit.Decision
		if d, err = standIn(ctx, err); err == nil {
			adm.ask(a.limits[0].place, d)
		}
	}
	if err != nil {
		*adm = Admission{}
	}
	return err
}

// charge charges the limits, all or none. Nothing is taken in if it fails.
func (a *Admitter) charge(ctx context.Context, r *Request, adm *Admission) error {
	first := &a.limits[0]
	if len(a.limits) == 1 {
		op := first.op(r)
		d, err := a.store.Apply(ctx, op.Key, op.Transition, op.Cost)
		if err == nil {
			adm.ask(first.place, d)
		}
		return err
	}
	ops := []throttlekit.Op{first.op(r), a.limits[1].op(r)}
	each, err := a.store.Batch(ctx, ops, throttlekit.CommitAll)
	switch {
	case err != nil:
		return err
	case len(each) != len(ops):
		return fmt.Errorf("%w: %d decisions for %d keys", throttlekit.ErrStoreUnavailable, len(each), len(ops))
	}
	for i, d := range each {
		if !adm.ask(a.limits[i].place, d) {
			break // what stands behind it counts as not asked
		}
	}
	return nil
}

// checks collects every broken rule, so that all are reported at once.
type checks []error

func (c *checks) require(ok bool, field string, value any, rule string) {
	if !ok {
		*c = append(*c, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
	}
}

func (c *checks) amount(field string, x float64) {
	c.require(amount(x), field, x, "must be a finite number and not negative")
}

// amount reports whether x is a finite number and not negative.
func amount(x float64) bool { return x >= 0 && x <= math.MaxFloat64 }

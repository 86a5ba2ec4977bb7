package lease

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// CoordinatorPrefix is what the keys of coordinators begin with if nothing else is given.
const CoordinatorPrefix = "tk:fed"

// CoordinatorConfig describes a [Coordinator].
type CoordinatorConfig struct {
	// Strategy is the limit that a fleet shares: a [throttlekit.FixedWindow], a
	// [throttlekit.SlidingWindow], or a [throttlekit.Quota] of fixed or rolling windows.
	// Whichever it is, the coordinator counts in windows of its width that are aligned to
	// the epoch. The limit is rounded down to whole units, of which there must be one.
	Strategy throttlekit.Strategy
	// Store keeps the budgets. It is required and stays open.
	Store throttlekit.Store
	// Prefix stores every budget as "prefix:key". Defaults to [CoordinatorPrefix].
	Prefix string
}

// Coordinator lends the budget of each window to the members of a fleet. It is one
// transition on one key, so every store carries it, and the store's clock alone says which
// window it is. It is safe for concurrent use.
//
// Every unit that it lends was in the budget before and is lent once, and expires with its
// window; so the fleet admits at most the limit in each window of the store's clock,
// however many members there are and whatever their clocks say.
type Coordinator struct {
	store  throttlekit.Store
	prefix string
	rule   throttlekit.Windowed
	window time.Duration
	limit  int64
	any    throttlekit.Transition // lends whatever there is
}

// NewCoordinator returns a coordinator. The error matches [throttlekit.ErrInvalid], or
// [throttlekit.ErrUnsupported] if the strategy cannot be federated.
func NewCoordinator(config CoordinatorConfig) (*Coordinator, error) {
	if config.Store == nil {
		return nil, &throttlekit.InvalidError{Field: "store", Value: nil, Rule: "must be given"}
	}
	limit, width, err := federable(config.Strategy)
	if err != nil {
		return nil, err
	}
	limit = math.Floor(limit)
	if limit < 1 || limit > throttlekit.MaxSafe {
		return nil, &throttlekit.InvalidError{
			Field: "limit", Value: limit, Rule: "must be at least one whole unit and at most 9007199254740991",
		}
	}
	rule, err := throttlekit.FixedWindow{Limit: limit, Window: width}.Rule()
	if err != nil {
		return nil, err
	}
	windowed, ok := rule.(throttlekit.Windowed)
	if !ok {
		return nil, fmt.Errorf("%w: a fixed window without windows", throttlekit.ErrUnsupported)
	}
	if config.Prefix == "" {
		config.Prefix = CoordinatorPrefix
	}
	c := &Coordinator{store: config.Store, prefix: config.Prefix + ":", rule: windowed, window: width, limit: int64(limit)}
	c.any = c.lend(1)
	return c, nil
}

// lend is the transition that lends at least some units.
func (c *Coordinator) lend(least int64) throttlekit.Transition {
	return &federation{
		Transition: throttlekit.UpTo(c.rule, float64(least)), name: "federationLease",
		parameters: c.parameters(strconv.FormatInt(least, 10)),
	}
}

func (c *Coordinator) parameters(more ...string) []string {
	millis := strconv.FormatFloat(float64(c.window)/float64(time.Millisecond), 'g', -1, 64)
	return append([]string{strconv.FormatInt(c.limit, 10), millis}, more...)
}

// federable is the limit and the width of the windows that a strategy counts in.
func federable(strategy throttlekit.Strategy) (limit float64, width time.Duration, err error) {
	if strategy == nil {
		return 0, 0, &throttlekit.InvalidError{Field: "strategy", Value: nil, Rule: "must be given"}
	}
	rule, err := strategy.Rule()
	if err != nil {
		return 0, 0, err
	}
	switch s := rule.Strategy().(type) {
	case throttlekit.FixedWindow:
		return s.Limit, s.Window, nil
	case throttlekit.SlidingWindow:
		return s.Limit, s.Window, nil
	case throttlekit.Quota:
		if s.Cadence == throttlekit.Fixed || s.Cadence == throttlekit.Rolling {
			return s.Limit, s.Period, nil
		}
	}
	return 0, 0, fmt.Errorf(
		"%w: strategy %s cannot be federated; fixedWindow, slidingWindow and quotas of fixed or rolling windows can",
		throttlekit.ErrUnsupported, rule.Name())
}

// federation is a transition on a budget, by the name under which stores may know it.
type federation struct {
	throttlekit.Transition

	name       string
	parameters []string
}

// Name implements [throttlekit.Transition].
func (f *federation) Name() string { return f.name }

// Parameters implements [throttlekit.Parameterized].
func (f *federation) Parameters() []string { return f.parameters }

// Limit is the budget of one window.
func (c *Coordinator) Limit() int64 { return c.limit }

// Window is the width of a window.
func (c *Coordinator) Window() time.Duration { return c.window }

// Lease takes up to wants units out of the current window's budget, and none if there are
// fewer than least: it grants 0 then, with a denial that says when the next window begins.
//
// The error matches ErrInvalid, or is that of the store.
func (c *Coordinator) Lease(ctx context.Context, key string, least, wants int64) (Grant, error) {
	switch {
	case wants < 1 || wants > throttlekit.MaxSafe:
		return Grant{}, &throttlekit.InvalidError{Field: "wants", Value: wants, Rule: batchRule}
	case least < 1 || least > wants:
		return Grant{}, &throttlekit.InvalidError{
			Field: "least", Value: least, Rule: fmt.Sprintf("must be an integer from 1 to wants, which is %d", wants),
		}
	}
	lend := c.any
	if least > 1 {
		lend = c.lend(least)
	}
	d, err := c.store.Apply(ctx, c.prefix+key, lend, float64(wants))
	if err != nil {
		return Grant{}, err
	}
	g := grantOf(d)
	g.Limit, g.Lasts = c.limit, g.ResetsIn
	return g, nil
}

// Return gives back units that were lent in the window that ends at resetAtMillis, if it is
// still the current one. The caller must not use them afterwards, and must not repeat a
// call that failed: the units may have arrived.
func (c *Coordinator) Return(ctx context.Context, key string, units, resetAtMillis int64) error {
	if units < 1 || units > c.limit {
		return &throttlekit.InvalidError{Field: "units", Value: units, Rule: fmt.Sprintf("must be an integer from 1 to %d", c.limit)}
	}
	_, err := c.store.Apply(ctx, c.prefix+key, &federation{
		Transition: c.rule.Refund(resetAtMillis), name: "federationReturn",
		parameters: c.parameters(strconv.FormatInt(resetAtMillis, 10)),
	}, float64(units))
	return err
}

// Partition divides a limit among regions that do not talk to each other, as evenly as
// whole units allow; the first regions get one more. The error matches [throttlekit.ErrInvalid].
func Partition(limit int64, regions []string) (map[string]int64, error) {
	n := int64(len(regions))
	var wrong []error
	if n == 0 {
		wrong = append(wrong, &throttlekit.InvalidError{Field: "regions", Value: regions, Rule: "must not be empty"})
	}
	if limit < max(1, n) || limit > throttlekit.MaxSafe {
		wrong = append(wrong, &throttlekit.InvalidError{
			Field: "limit", Value: limit,
			Rule: fmt.Sprintf("must be an integer from %d, one for each region, to 9007199254740991", max(1, n)),
		})
	}
	shares := make(map[string]int64, n)
	for i, region := range regions {
		if _, repeated := shares[region]; repeated {
			wrong = append(wrong, &throttlekit.InvalidError{Field: fmt.Sprintf("regions[%d]", i), Value: region, Rule: "must be unique"})
		}
		shares[region] = limit / max(1, n)
		if int64(i) < limit%max(1, n) {
			shares[region]++
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return shares, nil
}

package admission

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/throttlekit/throttlekit-go"
)

// Duals are what a unit of each axis is worth: the dual prices of a [Workload]. Each is finite and not
// negative, in units of value.
type Duals struct {
	// Rate is the price of one request.
	Rate float64
	// Cost is the price of one unit of cost.
	Cost float64
	// Concurrency is the price of holding a slot for one unit of time.
	Concurrency float64
}

// Bid is what a request must be worth. A hold that is not finite and above 0 counts as not known, and
// adds nothing. Specification: "TALE" §3.5.
func (d Duals) Bid(cost, hold float64) float64 {
	bid := d.Rate + float64(d.Cost*cost)
	if amount(hold) {
		bid += float64(d.Concurrency * hold)
	}
	return bid
}

func (d Duals) check(wrong *checks) {
	wrong.amount("duals.rate", d.Rate)
	wrong.amount("duals.cost", d.Cost)
	wrong.amount("duals.concurrency", d.Concurrency)
}

// MaxSample is the largest [PriceConfig.SampleWindow].
const MaxSample = 100_000

// PriceConfig describes a [Price]. Exactly one of Duals and Workload must be given.
type PriceConfig struct {
	// Duals are the prices themselves.
	Duals *Duals
	// Workload is what the prices are computed from.
	Workload *Workload
	// SampleWindow is by how many requests the prices are refined, once, up to MaxSample; the memory
	// for them is taken at once and given back after. It needs a Workload without Concurrency. Zero, the
	// default, keeps the prices as they are.
	SampleWindow int
}

// Price refuses requests that are worth less than the room that they take is worth to others: a
// request passes if its value is at least its bid, p_R + p_C·cost + p_K·hold. Those that cannot pass
// have charged nothing, so that the budgets are left to those that are worth more. It is safe for
// concurrent use, and several admitters may share one. Source: bid-price control in network revenue
// management (K. Talluri, G. van Ryzin, 1998).
//
// With a sample window, the first requests that reach the price are recorded. The last of them settles
// the matter: prices are computed from those requests and replace the first ones if they would have
// admitted more value of that sample; then they stay for good. That they are better for what comes
// later is likely as far as it resembles the sample, and not guaranteed.
type Price struct {
	duals  atomic.Pointer[Duals]
	sample atomic.Pointer[sample] // nil once the prices are final
}

// NewPrice returns a price. The error matches [throttlekit.ErrInvalid] and names every field that
// breaks a rule.
func NewPrice(config PriceConfig) (*Price, error) {
	var wrong checks
	window, w := config.SampleWindow, config.Workload
	wrong.require((config.Duals == nil) != (w == nil), "duals", config.Duals, "must be given if and only if no workload is")
	wrong.require(window >= 0 && window <= MaxSample, "sampleWindow", window, "must be an integer from 0 to 100000")
	wrong.require(window == 0 || w != nil && w.Concurrency == 0, "sampleWindow", window, "needs a workload without concurrency")
	if config.Duals != nil {
		config.Duals.check(&wrong)
	}
	if w != nil {
		w.check(&wrong, "workload.")
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	p := new(Price)
	if config.Duals != nil {
		duals := *config.Duals
		p.duals.Store(&duals)
		return p, nil
	}
	duals := w.prices()
	p.duals.Store(&duals)
	if window > 0 {
		p.sample.Store(newSample(w, window))
	}
	return p, nil
}

// Duals are the prices now.
func (p *Price) Duals() Duals { return *p.duals.Load() }

// Final reports whether the prices will stay as they are: at once, unless there is a sample window.
func (p *Price) Final() bool { return p.sample.Load() == nil }

// admits reports whether a request is worth its price.
func (p *Price) admits(cost, value, hold float64) bool {
	if s := p.sample.Load(); s != nil {
		s.observe(p, arrival{cost, value})
	}
	return value >= p.duals.Load().Bid(cost, hold)
}

// arrival is what a sample keeps of a request.
type arrival struct{ cost, value float64 }

// sample is what the prices are refined by. Specification: "TALE" §3.5, online refinement.
type sample struct {
	rate, cost float64 // budgets for one arrival

	mu    sync.Mutex
	seen  []arrival
	types []Type // of what was seen, counted in Weight; what comes after MaxTypes is not
}

func newSample(w *Workload, window int) *sample {
	s := &sample{
		rate: w.Rate, cost: w.Cost,
		seen: make([]arrival, 0, window), types: make([]Type, 0, MaxTypes),
	}
	if weight := w.weight(); weight > 0 {
		s.rate, s.cost = w.Rate/weight, w.Cost/weight
	}
	return s
}

// observe records an arrival. The one that fills the sample makes the prices final.
func (s *sample) observe(p *Price, a arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == cap(s.seen) {
		return // it was filled meanwhile
	}
	s.seen = append(s.seen, a)
	s.count(a)
	if len(s.seen) < cap(s.seen) {
		return
	}
	if learned, err := s.learn(); err == nil && s.worth(learned) > s.worth(*p.duals.Load()) {
		p.duals.Store(&learned)
	}
	p.sample.Store(nil)
}

func (s *sample) count(a arrival) {
	for i := range s.types {
		if t := &s.types[i]; t.Cost == a.cost && t.Value == a.value {
			t.Weight++
			return
		}
	}
	if len(s.types) < cap(s.types) {
		s.types = append(s.types, Type{Cost: a.cost, Value: a.value, Weight: 1})
	}
}

// learn computes prices from the sample. What a workload could not be given as is refused here, too.
func (s *sample) learn() (Duals, error) {
	w := Workload{Rate: s.rate, Cost: s.cost, Types: s.types}
	for i := range w.Types {
		w.Types[i].Weight /= float64(len(s.seen))
	}
	var wrong checks
	if w.check(&wrong, ""); len(wrong) > 0 {
		return Duals{}, errors.Join(wrong...)
	}
	return w.prices(), nil
}

// worth is the value of what the sample's budgets would have admitted under prices.
func (s *sample) worth(duals Duals) (worth float64) {
	n := float64(len(s.seen))
	rate, cost := s.rate*n, s.cost*n
	for _, a := range s.seen {
		if rate >= 1 && cost >= a.cost && a.value >= duals.Bid(a.cost, 0) {
			rate--
			cost -= a.cost
			worth += a.value
		}
	}
	return worth
}

// MaxTypes is how many types a [Workload] may have. Computing prices takes time that grows with the
// cube of their number, with concurrency with its fourth power: milliseconds at this number.
const MaxTypes = 64

// Workload is a model of what comes in some time and of what there is for it then.
type Workload struct {
	// Rate is how many requests fit, Cost how many units of cost; positive, at most
	// [throttlekit.MaxSafe].
	Rate, Cost float64
	// Concurrency is for how much time slots can be held: how many there are times how long. Zero leaves
	// that axis out; otherwise as Rate, and at least one type must have a Hold.
	Concurrency float64
	// Types are what comes, from 1 to MaxTypes.
	Types []Type
}

// Type is one kind of requests. Every number is from 0 to [throttlekit.MaxSafe].
type Type struct {
	// Cost is what a request costs, Value what it is worth. Values below 0.0000001 cannot be told from 0;
	// their unit should be such that they are far above that.
	Cost, Value float64
	// Weight is how many of them come.
	Weight float64
	// Hold is how long one holds its slot. It must be 0 in a workload without Concurrency.
	Hold float64
}

func (w *Workload) weight() (sum float64) {
	for _, t := range w.Types {
		sum += t.Weight
	}
	return sum
}

// check refuses what breaks a rule. Fields are named behind a prefix.
func (w *Workload) check(wrong *checks, prefix string) {
	const (
		budgetRule = "must be a finite number greater than 0 and at most 9007199254740991"
		numberRule = "must be a number from 0 to 9007199254740991"
	)
	require := func(ok bool, field string, value any, rule string) { wrong.require(ok, prefix+field, value, rule) }
	budget := func(x float64) bool { return x > 0 && x <= throttlekit.MaxSafe }
	number := func(x float64) bool { return x >= 0 && x <= throttlekit.MaxSafe }
	require(budget(w.Rate), "rate", w.Rate, budgetRule)
	require(budget(w.Cost), "cost", w.Cost, budgetRule)
	require(w.Concurrency == 0 || budget(w.Concurrency), "concurrency", w.Concurrency, budgetRule+", or 0 for none")
	require(len(w.Types) >= 1 && len(w.Types) <= MaxTypes, "types", len(w.Types), "must be 1 to 64 of them")
	holds := false
	for i, t := range w.Types[:min(len(w.Types), MaxTypes)] {
		require(number(t.Cost), typeField(i, "cost"), t.Cost, numberRule)
		require(number(t.Value), typeField(i, "value"), t.Value, numberRule)
		require(number(t.Weight), typeField(i, "weight"), t.Weight, numberRule)
		require(number(t.Hold), typeField(i, "hold"), t.Hold, numberRule)
		require(t.Hold == 0 || w.Concurrency != 0, typeField(i, "hold"), t.Hold, "must be 0 without a budget of concurrency")
		holds = holds || t.Hold > 0
	}
	require(w.Concurrency == 0 || holds, "concurrency", w.Concurrency, "needs a type with a hold")
}

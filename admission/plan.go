package admission

import (
	"cmp"
	"slices"
)

// filling admits marginal types one after the other, as far as the budgets go.
type filling struct {
	types            []Type
	plan             []float64
	rate, cost, hold float64 // what is left
}

// take admits a part of a type.
func (f *filling) take(i int, part float64) {
	t := &f.types[i]
	f.plan[i] = part
	f.rate -= float64(part * t.Weight)
	f.cost -= float64(part * float64(t.Weight*t.Cost))
	f.hold -= float64(part * float64(t.Weight*t.Hold))
}

// part is how much of need fits into left.
func part(left, need float64) float64 {
	switch {
	case need <= epsilon:
		return 1
	case left >= need:
		return 1
	default:
		return max(0, left/need)
	}
}

// plan is which part of each type to admit under prices: those worth more than their bid, and of those
// worth just that, which are marginal, as much as exhausts every budget that has a price.
func (w *Workload) plan(p Duals) []float64 {
	f := filling{types: w.Types, plan: make([]float64, len(w.Types)), rate: w.Rate, cost: w.Cost, hold: w.Concurrency}
	var marginal []int
	for i := range w.Types {
		switch r := w.Types[i].reduced(p); {
		case r > slack:
			f.take(i, 1)
		case r >= -slack:
			marginal = append(marginal, i)
		}
	}
	switch {
	case w.Concurrency > 0:
		f.greedy(p, marginal)
	case p.Rate > epsilon && p.Cost > epsilon:
		f.exhaustBoth(marginal)
	case p.Rate > epsilon:
		f.byCost(marginal, 1).exhaustRate(marginal)
	case p.Cost > epsilon:
		f.byCost(marginal, -1).exhaustCost(marginal)
	}
	return f.plan
}

// byCost orders types by their cost, ascending if sign is 1 and descending if it is -1.
func (f *filling) byCost(order []int, sign int) *filling {
	slices.SortStableFunc(order, func(i, j int) int { return sign * cmp.Compare(f.types[i].Cost, f.types[j].Cost) })
	return f
}

func (f *filling) exhaustRate(order []int) {
	for _, i := range order {
		f.take(i, part(f.rate, f.types[i].Weight))
	}
}

// exhaustCost leaves types out that cost nothing: they would use up requests and are worth nothing.
func (f *filling) exhaustCost(order []int) {
	for _, i := range order {
		if need := float64(f.types[i].Weight * f.types[i].Cost); need > epsilon {
			f.take(i, part(f.cost, need))
		}
	}
}

// exhaustBoth exhausts the rate by the cheapest and by the dearest types, and takes that mixture of the two
// which exhausts the cost as well.
func (f *filling) exhaustBoth(marginal []int) {
	cheap, dear := *f, *f
	cheap.plan, dear.plan = slices.Clone(f.plan), slices.Clone(f.plan)
	cheap.byCost(marginal, 1).exhaustRate(marginal)
	dear.byCost(marginal, -1).exhaustRate(marginal)
	share := 0.0
	if spread := cheap.cost - dear.cost; spread > epsilon {
		share = min(1, max(0, cheap.cost/spread))
	}
	for _, i := range marginal {
		f.take(i, float64((1-share)*cheap.plan[i])+float64(share*dear.plan[i]))
	}
}

// greedy takes types in their order as far as all three budgets go.
func (f *filling) greedy(p Duals, marginal []int) {
	if p.Rate <= slack && p.Cost <= slack && p.Concurrency <= slack {
		return
	}
	for _, i := range marginal {
		t := &f.types[i]
		f.take(i, min(part(f.rate, t.Weight), part(f.cost, float64(t.Weight*t.Cost)), part(f.hold, float64(t.Weight*t.Hold))))
	}
}

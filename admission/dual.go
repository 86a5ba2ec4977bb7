package admission

import (
	"errors"
	"fmt"
	"iter"
	"math"
)

// The prices of a workload solve the dual of a linear program:
//
//	maximize  Σ w·v·x   over 0 ≤ x ≤ 1   with   Σ w·x ≤ R,  Σ w·c·x ≤ C,  Σ w·h·x ≤ K
//
// which is to minimize, over prices p ≥ 0, the convex and piecewise linear
//
//	D(p) = R·p_R + C·p_C + K·p_K + Σ w·max(0, v − p_R − p_C·c − p_K·h).
//
// Its minimum is at a corner, where as many planes meet as there are prices: those where a price is 0
// and those where a type is worth exactly its bid. There are few types, so all corners are tried.
// Specification: "TALE" §3.5.

const (
	epsilon = 1e-9 // prices and slopes that differ by less are equal
	slack   = 1e-7 // values that differ by less are equal
)

// Solution is what [Workload.Solve] finds.
type Solution struct {
	// Duals are the prices.
	Duals Duals
	// Plan is which part of each type to admit, from 0 to 1, within the budgets.
	Plan []float64
	// Objective is the most value that any plan can have. That is the value of Plan; with
	// Concurrency, Plan may be worth less.
	Objective float64
}

// Solve computes the prices of a workload, and the plan that they belong to. Of several prices that are
// right, it takes those that refuse the most types. The error matches [throttlekit.ErrInvalid] and
// names every field that breaks a rule.
func (w Workload) Solve() (Solution, error) {
	var wrong checks
	if w.check(&wrong, ""); len(wrong) > 0 {
		return Solution{}, errors.Join(wrong...)
	}
	p := w.prices()
	s := Solution{Duals: p, Plan: w.plan(p), Objective: w.dual(p)}
	return s, nil
}

func typeField(i int, field string) string { return fmt.Sprintf("types[%d].%s", i, field) }

// dual is D(p).
func (w *Workload) dual(p Duals) float64 {
	d := float64(w.Rate*p.Rate) + float64(w.Cost*p.Cost) + float64(w.Concurrency*p.Concurrency)
	for i := range w.Types {
		if t := &w.Types[i]; t.Weight > 0 {
			d += float64(t.Weight * max(0, t.reduced(p)))
		}
	}
	return d
}

// reduced is what a request is worth beyond its bid.
func (t *Type) reduced(p Duals) float64 { return t.Value - p.Bid(t.Cost, t.Hold) }

// prices are those where D is least. A type that is worth exactly its bid must not be refused because
// the bid was rounded up, so prices are rounded down until none is.
func (w *Workload) prices() Duals {
	p := w.corner()
	const ulp, tries = 0x1p-52, 16
	for try := 1; try <= tries && w.roundedUp(p); try++ {
		down := 1 - ulp*float64(try)
		p = Duals{Rate: p.Rate * down, Cost: p.Cost * down, Concurrency: p.Concurrency * down}
	}
	return p
}

// roundedUp reports whether a type is refused by no more than an error of rounding.
func (w *Workload) roundedUp(p Duals) bool {
	const rounding = 1e-12
	for i := range w.Types {
		t := &w.Types[i]
		if r := t.reduced(p); r < 0 && r > -rounding*t.Value {
			return true
		}
	}
	return false
}

// corner is the most selective of the corners where D is least.
func (w *Workload) corner() (best Duals) {
	least := math.Inf(1)
	for p := range w.corners() {
		least = min(least, w.dual(p))
	}
	rejected := -1
	for p := range w.corners() {
		if w.dual(p) > least+slack {
			continue
		}
		n := w.rejected(p)
		if n > rejected || n == rejected && dearer(p, best) {
			best, rejected = p, n
		}
	}
	return best
}

// rejected is how many types are refused. Those that never come count, too.
func (w *Workload) rejected(p Duals) (n int) {
	for i := range w.Types {
		if w.Types[i].reduced(p) < -slack {
			n++
		}
	}
	return n
}

// dearer orders prices that refuse equally many types.
func dearer(p, q Duals) bool {
	switch {
	case math.Abs(p.Concurrency-q.Concurrency) > epsilon:
		return p.Concurrency > q.Concurrency
	case math.Abs(p.Cost-q.Cost) > epsilon:
		return p.Cost > q.Cost
	default:
		return p.Rate > q.Rate+epsilon
	}
}

// plane is the set of prices with rate·p_R + cost·p_C + hold·p_K = value.
type plane struct{ rate, cost, hold, value float64 }

// corners yields where planes meet, as far as prices are not negative there. Without concurrency its
// price is 0, and planes meet by twos.
func (w *Workload) corners() iter.Seq[Duals] {
	planes := []plane{{rate: 1}, {cost: 1}}
	for _, t := range w.Types {
		planes = append(planes, plane{1, t.Cost, t.Hold, t.Value})
	}
	none := plane{hold: 1}
	return func(yield func(Duals) bool) {
		for i, a := range planes {
			for j, b := range planes[:i] {
				if p, ok := meet(a, b, none, w.flat()); ok && !yield(p) {
					return
				}
				if w.Concurrency == 0 {
					continue
				}
				for _, c := range planes[:j] {
					if p, ok := meet(a, b, c, w.flat()); ok && !yield(p) {
						return
					}
				}
			}
		}
	}
}

// flat is the determinant below which planes count as parallel.
func (w *Workload) flat() float64 {
	if w.Concurrency == 0 {
		return epsilon
	}
	return 1e-12
}

// meet is where three planes meet, by Cramer's rule.
func meet(a, b, c plane, flat float64) (p Duals, ok bool) {
	det := det3(a.rate, a.cost, a.hold, b.rate, b.cost, b.hold, c.rate, c.cost, c.hold)
	if math.Abs(det) < flat {
		return p, false
	}
	p.Rate = det3(a.value, a.cost, a.hold, b.value, b.cost, b.hold, c.value, c.cost, c.hold) / det
	p.Cost = det3(a.rate, a.value, a.hold, b.rate, b.value, b.hold, c.rate, c.value, c.hold) / det
	p.Concurrency = det3(a.rate, a.cost, a.value, b.rate, b.cost, b.value, c.rate, c.cost, c.value) / det
	if p.Rate < -epsilon || p.Cost < -epsilon || p.Concurrency < -epsilon {
		return p, false
	}
	return Duals{Rate: max(0, p.Rate), Cost: max(0, p.Cost), Concurrency: max(0, p.Concurrency)}, true
}

func det3(a, b, c, d, e, f, g, h, i float64) float64 {
	return float64(a*(float64(e*i)-float64(f*h))) - float64(b*(float64(d*i)-float64(f*g))) + float64(c*(float64(d*h)-float64(e*g)))
}

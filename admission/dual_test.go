package admission

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/throttlekit/throttlekit-go"
)

func solve(tb testing.TB, w Workload) Solution {
	tb.Helper()
	s, err := w.Solve()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b)) }

// TestFixtures are those of the specification's §3.5, and small cases that can be done by hand.
func TestFixtures(t *testing.T) {
	t.Parallel()
	const plenty = 1e9
	for _, test := range []struct {
		name      string
		workload  Workload
		duals     Duals
		plan      []float64 // nil if several are right
		objective float64
	}{
		{
			name:     "the cheap one fills the budget",
			workload: Workload{Rate: 1, Cost: 50, Types: []Type{{Cost: 100, Value: 1, Weight: 0.5}, {Cost: 10000, Value: 50, Weight: 0.5}}},
			duals:    Duals{Cost: 0.01}, plan: []float64{1, 0}, objective: 0.5,
		},
		{
			name:     "half of the second",
			workload: Workload{Rate: 1.5, Cost: plenty, Types: []Type{{Cost: 1, Value: 3, Weight: 1}, {Cost: 1, Value: 1, Weight: 1}}},
			duals:    Duals{Rate: 1}, plan: []float64{1, 0.5}, objective: 3.5,
		},
		{
			name:     "prices from 1 to 3 are right, the dearest refuses most",
			workload: Workload{Rate: 1, Cost: plenty, Types: []Type{{Cost: 1, Value: 3, Weight: 1}, {Cost: 1, Value: 1, Weight: 1}}},
			duals:    Duals{Rate: 3}, plan: []float64{1, 0}, objective: 3,
		},
		{
			name: "three of one value",
			workload: Workload{Rate: 3, Cost: plenty, Types: []Type{
				{Cost: 1, Value: 10, Weight: 2}, {Cost: 2, Value: 10, Weight: 2}, {Cost: 3, Value: 10, Weight: 2},
			}},
			duals: Duals{Rate: 10}, plan: []float64{1, 0.5, 0}, objective: 30,
		},
		{
			name: "three of one value that all fit, at no price or at any up to their value",
			workload: Workload{Rate: 3, Cost: plenty, Types: []Type{
				{Cost: 1, Value: 10, Weight: 1}, {Cost: 2, Value: 10, Weight: 1}, {Cost: 3, Value: 10, Weight: 1},
			}},
			duals: Duals{Rate: 10}, plan: []float64{1, 1, 1}, objective: 30,
		},
		{
			name:     "rather a price of the cost than of the rate",
			workload: Workload{Rate: 1, Cost: 5, Types: []Type{{Cost: 5, Value: 10, Weight: 1}}},
			duals:    Duals{Cost: 2}, plan: []float64{1}, objective: 10,
		},
		{
			name:     "rather a price of concurrency than of the cost",
			workload: Workload{Rate: 1, Cost: 5, Concurrency: 5, Types: []Type{{Cost: 5, Value: 10, Weight: 1, Hold: 5}}},
			duals:    Duals{Concurrency: 2}, plan: []float64{1}, objective: 10,
		},
		{
			name: "who is worth just the bid is not refused",
			workload: Workload{Rate: 1, Cost: 1, Types: []Type{
				{Cost: 1, Value: 1, Weight: 1}, {Cost: 2, Value: 1.5}, {Cost: 0.5, Value: 1}, {Cost: 0.5, Value: 1},
			}},
			duals: Duals{Cost: 1}, objective: 1,
		},
		{
			name: "who never comes and is worth just the bid is planned for",
			workload: Workload{Rate: 1.5, Cost: plenty, Types: []Type{
				{Cost: 1, Value: 3, Weight: 1}, {Cost: 1, Value: 1, Weight: 1}, {Cost: 2, Value: 1},
			}},
			duals: Duals{Rate: 1}, plan: []float64{1, 0.5, 1}, objective: 3.5,
		},
		{
			name:     "of those worth the same for their cost, the fewest requests",
			workload: Workload{Rate: 1.5, Cost: 4, Types: []Type{{Cost: 1, Value: 1, Weight: 4}, {Cost: 4, Value: 4, Weight: 1}}},
			duals:    Duals{Cost: 1}, plan: []float64{0, 1}, objective: 4,
		},
		{
			name: "five, some of them alike, both budgets used up",
			workload: Workload{Rate: 2, Cost: 8, Types: []Type{
				{Cost: 2, Value: 5.2, Weight: 1},
				{Cost: 6, Value: 11.6, Weight: 1},
				{Cost: 2, Value: 5.2, Weight: 1},
				{Cost: 6, Value: 11.6, Weight: 1},
				{Cost: 4, Value: 8.4, Weight: 1},
			}},
			duals: Duals{Rate: 2, Cost: 1.6}, objective: 16.8,
		},
		{
			name: "who holds a slot for long is refused",
			workload: Workload{Rate: 2000, Cost: plenty, Concurrency: 20000, Types: []Type{
				{Cost: 100, Value: 10, Weight: 1800, Hold: 15}, {Cost: 100, Value: 10, Weight: 200, Hold: 200},
			}},
			duals: Duals{Concurrency: 2.0 / 3}, plan: []float64{20.0 / 27, 0}, objective: 40000.0 / 3,
		},
		{
			name:     "there is enough for all, and nothing has a price",
			workload: Workload{Rate: 10, Cost: 100, Types: []Type{{Cost: 3, Value: 2, Weight: 4}, {Cost: 5, Value: 1, Weight: 5}}},
			plan:     []float64{1, 1}, objective: 13,
		},
		{
			name:     "who never comes has a say among prices that are right",
			workload: Workload{Rate: 1, Cost: plenty, Types: []Type{{Value: 3, Weight: 1}, {Value: 1}}},
			duals:    Duals{Rate: 3}, plan: []float64{1, 0}, objective: 3,
		},
		{
			name:     "nothing is worth anything",
			workload: Workload{Rate: 1, Cost: 1, Types: []Type{{Cost: 1, Weight: 9}, {Weight: 9}}},
			plan:     []float64{0, 0},
		},
		{
			name:     "who costs nothing and is worth nothing uses up no requests",
			workload: Workload{Rate: 1, Cost: 1, Types: []Type{{Weight: 9}, {Cost: 4, Value: 8, Weight: 1}}},
			duals:    Duals{Cost: 2}, plan: []float64{0, 0.25}, objective: 2,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := solve(t, test.workload)
			d, want := s.Duals, test.duals
			if !near(d.Rate, want.Rate) || !near(d.Cost, want.Cost) || !near(d.Concurrency, want.Concurrency) {
				t.Errorf("duals %+v, want %+v", d, want)
			}
			if !near(s.Objective, test.objective) {
				t.Errorf("objective %v, want %v", s.Objective, test.objective)
			}
			if test.plan != nil && !slices.EqualFunc(s.Plan, test.plan, near) {
				t.Errorf("plan %v, want %v", s.Plan, test.plan)
			}
			holds(t, test.workload, s)
		})
	}
}

// holds checks what every solution promises.
func holds(t *testing.T, w Workload, s Solution) {
	t.Helper()
	value, ok := worth(w, s.Plan)
	if !ok {
		t.Fatalf("%+v\nthe plan %v does not fit", w, s.Plan)
	}
	tolerance := 1e-6 * max(1, s.Objective)
	if value > s.Objective+tolerance || w.Concurrency == 0 && value < s.Objective-tolerance {
		t.Fatalf("%+v\nthe plan %v is worth %v, the objective is %v", w, s.Plan, value, s.Objective)
	}
	for i, ty := range w.Types {
		bid := s.Duals.Bid(ty.Cost, ty.Hold)
		if s.Plan[i] > 1e-9 && ty.Value < bid {
			t.Fatalf("%+v\ntype %d is planned for and refused: worth %v, bid %v", w, i, ty.Value, bid)
		}
		if s.Plan[i] == 0 && ty.Weight > 0 && ty.Value > bid+1e-6 {
			t.Fatalf("%+v\ntype %d is not planned for and admitted: worth %v, bid %v", w, i, ty.Value, bid)
		}
	}
}

// worth is the value of a plan; ok says whether it keeps to the budgets.
func worth(w Workload, plan []float64) (value float64, ok bool) {
	var rate, cost, hold float64
	for i, x := range plan {
		ty := w.Types[i]
		if x < -1e-9 || x > 1+1e-9 || math.IsNaN(x) {
			return 0, false
		}
		rate += ty.Weight * x
		cost += ty.Weight * ty.Cost * x
		hold += ty.Weight * ty.Hold * x
		value += ty.Weight * ty.Value * x
	}
	within := func(sum, budget float64) bool { return sum <= budget*(1+1e-7)+1e-7 }
	return value, within(rate, w.Rate) && within(cost, w.Cost) && (w.Concurrency == 0 || within(hold, w.Concurrency))
}

// someWorkload has few and small numbers, so that ties and parallel planes are frequent, or any.
func someWorkload(r *rand.Rand, types int, concurrency bool) Workload {
	number := func(most int) float64 {
		if r.IntN(3) == 0 {
			return float64(most) * r.Float64()
		}
		return float64(r.IntN(most + 1))
	}
	scale := []float64{1, 1, 100, 0.01}[r.IntN(4)]
	w := Workload{Rate: 0.5 + number(6), Cost: scale * (0.5 + number(20))}
	if concurrency {
		w.Concurrency = 0.5 + number(20)
	}
	for range types {
		ty := Type{Cost: scale * number(6), Value: number(8), Weight: number(4)}
		if concurrency {
			ty.Hold = number(6)
		}
		w.Types = append(w.Types, ty)
	}
	if concurrency {
		w.Types[0].Hold++
	}
	return w
}

// TestAgainstVertices compares the solver with one that knows nothing of duals: it tries every vertex
// of the polytope of plans.
func TestAgainstVertices(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []bool{false, true} {
		t.Run(fmt.Sprint("concurrency=", concurrency), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(35, 1))
			short, priced := 0, 0
			const cases = 1500
			for range cases {
				w := someWorkload(r, 1+r.IntN(4), concurrency)
				s := solve(t, w)
				holds(t, w, s)
				if want := bestVertex(w); math.Abs(s.Objective-want) > 1e-6*max(1, want) {
					t.Fatalf("%+v\nobjective %v, the best vertex has %v", w, s.Objective, want)
				}
				if value, _ := worth(w, s.Plan); value < s.Objective-1e-6*max(1, s.Objective) {
					short++
				}
				if s.Duals != (Duals{}) {
					priced++
				}
			}
			t.Logf("%d of %d workloads have prices; the plan is worth less than the objective in %d", priced, cases, short)
			if priced < cases/2 {
				t.Error("this is no fair test")
			}
		})
	}
}

// bestVertex is the most value of a plan.
func bestVertex(w Workload) (best float64) {
	n := len(w.Types)
	var rows [][]float64 // the last column is the right side
	row := func(bound float64, at func(Type) float64) {
		line := make([]float64, n+1)
		for i, ty := range w.Types {
			line[i] = at(ty)
		}
		line[n] = bound
		rows = append(rows, line)
	}
	row(w.Rate, func(ty Type) float64 { return ty.Weight })
	row(w.Cost, func(ty Type) float64 { return ty.Weight * ty.Cost })
	if w.Concurrency > 0 {
		row(w.Concurrency, func(ty Type) float64 { return ty.Weight * ty.Hold })
	}
	for i := range n {
		for _, bound := range []float64{0, 1} {
			line := make([]float64, n+1)
			line[i], line[n] = 1, bound
			rows = append(rows, line)
		}
	}
	var choose func(from int, chosen [][]float64)
	choose = func(from int, chosen [][]float64) {
		if len(chosen) == n {
			if x := eliminate(chosen); x != nil {
				if value, ok := worth(w, x); ok {
					best = max(best, value)
				}
			}
			return
		}
		for i := from; i < len(rows); i++ {
			choose(i+1, append(slices.Clip(chosen), rows[i]))
		}
	}
	choose(0, nil)
	return best
}

// eliminate solves a square system, or returns nil if it has no single solution.
func eliminate(system [][]float64) []float64 {
	n := len(system)
	m := make([][]float64, n)
	for i := range m {
		m[i] = slices.Clone(system[i])
	}
	for c := range n {
		pivot := c
		for i := c + 1; i < n; i++ {
			if math.Abs(m[i][c]) > math.Abs(m[pivot][c]) {
				pivot = i
			}
		}
		if math.Abs(m[pivot][c]) < 1e-10 {
			return nil
		}
		m[c], m[pivot] = m[pivot], m[c]
		for i := range n {
			if f := m[i][c] / m[c][c]; i != c {
				for j := c; j <= n; j++ {
					m[i][j] -= f * m[c][j]
				}
			}
		}
	}
	x := make([]float64, n)
	for i := range x {
		x[i] = m[i][n] / m[i][i]
	}
	return x
}

// TestDualityOfLargeWorkloads: more types than vertices could be tried of. A plan that fits and prices that
// say the same prove each other right.
func TestDualityOfLargeWorkloads(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(35, 2))
	for range 150 {
		w := someWorkload(r, 5+r.IntN(MaxTypes-4), false)
		w.Rate *= 5
		w.Cost *= 5
		holds(t, w, solve(t, w))
	}
	w := someWorkload(r, MaxTypes, true)
	holds(t, w, solve(t, w))
}

// TestExtremes: whatever is let in gives prices that are finite and not negative.
func TestExtremes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(35, 6))
	values := []float64{0, 5e-324, 1e-300, 1e-12, 1e-9, 1, 3, 1e9, 1e15, throttlekit.MaxSafe}
	some := func() float64 { return values[r.IntN(len(values))] }
	budget := func() float64 { return values[1+r.IntN(len(values)-1)] }
	for range 5000 {
		w := Workload{Rate: budget(), Cost: budget()}
		for range 1 + r.IntN(4) {
			w.Types = append(w.Types, Type{Cost: some(), Value: some(), Weight: some()})
		}
		if r.IntN(2) == 0 {
			w.Concurrency, w.Types[0].Hold = budget(), budget()
		}
		s := solve(t, w)
		if !amount(s.Duals.Rate) || !amount(s.Duals.Cost) || !amount(s.Duals.Concurrency) || !amount(s.Objective) {
			t.Fatalf("%+v: %+v", w, s)
		}
		for _, x := range s.Plan {
			if !(x >= 0 && x <= 1) {
				t.Fatalf("%+v: %+v", w, s)
			}
		}
	}
}

func TestBadWorkloads(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	types := []Type{{Cost: 1, Value: 1, Weight: 1}}
	for _, test := range []struct {
		workload Workload
		fields   []string
	}{
		{Workload{}, []string{"rate", "cost", "types"}},
		{Workload{Rate: nan, Cost: inf, Types: types}, []string{"rate", "cost"}},
		{Workload{Rate: -1, Cost: 1e17, Types: types}, []string{"rate", "cost"}},
		{Workload{Rate: 1, Cost: 1, Concurrency: nan, Types: types}, []string{"concurrency", "concurrency"}},
		{Workload{Rate: 1, Cost: 1, Concurrency: -1, Types: []Type{{Hold: 1}}}, []string{"concurrency"}},
		{Workload{Rate: 1, Cost: 1, Concurrency: 1, Types: types}, []string{"concurrency"}},
		{Workload{Rate: 1, Cost: 1, Types: []Type{{Hold: 1}}}, []string{"types[0].hold"}},
		{Workload{Rate: 1, Cost: 1, Types: make([]Type, MaxTypes+1)}, []string{"types"}},
		{
			Workload{Rate: 1, Cost: 1, Concurrency: 1, Types: []Type{{Hold: 1}, {Cost: nan, Value: -1, Weight: inf, Hold: -inf}}},
			[]string{"types[1].cost", "types[1].value", "types[1].weight", "types[1].hold"},
		},
	} {
		s, err := test.workload.Solve()
		if !errors.Is(err, throttlekit.ErrInvalid) || !slices.Equal(invalidFields(err), test.fields) || s.Plan != nil {
			t.Errorf("%+v: %+v, %v", test.workload, s, err)
		}
	}
}

// TestRoundedBids: a type that makes the price is not refused because its bid was rounded up.
func TestRoundedBids(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(35, 4))
	adjusted := 0
	for range 3000 {
		w := someWorkload(r, 1+r.IntN(6), r.IntN(2) == 0)
		if w.roundedUp(w.corner()) {
			adjusted++
		}
		if w.roundedUp(w.prices()) {
			t.Fatalf("%+v", w)
		}
	}
	t.Logf("%d of 3000 prices were rounded down", adjusted)
	if adjusted == 0 {
		t.Error("this is no fair test")
	}
}

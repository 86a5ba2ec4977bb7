package fair

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go"
)

func TestMaxMin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		demands, weights []float64
		limit            float64
		want             []int64
	}{
		{[]float64{10, 10, 10}, []float64{1, 1, 1}, 10, []int64{4, 3, 3}},
		{[]float64{5, 100}, []float64{1, 3}, 20, []int64{5, 15}},
		{[]float64{100, 100, 100, 100}, []float64{4, 1, 1, 1}, 70, []int64{40, 10, 10, 10}},
		{[]float64{0, 0}, []float64{1, 2}, 10, []int64{0, 0}},
		{[]float64{3, 4}, []float64{1, 1}, 100, []int64{3, 4}},
		{[]float64{3, 4}, []float64{1, 1}, 0, []int64{0, 0}},
		{[]float64{3, 4}, []float64{1, 1}, 0.9, []int64{0, 0}},
		{nil, nil, 5, []int64{}},
		{[]float64{throttlekit.MaxSafe}, []float64{1e-300}, throttlekit.MaxSafe, []int64{throttlekit.MaxSafe}},
		{[]float64{1, throttlekit.MaxSafe}, []float64{9e15, 0.25}, throttlekit.MaxSafe, []int64{1, throttlekit.MaxSafe - 1}},
		{[]float64{throttlekit.MaxSafe, 1e10}, []float64{1e-310, 1e-310}, 1e10, []int64{5e9, 5e9}},
		{[]float64{throttlekit.MaxSafe, 1}, []float64{5e-324, 9e15}, 6, []int64{5, 1}},
	} {
		got, err := MaxMin(tt.demands, tt.weights, tt.limit)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("MaxMin(%v, %v, %v) = %v, %v, want %v", tt.demands, tt.weights, tt.limit, got, err, tt.want)
		}
	}
}

func TestMaxMinRefusesWrongValues(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	for _, tt := range []struct {
		demands, weights []float64
		limit            float64
		field            string
	}{
		{[]float64{1}, []float64{1, 1}, 1, "weights"},
		{[]float64{-1}, []float64{1}, 1, "demands[0]"},
		{[]float64{1, nan}, []float64{1, 1}, 1, "demands[1]"},
		{[]float64{inf}, []float64{1}, 1, "demands[0]"},
		{[]float64{1}, []float64{0}, 1, "weights[0]"},
		{[]float64{1}, []float64{nan}, 1, "weights[0]"},
		{[]float64{1}, []float64{inf}, 1, "weights[0]"},
		{[]float64{1}, []float64{1}, -1, "limit"},
		{[]float64{1}, []float64{1}, nan, "limit"},
		{[]float64{1}, []float64{1}, inf, "limit"},
	} {
		_, err := MaxMin(tt.demands, tt.weights, tt.limit)
		var invalid *throttlekit.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("MaxMin(%v, %v, %v): got %v, want an error about %s", tt.demands, tt.weights, tt.limit, err, tt.field)
		}
		if strings.HasPrefix(tt.field, "demands") || len(tt.demands) != len(tt.weights) {
			continue
		}
		if _, err := GuaranteedShare(tt.weights, tt.limit); !errors.As(err, &invalid) || invalid.Field != tt.field {
			t.Errorf("GuaranteedShare(%v, %v): got %v, want an error about %s", tt.weights, tt.limit, err, tt.field)
		}
	}
}

// TestMaxMinIsFair holds random divisions to what weighted max-min fairness means.
func TestMaxMinIsFair(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 1))
	for range 20_000 {
		n := 1 + r.IntN(8)
		demands, weights := make([]float64, n), make([]float64, n)
		total, wish := 0.0, 0.0
		for i := range n {
			demands[i], weights[i] = float64(r.IntN(60)), float64(1+r.IntN(6))
			total, wish = total+weights[i], wish+demands[i]
		}
		limit := float64(r.IntN(200))
		got, err := MaxMin(demands, weights, limit)
		if err != nil {
			t.Fatal(err)
		}
		ideal := fill(demands, weights, limit)
		sum, least, most, lightest := 0.0, math.Inf(1), math.Inf(-1), math.Inf(1)
		for i, a := range got {
			x := float64(a)
			sum += x
			if x > demands[i] || !near(x, ideal[i], weights[i]) {
				t.Fatalf("%v, %v, %v: got %v, which is not near %v", demands, weights, limit, got, ideal)
			}
			if x < min(demands[i], math.Floor(weights[i]*limit/total)-weights[i]*float64(n)/total) {
				t.Fatalf("%v, %v, %v: got %v, which leaves tenant %d short", demands, weights, limit, got, i)
			}
			if x < demands[i] {
				least, most, lightest = min(least, x/weights[i]), max(most, x/weights[i]), min(lightest, weights[i])
			}
		}
		if sum != min(wish, limit) {
			t.Fatalf("%v, %v, %v: got %v, which sum to %v", demands, weights, limit, got, sum)
		}
		if most-least > 1/lightest+1e-9 {
			t.Fatalf("%v, %v, %v: got %v, of which the busy differ by %v", demands, weights, limit, got, most-least)
		}
	}
}

// TestMaxMinOfAnyWeights divides by weights and demands of all magnitudes.
func TestMaxMinOfAnyWeights(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(4, 3))
	for range 50_000 {
		n := 1 + r.IntN(8)
		demands, weights, wish := make([]float64, n), make([]float64, n), 0.0
		for i := range n {
			demands[i] = math.Floor(math.Pow(2, 50*r.Float64()))
			weights[i] = min(math.Pow(10, []float64{20*r.Float64() - 14, 340*r.Float64() - 323, float64(r.IntN(3))}[r.IntN(3)]), throttlekit.MaxSafe)
			wish += demands[i]
		}
		divides(t, demands, weights, math.Floor(r.Float64()*wish))
		for i := range n { // whole weights, and a limit where doubles are a unit apart
			demands[i], weights[i] = throttlekit.MaxSafe, float64(1+r.IntN(30))
		}
		divides(t, demands, weights, math.Floor((1+r.Float64())*throttlekit.MaxSafe/2))
	}
}

func FuzzMaxMin(f *testing.F) {
	f.Add(1.0, 1e7, 5.0, 9e15, 0.25, 1.0, 1e7)
	f.Add(1e15, 1e15, 1e15, 1e-310, 1e-300, 5e-324, 2e15)
	f.Add(3.5, 0.25, 1.0, 1.0, 2.0, 3.0, 4.5)
	f.Fuzz(func(t *testing.T, a, b, c, u, v, w, limit float64) {
		demands, weights := []float64{a, b, c}, []float64{u, v, w}
		if _, err := GuaranteedShare(weights, limit); err != nil {
			return // not valid
		}
		for i, d := range demands {
			if demands[i] = math.Floor(d); !(demands[i] >= 0 && demands[i] <= throttlekit.MaxSafe/3) {
				return
			}
		}
		divides(t, demands, weights, limit)
	})
}

// divides holds one division of whole demands to what MaxMin promises.
func divides(tb testing.TB, demands, weights []float64, limit float64) {
	tb.Helper()
	got, err := MaxMin(demands, weights, limit)
	if err != nil {
		tb.Fatal(err)
	}
	ideal := fill(demands, weights, limit)
	sum, wish, floored, n := int64(0), 0.0, 0.0, float64(len(demands))
	for i, a := range got {
		sum, wish, floored = sum+a, wish+demands[i], floored+math.Floor(ideal[i])
		// Shares are exact up to a unit, and to n+3 roundings of what they are computed from.
		if d := demands[i]; float64(a) > d || !near(float64(a), ideal[i], n+3) {
			tb.Fatalf("%v, %v, %v: got %v, want about %v", demands, weights, limit, got, ideal)
		}
		for j, b := range got {
			if float64(a) < demands[i] && float64(b-1) > (float64(a+1)+n+3)*weights[j]/weights[i]+n+3 {
				tb.Fatalf("%v, %v, %v: got %v, of which %d has too much and %d too little", demands, weights, limit, got, j, i)
			}
		}
	}
	if float64(sum) != min(wish, math.Floor(limit)) {
		tb.Fatalf("%v, %v, %v: got %v, which sum to %d", demands, weights, limit, got, sum)
	}
	if rest := float64(sum) - floored; rest > 2*n+3 {
		tb.Fatalf("%v, %v, %v: %v units were handed out one by one", demands, weights, limit, rest)
	}
}

// TestGuaranteedSharesFitTheLimit where doubles are a unit apart.
func TestGuaranteedSharesFitTheLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		weights []float64
		limit   float64
	}{
		{[]float64{13, 9}, 8471407073862325}, {[]float64{16, 10}, 8322213540751408}, {[]float64{10, 18}, 8191930131232290},
	} {
		got, err := GuaranteedShare(tt.weights, tt.limit)
		if err != nil || float64(got[0]+got[1]) != tt.limit {
			t.Errorf("got %v, %v, want a sum of %v", got, err, tt.limit)
		}
	}
}

func TestGuaranteedShare(t *testing.T) {
	t.Parallel()
	got, err := GuaranteedShare([]float64{6, 5}, 99) // dividing first loses a unit here
	if err != nil || !slices.Equal(got, []int64{53, 45}) {
		t.Errorf("got %v, %v, want [53 45]", got, err)
	}
	if g := guarantee(6, 99, 11); g != 54 {
		t.Errorf("the escrow guarantees %v, want 54", g)
	}
}

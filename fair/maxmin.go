package fair

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"

	"github.com/throttlekit/throttlekit-go"
)

// MaxMin divides a limit among tenants by weighted max-min fairness: no tenant gets more
// than it demands, and nobody's allocation per weight can grow without that of a tenant
// which has less falling. It fills continuously, rounds down, and hands what is left of ⌊limit⌋
// out by single units, each to the unsatisfied tenant with the least allocation per
// weight, the first of several. With whole demands the result sums to the smaller of
// their sum and ⌊limit⌋; a fraction of a demand may be met by a whole unit. Cost: O(n log n).
//
// Weights are above 0; demands and limit are at least 0; all are finite and at most
// [throttlekit.MaxSafe], or the error matches [throttlekit.ErrInvalid]. Source: Bertsekas and
// Gallager, Data Networks §6.5.2; specification "GALE" §4.
func MaxMin(demands, weights []float64, limit float64) ([]int64, error) {
	var c checks
	c.require(len(demands) == len(weights), "weights", len(weights), fmt.Sprintf("must be as many as demands, which are %d", len(demands)))
	for i, d := range demands {
		c.require(d >= 0 && d <= throttlekit.MaxSafe, fmt.Sprintf("demands[%d]", i), d, amountRule)
	}
	c.shares(weights, limit)
	if len(c) > 0 {
		return nil, c.err()
	}
	shares := fill(demands, weights, limit)
	left := whole(limit)
	allocated := make([]int64, len(shares))
	for i, share := range shares {
		allocated[i] = min(whole(share), left)
		left -= allocated[i]
	}
	handOut(allocated, demands, weights, left)
	return allocated, nil
}

const amountRule = "must be a finite number from 0 to 9007199254740991"

func (c *checks) shares(weights []float64, limit float64) {
	for i, w := range weights {
		c.require(positive(w), fmt.Sprintf("weights[%d]", i), w, weightRule)
	}
	c.require(limit >= 0 && limit <= throttlekit.MaxSafe, "limit", limit, amountRule)
}

// fill is the continuous water-fill. Those who are left divide what is left by the sum of
// their own weights, counted from the last one up: a sum from which the weights of those who
// are served were taken would keep their rounding errors, and those may outweigh what is left.
func fill(demands, weights []float64, limit float64) []float64 {
	order := make([]int, len(demands))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Compare(perWeight(demands[i], weights[i]), perWeight(demands[j], weights[j]))
	})
	totals := make([]float64, len(order)) // of the weights from here on
	total := 0.0
	for n, i := range slices.Backward(order) {
		total += weights[i]
		totals[n] = total
	}
	shares := make([]float64, len(demands))
	left := limit
	for n, i := range order {
		part := func(j int) float64 { return min(demands[j], left, float64(weights[j]*left)/totals[n]) }
		if part(i) < demands[i] {
			for _, j := range order[n:] {
				shares[j] = part(j)
			}
			break
		}
		shares[i] = demands[i]
		left -= demands[i]
	}
	return shares
}

// perWeight is x/weight in a unit so large that no valid weight makes it infinite.
func perWeight(x, weight float64) float64 { return float64(x*0x1p-200) / weight }

// handOut gives left units, one at a time, to whoever has least per weight and wants more.
func handOut(allocated []int64, demands, weights []float64, left int64) {
	q := &needy{allocated: allocated, weights: weights}
	for i := range allocated {
		if float64(allocated[i]) < demands[i] {
			q.order = append(q.order, i)
		}
	}
	heap.Init(q)
	for ; left > 0 && len(q.order) > 0; left-- {
		i := q.order[0]
		allocated[i]++
		if float64(allocated[i]) < demands[i] {
			heap.Fix(q, 0)
		} else {
			heap.Pop(q)
		}
	}
}

// needy is a heap of tenants that want more, the one with the least allocation per weight first.
type needy struct {
	allocated []int64
	weights   []float64
	order     []int
}

func (q *needy) Len() int { return len(q.order) }

func (q *needy) Less(a, b int) bool {
	i, j := q.order[a], q.order[b]
	return cmp.Or(
		cmp.Compare(perWeight(float64(q.allocated[i]), q.weights[i]), perWeight(float64(q.allocated[j]), q.weights[j])),
		cmp.Compare(i, j)) < 0
}

func (q *needy) Swap(a, b int) { q.order[a], q.order[b] = q.order[b], q.order[a] }

// Push implements [heap.Interface]; nobody joins.
func (q *needy) Push(any) {}

// Pop implements [heap.Interface].
func (q *needy) Pop() any {
	last := len(q.order) - 1
	i := q.order[last]
	q.order = q.order[:last]
	return i
}

// GuaranteedShare is what each of several tenants can count on when all are busy:
// ⌊(weight/weights)·limit⌋, dividing first. [Escrow] multiplies first, which may give one
// unit more. The shares never sum to more than ⌊limit⌋: where rounding near 2⁵³ would make
// them, the last ones get less. Ranges are those of [MaxMin]; the error matches
// [throttlekit.ErrInvalid].
func GuaranteedShare(weights []float64, limit float64) ([]int64, error) {
	var c checks
	c.shares(weights, limit)
	if len(c) > 0 {
		return nil, c.err()
	}
	total := 0.0
	for _, w := range weights {
		total += w
	}
	shares := make([]int64, len(weights))
	left := whole(limit)
	for i, w := range weights {
		shares[i] = min(whole(math.Floor(float64(w/total)*limit)), left)
		left -= shares[i]
	}
	return shares, nil
}

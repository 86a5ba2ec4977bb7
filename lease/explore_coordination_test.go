package lease

import "testing"

// everyBudget calls visit with every division of 0 to most units to each of n nodes.
func everyBudget(n, most int, visit func(budgets []int)) {
	budgets := make([]int, n)
	for {
		visit(budgets)
		i := 0
		for i < n && budgets[i] == most {
			budgets[i] = 0
			i++
		}
		if i == n {
			return
		}
		budgets[i]++
	}
}

func sumAndMin(budgets []int) (sum, least int) {
	least = budgets[0]
	for _, b := range budgets {
		sum, least = sum+b, min(least, b)
	}
	return sum, least
}

// overshootAndLoss are the worst that can happen in a window to nodes that do not talk.
func overshootAndLoss(limit int, budgets []int) (overshoot, loss int) {
	sum, least := sumAndMin(budgets)
	return max(0, sum-limit), max(0, limit-least)
}

// TestExploreCoordination goes through every division of a limit for the theorem that
// docs/proofs.md states under "What coordination buys". Groups that pool their budgets
// are nodes of their own there.
func TestExploreCoordination(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ nodes, limit, least int }{
		{2, 4, 4}, {3, 6, 12}, {4, 8, 24}, // without coordination
		{1, 8, 0}, {2, 8, 8}, // groups
	} {
		found := -1
		everyBudget(c.nodes, c.limit, func(budgets []int) {
			overshoot, loss := overshootAndLoss(c.limit, budgets)
			if cost := overshoot + c.nodes*loss; found < 0 || cost < found {
				found = cost
			}
		})
		if found != c.least || found != (c.nodes-1)*c.limit {
			t.Errorf("%d nodes, limit %d: the smallest sum is %d instead of %d", c.nodes, c.limit, found, c.least)
		}
	}
	for _, c := range []struct {
		budgets         []int
		overshoot, loss int
	}{
		{[]int{2, 2, 2, 2}, 0, 6},
		{[]int{8, 8, 8, 8}, 24, 0},
	} {
		if overshoot, loss := overshootAndLoss(8, c.budgets); overshoot != c.overshoot || loss != c.loss {
			t.Errorf("budgets %v: overshoot %d and loss %d instead of %d and %d", c.budgets, overshoot, loss, c.overshoot, c.loss)
		}
	}
}

// TestExploreSomeCoordination does the same where nodes may take up to c leases of one
// unit from a pool of what was not given out.
func TestExploreSomeCoordination(t *testing.T) {
	t.Parallel()
	for _, shape := range []struct{ nodes, limit int }{{2, 4}, {3, 6}, {3, 9}, {4, 8}} {
		for leases := range shape.limit + 1 {
			found := -1 // the smallest loss without overshoot
			everyBudget(shape.nodes, shape.limit, func(budgets []int) {
				sum, least := sumAndMin(budgets)
				if sum > shape.limit {
					return
				}
				loss := shape.limit - least - min(leases, shape.limit-sum)
				if found < 0 || loss < found {
					found = loss
				}
			})
			if bound := (shape.nodes - 1) * (shape.limit - leases); shape.nodes*found < bound {
				t.Errorf("%d nodes, limit %d, %d leases: a loss of %d is below the bound of %d/%d",
					shape.nodes, shape.limit, leases, found, bound, shape.nodes)
			}
			if even := evenLoss(shape.nodes, shape.limit, leases); found != even {
				t.Errorf("%d nodes, limit %d, %d leases: a loss of %d; equal budgets reach %d", shape.nodes, shape.limit, leases, found, even)
			}
		}
	}
}

// evenLoss is the smallest loss of budgets that are all the same.
func evenLoss(nodes, limit, leases int) int {
	least := limit
	for budget := 0; budget <= limit/nodes; budget++ {
		least = min(least, limit-budget-min(leases, limit-nodes*budget))
	}
	return least
}

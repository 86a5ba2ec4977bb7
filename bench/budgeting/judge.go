package main

// outcome is what some windows came to.
type outcome struct {
	// over is by how many tokens the worst window exceeded the budget, and beyond by how
	// many it did so beyond the last debit less one; negative if it did not.
	over, beyond int
	// used is how much of the budgets was used, completed how much went into whole answers.
	used, completed float64
	// cuts is how many streams were cut in a window, cut what share of the most that were
	// under way at once that is, both on average, and worst the largest such share.
	cuts, cut, worst float64
}

// judge looks at windows, which share nothing with the policies but the clock: they count
// what was passed on.
func judge(windows []tally) outcome {
	o := outcome{beyond: -limit}
	for _, t := range windows {
		over := t.produced - limit
		o.over = max(o.over, over)
		o.beyond = max(o.beyond, over-max(0, t.last-1))
		n := float64(len(windows))
		o.used += float64(min(t.produced, limit)) / limit / n
		o.completed += float64(t.completed) / limit / n
		o.cuts += float64(t.cuts) / n
		share := float64(t.cuts) / float64(max(1, t.peak))
		o.cut += share / n
		o.worst = max(o.worst, share)
	}
	return o
}

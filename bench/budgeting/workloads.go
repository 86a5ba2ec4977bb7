package main

import (
	"math"
	"math/rand/v2"
	"time"
)

// workload is what the clients ask for: how long answers are, which nobody knows beforehand.
type workload struct {
	name string
	// median is that of the answers that begin at a share of the run, in tokens.
	median func(share float64) float64
	// most is how long an answer can get.
	most int
}

// workloads are the heavy-tailed ones of the specification of learned reservations, one
// whose answers grow, and one with long answers, where a reservation of the most that an
// answer can take is worst.
func workloads() []workload {
	return []workload{
		{name: "steady", median: func(float64) float64 { return 120 }, most: 512},
		{name: "drifting", median: drift, most: 512},
		{name: "long", median: func(float64) float64 { return 300 }, most: 4096},
	}
}

// drift goes from 80 to 300 tokens in the middle half of a run.
func drift(share float64) float64 {
	return 80 + 220*min(1, max(0, 2*share-0.5))
}

// size draws the length of an answer, close to lognormal. A tenth is longer than 3.4 times the median.
func (l workload) size(random *rand.Rand, share float64) int {
	u := (random.Float64()+random.Float64()+random.Float64())/3 - 0.5
	return int(min(float64(l.most), max(1, math.Round(l.median(share)*math.Exp(1.4*4*u)))))
}

const (
	// limit is what one window may produce, in tokens.
	limit = 100_000
	width = time.Minute
	// prompt is how many tokens a request brings, which also count.
	prompt = 1
	// pace is how long a token takes; each stream has its own, up to a quarter faster or slower.
	pace = 20 * time.Millisecond
	// chunk is the most tokens that come together, and are debited together.
	chunk = 4
	// soonest is how long the first chunk takes at least, and as much again at most.
	soonest = 300 * time.Millisecond
)

package measure

import (
	"math"
	"slices"
)

// Figure is the middle of repeated measurements and how far they spread.
type Figure struct {
	Median    float64
	Low, High float64 // the quartiles: half of the measurements lie between them
	Samples   int
	// Stalled is the share of the time that threads of this process waited for a CPU which others used; with several
	// threads it may exceed 1. It is 0 where the system does not tell.
	Stalled float64
}

// Summarize sums measurements up. There must be one at least, or everything is NaN.
func Summarize(samples []float64) Figure {
	sorted := slices.Sorted(slices.Values(samples))
	return Figure{
		Median:  Quantile(sorted, 0.5),
		Low:     Quantile(sorted, 0.25),
		High:    Quantile(sorted, 0.75),
		Samples: len(sorted),
	}
}

// Quantile is the value below which the fraction q of sorted lies, between neighbours where it falls between two. It is
// NaN if there are no values.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	share := at - float64(below)
	return float64(sorted[below]*(1-share)) + float64(sorted[below+1]*share)
}

package measure

import (
	"math"
	"testing"
)

func TestSummarize(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		samples []float64
		want    Figure
	}{
		{"one", []float64{3}, Figure{3, 3, 3, 1, 0}},
		{"odd, out of order", []float64{5, 1, 4, 2, 3}, Figure{3, 2, 4, 5, 0}},
		{"even: between neighbours", []float64{1, 2, 3, 4}, Figure{2.5, 1.75, 3.25, 4, 0}},
		{"an outlier moves nothing", []float64{1, 1, 1, 1, 1000}, Figure{1, 1, 1, 5, 0}},
	} {
		if got := Summarize(tc.samples); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
	if got := Summarize(nil); !math.IsNaN(got.Median) || got.Samples != 0 {
		t.Errorf("nothing: %+v, want NaN", got)
	}
}

func TestSummarizeLeavesItsArgument(t *testing.T) {
	t.Parallel()
	samples := []float64{3, 1, 2}
	if Summarize(samples); samples[0] != 3 {
		t.Errorf("samples were sorted in place: %v", samples)
	}
}

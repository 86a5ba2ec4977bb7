// Package report says what was measured: rows of figures with their targets, on paper and in JSON.
package report

import (
	"fmt"

	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
)

// Row is one figure.
type Row struct {
	Area string `json:"area"`
	Name string `json:"name"`
	// Value is the median of Samples measurements, and nil if Error says why there is none.
	Value *float64 `json:"value"`
	Unit  string   `json:"unit"`
	// Target is a comparison such as "<= 1.25", and empty for a figure that is there to inform.
	Target string `json:"target,omitempty"`
	// Met says whether Value meets Target, and is nil if either is missing.
	Met *bool `json:"met"`
	// Low and High are the quartiles of the measurements.
	Low     *float64 `json:"low,omitempty"`
	High    *float64 `json:"high,omitempty"`
	Samples int      `json:"samples,omitempty"`
	// Stalled is the share of the time that threads waited for a CPU which other processes used.
	Stalled float64 `json:"stalled,omitempty"`
	// Note says what exactly is compared.
	Note  string `json:"note"`
	Error string `json:"error,omitempty"`
}

// Measured is a row for a figure, or for the reason why there is none.
func Measured(name, unit string, f measure.Figure, err error) Row {
	r := Row{Name: name, Unit: unit}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Value, r.Low, r.High, r.Samples, r.Stalled = &f.Median, &f.Low, &f.High, f.Samples, f.Stalled
	return r
}

// AtMost sets a target that no larger value meets.
func (r Row) AtMost(bound float64) Row {
	return r.aim("<=", bound, func(v float64) bool { return v <= bound })
}

// AtLeast sets a target that no smaller value meets.
func (r Row) AtLeast(bound float64) Row {
	return r.aim(">=", bound, func(v float64) bool { return v >= bound })
}

// Below sets a target that only smaller values meet.
func (r Row) Below(bound float64) Row {
	return r.aim("<", bound, func(v float64) bool { return v < bound })
}

func (r Row) aim(comparison string, bound float64, meets func(float64) bool) Row {
	r.Target = fmt.Sprintf("%s %v", comparison, bound)
	if r.Value != nil {
		met := meets(*r.Value)
		r.Met = &met
	}
	return r
}

// Saying sets the note, in the manner of [fmt.Sprintf].
func (r Row) Saying(format string, args ...any) Row {
	r.Note = fmt.Sprintf(format, args...)
	return r
}

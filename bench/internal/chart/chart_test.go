package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestChartsAreWellFormed(t *testing.T) {
	t.Parallel()
	for name, panels := range map[string][]Panel{
		"none":        nil,
		"empty":       {{}},
		"odd":         {{Ticks: []float64{1}, Series: []Series{{Name: "a", Values: []float64{math.NaN()}}, {Values: []float64{0}}}}},
		"logarithmic": {{Log: true, Ticks: make([]float64, 300), Series: []Series{{Values: []float64{0, 1, math.NaN(), 512}}}}},
		"usual": {{
			Title: "<&>", X: "n", Y: "%", Ticks: []float64{1, 2, 4},
			Series: []Series{{Name: `"b" & <c>`, Values: []float64{1, math.NaN(), 30}}},
		}},
	} {
		var b strings.Builder
		if err := Write(&b, `a "title" <&>`, panels); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(b.String()))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v in %s", name, err, b.String())
			}
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("%s: a number that is none: %s", name, b.String())
		}
	}
}

func TestTopIsRound(t *testing.T) {
	t.Parallel()
	for most, want := range map[float64]float64{0: 1, 0.7: 0.8, 1: 1, 3: 3.2, 45: 60, 99: 100, 1800: 2000} {
		if got := (Panel{Series: []Series{{Values: []float64{most, math.NaN()}}}}).top(); got != want {
			t.Errorf("top for %v is %v, want %v", most, got, want)
		}
	}
}

// Where values are many, marks and labels would hide them.
func TestManyTicksAreThinnedOut(t *testing.T) {
	t.Parallel()
	for ticks, want := range map[int]int{1: 1, 12: 1, 13: 2, 24: 2, 25: 5, 60: 5, 61: 10, 225: 20, 700: 100} {
		if got := (Panel{Ticks: make([]float64, ticks)}).stride(); got != want {
			t.Errorf("of %d ticks every %d. is marked, want every %d.", ticks, got, want)
		}
	}
}

func TestPanelsStandInRows(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := Grid(&b, "three", 2, make([]Panel, 3)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"translate(0 0)", "translate(460 0)", "translate(0 320)", `viewBox="0 0 920 `} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
}

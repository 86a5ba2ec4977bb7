// Package chart draws the plots of simulations as SVG files that stand alone: no script, no
// font to load, readable on light and dark pages.
package chart

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// Panel is one coordinate system.
type Panel struct {
	Title, X, Y string
	// Ticks are where the X axis is marked; the marks stand at equal distances.
	Ticks  []float64
	Series []Series
}

// Series is one line. It has a value for each tick; NaN leaves a gap.
type Series struct {
	Name   string
	Values []float64
}

// Colours that people with the common kinds of colour blindness tell apart (P. Tol's bright scheme).
var colours = []string{"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#222222"}

const (
	width, height          = 460.0, 320.0
	left, right            = 64.0, 16.0
	above, below           = 36.0, 48.0
	legendLine, legendTop  = 18.0, 14.0
	steps                  = 4
	style                  = "font-family:system-ui,sans-serif;font-size:12px"
	ink, faint, background = "#444", "#bbb", "#fff"
)

// Write draws panels side by side and one legend below them for the series of the first.
func Write(w io.Writer, title string, panels []Panel) error {
	var b strings.Builder
	total := width * float64(len(panels))
	legend := 0
	if len(panels) > 0 {
		legend = len(panels[0].Series)
	}
	tall := height + legendTop + legendLine*math.Ceil(float64(legend)/4) + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img" aria-label="%s" style="%s">`+"\n",
		total, tall, html.EscapeString(title), style)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="%s"/>`+"\n", total, tall, background)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%g 0)">`+"\n", width*float64(i))
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	if len(panels) > 0 {
		for i, s := range panels[0].Series {
			x, y := left+float64(i%4)*(total-left)/4, height+legendTop+legendLine*float64(i/4)
			fmt.Fprintf(&b, `<rect x="%g" y="%g" width="14" height="4" fill="%s"/>`, x, y-5, colours[i%len(colours)])
			text(&b, x+20, y, "start", s.Name)
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// short is a number as an axis shows it.
func short(v float64) string {
	if v >= 10_000 {
		return strconv.FormatFloat(v/1000, 'f', -1, 64) + "k"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func text(b *strings.Builder, x, y float64, anchor, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, anchor, ink, html.EscapeString(s))
}

func (p Panel) draw(b *strings.Builder) {
	top := p.top()
	x := func(i int) float64 {
		return left + (width-left-right)*float64(i)/math.Max(1, float64(len(p.Ticks)-1))
	}
	y := func(v float64) float64 { return height - below - (height-above-below)*v/top }
	text(b, left, above-16, "start", p.Title)
	for i := range steps + 1 {
		v := top * float64(i) / steps
		fmt.Fprintf(b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="0.5"/>`+"\n",
			left, width-right, y(v), y(v), faint)
		text(b, left-6, y(v)+4, "end", short(v))
	}
	for i, tick := range p.Ticks {
		text(b, x(i), height-below+16, "middle", strconv.FormatFloat(tick, 'g', -1, 64))
	}
	text(b, (left+width-right)/2, height-below+36, "middle", p.X)
	fmt.Fprintf(b, `<text transform="translate(12 %g) rotate(-90)" text-anchor="middle" fill="%s">%s</text>`+"\n",
		(above+height-below)/2, ink, html.EscapeString(p.Y))
	for i, s := range p.Series {
		p.line(b, s, colours[i%len(colours)], x, y)
	}
}

// line draws a series with a mark at every value.
func (p Panel) line(b *strings.Builder, s Series, colour string, x func(int) float64, y func(float64) float64) {
	var path strings.Builder
	verb := "M"
	for i, v := range s.Values {
		if math.IsNaN(v) {
			verb = "M"
			continue
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", verb, x(i), y(v))
		verb = "L"
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(i), y(v), colour)
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), colour)
}

// top is a round number that no value exceeds.
func (p Panel) top() float64 {
	most := 0.0
	for _, s := range p.Series {
		for _, v := range s.Values {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				most = math.Max(most, v)
			}
		}
	}
	if most <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, m := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10} {
		if unit*m >= most {
			return unit * m
		}
	}
	return unit * 10
}

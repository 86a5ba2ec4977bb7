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
	// Ticks are where there are values; they stand at equal distances. The X axis is marked at
	// all of them, or where they are many, at some.
	Ticks  []float64
	Series []Series
	// Log makes the Y axis logarithmic, from 1 upwards. Lower values leave a gap.
	Log bool
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
	return Grid(w, title, max(1, len(panels)), panels)
}

// Grid is Write with so many panels in each row.
func Grid(w io.Writer, title string, columns int, panels []Panel) error {
	var b strings.Builder
	total := width * float64(min(columns, len(panels)))
	legend, rows := 0, max(1, (len(panels)+columns-1)/columns)
	if len(panels) > 0 {
		legend = len(panels[0].Series)
	}
	bottom := height * float64(rows)
	tall := bottom + legendTop + legendLine*math.Ceil(float64(legend)/4) + 8
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img" aria-label="%s" style="%s">`+"\n",
		total, tall, html.EscapeString(title), style)
	fmt.Fprintf(&b, `<rect width="%g" height="%g" fill="%s"/>`+"\n", total, tall, background)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%g %g)">`+"\n", width*float64(i%columns), height*float64(i/columns))
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	if len(panels) > 0 {
		for i, s := range panels[0].Series {
			x, y := left+float64(i%4)*(total-left)/4, bottom+legendTop+legendLine*float64(i/4)
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
	y := func(v float64) float64 { return height - below - (height-above-below)*p.part(v, top) }
	text(b, left, above-16, "start", p.Title)
	for _, v := range p.grid(top) {
		fmt.Fprintf(b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="0.5"/>`+"\n",
			left, width-right, y(v), y(v), faint)
		text(b, left-6, y(v)+4, "end", short(v))
	}
	for i, tick := range p.Ticks {
		if i%p.stride() != 0 {
			continue
		}
		text(b, x(i), height-below+16, "middle", strconv.FormatFloat(tick, 'g', -1, 64))
	}
	text(b, (left+width-right)/2, height-below+36, "middle", p.X)
	fmt.Fprintf(b, `<text transform="translate(12 %g) rotate(-90)" text-anchor="middle" fill="%s">%s</text>`+"\n",
		(above+height-below)/2, ink, html.EscapeString(p.Y))
	for i, s := range p.Series {
		p.line(b, s, colours[i%len(colours)], x, y)
	}
}

// mostTicks is how many ticks are marked, and how many values have a mark of their own.
const mostTicks = 12

// stride is from one tick that is marked to the next.
func (p Panel) stride() int {
	stride := 1
	for i := 0; len(p.Ticks) > mostTicks*stride; i++ {
		stride = []int{1, 2, 5}[i%3] * int(math.Pow10(i/3))
	}
	return stride
}

// part is how far up a value stands, from 0 to 1.
func (p Panel) part(v, top float64) float64 {
	if p.Log {
		return math.Log(v) / math.Log(top)
	}
	return v / top
}

// grid is where the Y axis is marked.
func (p Panel) grid(top float64) (values []float64) {
	if p.Log {
		for v := 1.0; v <= top; v *= 4 {
			values = append(values, v)
		}
		return values
	}
	for i := range steps + 1 {
		values = append(values, top*float64(i)/steps)
	}
	return values
}

// line draws a series with a mark at every value, unless they are many.
func (p Panel) line(b *strings.Builder, s Series, colour string, x func(int) float64, y func(float64) float64) {
	var path strings.Builder
	verb := "M"
	for i, v := range s.Values {
		if math.IsNaN(v) || p.Log && v < 1 {
			verb = "M"
			continue
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", verb, x(i), y(v))
		verb = "L"
		if len(s.Values) > mostTicks {
			continue
		}
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
	if p.Log {
		return math.Pow(4, math.Ceil(math.Log(max(most, 2))/math.Log(4)))
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

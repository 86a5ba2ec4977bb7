package top

import (
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// style is what a text is, from which the theme makes how it looks.
type style int

const (
	plain  style = iota
	title        // what a section is called
	faint        // what need not be read
	accent       // what is where it should be
	good         // as it should be
	warn         // worth a look
	bad          // trouble
	chosen       // the view that is shown
	styles
)

// Theme is how a frame looks. The zero Theme is plain text.
type Theme struct {
	colour bool
	codes  [styles]string
}

// NewTheme is made for a dark or a light background. All its colours are readable on it; a terminal with fewer of them shows
// the nearest that it has.
func NewTheme(dark bool) Theme {
	pick := lipgloss.LightDark(dark)
	colour := func(light, dark string) ansi.Style {
		return ansi.Style{}.ForegroundColor(pick(lipgloss.Color(light), lipgloss.Color(dark)))
	}
	t := Theme{colour: true}
	for s, code := range map[style]ansi.Style{
		title:  ansi.Style{}.Bold(),
		faint:  colour("#6a737d", "#7d8590"),
		accent: colour("#1f5fbf", "#79b8ff"),
		good:   colour("#1f7a3f", "#7ccf94"),
		warn:   colour("#8a5a00", "#e3b341"),
		bad:    colour("#c0262d", "#ff7b72").Bold(),
		chosen: colour("#1f5fbf", "#79b8ff").Bold().Reverse(true),
	} {
		t.codes[s] = code.String()
	}
	return t
}

// grey is the theme of what is not true any more.
func (t Theme) grey() Theme {
	for s := range t.codes {
		if style(s) != bad {
			t.codes[s] = t.codes[faint]
		}
	}
	if t.colour {
		t.codes[chosen] += ansi.Style{}.Reverse(true).String()
	}
	return t
}

// span is a text in one style.
type span struct {
	text  string
	style style
}

// line is a row of a frame. It may be longer than the frame is wide.
type line []span

func (l line) add(s style, text string) line { return append(l, span{text, s}) }

// columns is how many columns a line takes.
func (l line) columns() int {
	n := 0
	for _, s := range l {
		n += columns(s.text)
	}
	return n
}

// fit cuts a line, or pads it, to a width.
func (l line) fit(g *glyphs, width int) line {
	fitted := make(line, 0, len(l)+1)
	for i, s := range l {
		n := columns(s.text)
		if n > width || (n == width && rest(l[i+1:])) {
			s.text, n = g.cut(s.text+" ", width)
			fitted = append(fitted, s)
			width -= n
			break
		}
		fitted = append(fitted, s)
		width -= n
	}
	if width > 0 {
		fitted = append(fitted, span{strings.Repeat(" ", width), plain})
	}
	return fitted
}

// rest reports whether spans have anything to show.
func rest(spans []span) bool {
	for _, s := range spans {
		if strings.TrimSpace(s.text) != "" {
			return true
		}
	}
	return false
}

// ends is a line with a left and a right end, or only the left one if there is no room for both.
func ends(left, right line, width int) line {
	if gap := width - left.columns() - right.columns(); gap >= 2 {
		left = append(left, span{strings.Repeat(" ", gap), plain})
		return append(left, right...)
	}
	return left
}

// draw is a line as a terminal takes it.
func (t *Theme) draw(l line) string {
	var b strings.Builder
	for _, s := range l {
		if code := t.codes[s.style]; code != "" && s.text != "" {
			b.WriteString(code)
			b.WriteString(s.text)
			b.WriteString(ansi.ResetStyle)
		} else {
			b.WriteString(s.text)
		}
	}
	return b.String()
}

// bar is a part of a whole, as long as width.
func (g *glyphs) bar(part float64, width int, s style) line {
	if width <= 0 {
		return nil
	}
	full := 0
	if part > 0 { // and not NaN
		full = max(1, int(min(part, 1)*float64(width)+0.5))
	}
	return line{{strings.Repeat(g.full, full), s}, {strings.Repeat(g.empty, width-full), faint}}
}

// spark draws the latest values, at most width of them, in proportion to the largest.
func (g *glyphs) spark(values []float64, width int) string {
	values = values[max(0, len(values)-max(0, width)):]
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	b.WriteString(strings.Repeat(g.sparks[0], max(0, width-len(values))))
	for _, v := range values {
		level := 0
		if v > 0 {
			level = max(1, int(v/most*float64(len(g.sparks)-1)+0.5))
		}
		b.WriteString(g.sparks[level])
	}
	return b.String()
}

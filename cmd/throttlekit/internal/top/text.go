package top

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/text/unicode/bidi"
)

// glyphs are what pictures are made of. Each takes one column.
type glyphs struct {
	utf8                                   bool
	ellipsis, dot, dash, rule, full, empty string
	micro, arrows, selected, unselect      string
	sparks                                 []string
}

var (
	unicodeGlyphs = &glyphs{
		utf8: true, ellipsis: "…", dot: "·", dash: "–", rule: "─", full: "━", empty: "─", micro: "µ", arrows: "↑↓",
		selected: "‹", unselect: "›",
		sparks: []string{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
	}
	asciiGlyphs = &glyphs{
		ellipsis: "~", dot: "|", dash: "-", rule: "-", full: "#", empty: ".", micro: "u", arrows: "Up/Down",
		selected: "[", unselect: "]",
		sparks: []string{"_", ".", ":", "-", "=", "+", "*", "#"},
	}
)

// mostRunes of a name are looked at: nobody reads more of one line.
const mostRunes = 512

// safe is a name as a terminal may show it. Whatever could move the cursor, join its neighbours or turn the line around is
// escaped as in a Go string.
func (g *glyphs) safe(name string) string {
	if plainASCII(name) && len(name) <= mostRunes {
		return name
	}
	var b strings.Builder
	last := " "
	for n := 0; len(name) > 0 && n < mostRunes; n++ {
		r, size := utf8.DecodeRuneInString(name)
		char := name[:size]
		name = name[size:]
		if (r == utf8.RuneError && size == 1) || !g.shows(r, last, char) {
			char = strings.Trim(strconv.QuoteToASCII(char), `"`)
			last = " "
		} else {
			last = char
		}
		b.WriteString(char)
	}
	return b.String()
}

func plainASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// shows reports whether every terminal shows a character in its own columns, whatever stands beside it.
func (g *glyphs) shows(r rune, last, char string) bool {
	if r < utf8.RuneSelf {
		return ' ' <= r && r <= '~'
	}
	if !g.utf8 || !strconv.IsPrint(r) {
		return false
	}
	switch p, _ := bidi.LookupRune(r); p.Class() {
	case bidi.R, bidi.AL, bidi.AN:
		return false
	default:
	}
	width := ansi.StringWidth(char)
	return width > 0 && width == ansi.StringWidthWc(char) &&
		ansi.StringWidth(last+char) == ansi.StringWidth(last)+width && ansi.StringWidth(char+"a") == width+1
}

// columns is how many columns a safe text takes.
func columns(text string) int {
	if plainASCII(text) {
		return len(text)
	}
	n := 0
	for _, r := range text {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	if r < utf8.RuneSelf {
		return 1
	}
	return ansi.StringWidth(string(r))
}

// cut is as much of a safe text as fits, with a mark where it was cut, and how many columns that takes.
func (g *glyphs) cut(text string, width int) (shown string, taken int) {
	if width <= 0 {
		return "", 0
	}
	if n := columns(text); n <= width {
		return text, n
	}
	for i, r := range text {
		n := runeColumns(r)
		if taken+n > width-1 {
			return text[:i] + g.ellipsis, taken + 1
		}
		taken += n
	}
	return text, taken
}

// number shortens a count: up to 999 as it is, then thousands and millions.
func number(n float64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	switch {
	case math.IsNaN(n):
		return "0"
	case math.Round(n) < 1000:
		return sign + strconv.FormatFloat(math.Round(n), 'f', 0, 64)
	case n < 9950:
		return fmt.Sprintf("%s%.1fk", sign, n/1000)
	case n < 999_500:
		return fmt.Sprintf("%s%.0fk", sign, n/1000)
	}
	return fmt.Sprintf("%s%.1fM", sign, n/1e6)
}

func count(n int64) string { return number(float64(n)) }

// perSecond is a rate. Those below 10 have a decimal, so that a trickle does not look like nothing.
func perSecond(rate float64) string {
	if rate >= 0.05 && rate < 9.95 {
		return fmt.Sprintf("%.1f/s", rate)
	}
	return number(rate) + "/s"
}

// percent is a part of 1.
func percent(part float64) string {
	switch {
	case part > 0 && part < 0.0005:
		return "<0.1%"
	case part > 0 && part < 0.0995:
		return fmt.Sprintf("%.1f%%", 100*part)
	}
	return fmt.Sprintf("%.0f%%", 100*part)
}

// latency is a number of milliseconds as people say it.
func (g *glyphs) latency(ms float64) string {
	switch {
	case ms <= 0:
		return "0"
	case ms < 0.9995:
		return fmt.Sprintf("%.0f %ss", math.Max(1, ms*1000), g.micro)
	case ms < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// wait is how long a number of milliseconds is to wait.
func wait(ms int64) string {
	switch d := time.Duration(min(max(ms, 0), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond; {
	case d == 0:
		return "now"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", math.Min(59, d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd %02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// period is how long a number of milliseconds is that was chosen to be round.
func period(ms int64) string {
	if ms > 0 && ms%60_000 == 0 && ms < 3_600_000 {
		return fmt.Sprintf("%dm", ms/60_000)
	}
	return wait(ms)
}

// plural is a number of things.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(int64(n)) + " " + many
}

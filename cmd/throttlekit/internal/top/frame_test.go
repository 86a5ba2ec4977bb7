package top

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

var update = flag.Bool("update", false, "write the golden files anew; commit them only if you understand the change")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// framed is what a frame looks like, with its edges.
func framed(f Frame) string {
	var b strings.Builder
	for _, l := range Render(f) {
		fmt.Fprintf(&b, "%s|\n", l)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	s := sample()
	h := pastOf(s)
	for v := range views {
		for _, size := range [][2]int{{80, 24}, {20, 6}, {132, 40}} {
			f := Frame{Snapshot: s, History: h, View: v, Cols: size[0], Rows: size[1], Location: time.UTC}
			golden(t, fmt.Sprintf("%s-%dx%d.txt", strings.ToLower(v.String()), size[0], size[1]), framed(f))
		}
	}
	golden(t, "help.txt", framed(Frame{Snapshot: s, History: h, Help: true, Cols: 80, Rows: 24, Location: time.UTC}))
	golden(t, "ascii.txt", framed(Frame{Snapshot: s, History: h, Cols: 80, Rows: 24, ASCII: true, Location: time.UTC}))
	golden(t, "once.txt", Text(Frame{Snapshot: s, History: h, Cols: 100, Location: time.UTC}))
	golden(t, "hostile.txt", framed(Frame{Snapshot: hostile(), Cols: 80, Rows: 40, Location: time.UTC}))
	golden(t, "empty.txt", Text(Frame{Snapshot: new(monitor.Snapshot), Cols: 80, Location: time.UTC}))
	alarm := sample()
	alarm.Store.Answering, alarm.Guards[1].Fenced, alarm.Policies[0].Analytics.FailModeDecisions = false, new(true), 12
	golden(t, "alarm.txt", framed(Frame{Snapshot: alarm, View: Guards, Cols: 110, Rows: 16, Location: time.UTC}))
	golden(t, "trouble.txt", framed(Frame{
		Snapshot: s, History: h, Trouble: "no server answers at 10.0.0.7:50051", Paused: true, Offset: 3, Cols: 80, Rows: 24, Location: time.UTC,
	}))
}

// Every frame has as many rows and columns as the screen, whatever is in it, and nothing but colours can get out of it.
func TestSizes(t *testing.T) {
	t.Parallel()
	h := pastOf(sample())
	for name, s := range map[string]*monitor.Snapshot{
		"sample": sample(), "hostile": hostile(), "strange": strange(), "empty": {}, "none": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for cols := 1; cols <= 120; cols++ {
				for rows := 1; rows <= 50; rows++ {
					f := Frame{Snapshot: s, History: h, Cols: cols, Rows: rows, View: View((cols + rows) % int(views))}
					f.ASCII, f.Help, f.Paused = cols%5 == 0, rows%11 == 0, rows%3 == 0
					f.Offset = []int{0, 1, 7, 1 << 40, -1}[(cols+2*rows)%5]
					if cols%7 == 0 {
						f.Theme = NewTheme(rows%2 == 0)
					}
					if rows%13 == 0 {
						f.Trouble = "gone \x1b[2J\n"
					}
					check(t, f)
				}
			}
			for v := range views { // every view at the edges
				for _, size := range [][2]int{{1, 1}, {20, 6}, {39, 12}, {40, 11}, {73, 31}, {74, 32}, {80, 24}, {120, 50}, {300, 100}, {0, 5}, {5, 0}, {-1, -1}} {
					check(t, Frame{Snapshot: s, History: h, View: v, Cols: size[0], Rows: size[1], Theme: NewTheme(true)})
				}
			}
		})
	}
}

func check(t *testing.T, f Frame) {
	t.Helper()
	lines := Render(f)
	if want := max(0, f.Rows); len(lines) != want && f.Cols > 0 {
		t.Fatalf("%v at %dx%d: %d lines", f.View, f.Cols, f.Rows, len(lines))
	}
	for i, l := range lines {
		if n, wc := ansi.StringWidth(l), ansi.StringWidthWc(l); n != f.Cols || wc != f.Cols {
			t.Fatalf("%v at %dx%d: line %d takes %d or %d columns: %q", f.View, f.Cols, f.Rows, i, n, wc, l)
		}
		for _, r := range ansi.Strip(l) {
			if r < ' ' || r == 0x7f || (0x80 <= r && r < 0xa0) || (f.ASCII && r > '~') {
				t.Fatalf("%v at %dx%d: line %d has %q in it: %q", f.View, f.Cols, f.Rows, i, r, l)
			}
		}
		if !f.Theme.colour && strings.ContainsRune(l, '\x1b') {
			t.Fatalf("%v at %dx%d: line %d has escape codes without a theme: %q", f.View, f.Cols, f.Rows, i, l)
		}
	}
}

func TestTextHasNoEscapes(t *testing.T) {
	t.Parallel()
	for _, s := range []*monitor.Snapshot{sample(), hostile(), strange(), {}} {
		for _, ascii := range []bool{false, true} {
			text := Text(Frame{Snapshot: s, Cols: 100, ASCII: ascii, Theme: NewTheme(true)})
			for _, r := range text {
				if (r < ' ' && r != '\n') || r == 0x7f || (0x80 <= r && r < 0xa0) || (ascii && r > '~') {
					t.Errorf("%q in %q", r, text)
				}
			}
		}
	}
}

func TestSafe(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, unicode, ascii string }{
		{"plain key/1", "plain key/1", "plain key/1"},
		{"\x1b[31m", `\x1b[31m`, `\x1b[31m`},
		{"a\tb\n", `a\tb\n`, `a\tb\n`},
		{"\xff", `\xff`, `\xff`},
		{"größe", "größe", `gr\u00f6\u00dfe`},
		{"\u521d\u97f3", "\u521d\u97f3", `\u521d\u97f3`},
		{"שלום", `\u05e9\u05dc\u05d5\u05dd`, `\u05e9\u05dc\u05d5\u05dd`},
		{"a\u202eb", `a\u202eb`, `a\u202eb`},
		{"e\u0301", `e\u0301`, `e\u0301`},
		{"<b>", "<b>", "<b>"},
		{"\u0085", `\u0085`, `\u0085`},
		{"👍🏽", `👍\U0001f3fd`, `\U0001f44d\U0001f3fd`},
	} {
		if got := unicodeGlyphs.safe(test.name); got != test.unicode {
			t.Errorf("%q: got %s, want %s", test.name, got, test.unicode)
		}
		if got := asciiGlyphs.safe(test.name); got != test.ascii {
			t.Errorf("%q in ASCII: got %s, want %s", test.name, got, test.ascii)
		}
	}
}

// Whatever a name is made of, terminals that count characters and terminals that count graphemes agree on its width, and on
// that of every part that is cut from it.
func FuzzSafe(f *testing.F) {
	for _, d := range hostile().RecentDenials {
		f.Add(d.Key, 7)
	}
	f.Fuzz(func(t *testing.T, name string, width int) {
		for _, g := range []*glyphs{unicodeGlyphs, asciiGlyphs} {
			text := g.safe(name)
			n := columns(text)
			if a, b := ansi.StringWidth(" "+text+" x"), ansi.StringWidthWc(" "+text+" x"); a != n+3 || b != n+3 {
				t.Errorf("%q takes %d, %d or %d columns", text, n, a-3, b-3)
			}
			width = max(0, width%100)
			shown, taken := g.cut(text, width)
			if taken > width || columns(shown) != taken || ansi.StringWidth(shown) != taken {
				t.Errorf("%q cut to %d is %q, of %d columns", text, width, shown, taken)
			}
		}
	})
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{
		0: "0", 7: "7", 999: "999", 999.4: "999", 999.6: "1.0k", 1000: "1.0k", 1234: "1.2k", 9949: "9.9k", 9999: "10k", 10_000: "10k",
		123_456: "123k", 999_499: "999k", 999_999: "1.0M", 1_000_000: "1.0M", 12_345_678: "12.3M", -1500: "-1.5k",
	} {
		if got := number(n); got != want {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
	for ms, want := range map[int64]string{
		-5: "now", 0: "now", 84: "84 ms", 999: "999 ms", 1000: "1.0 s", 9_949: "9.9 s", 9_951: "10 s", 59_999: "59 s", 60_000: "1m 00s",
		3_599_999: "59m 59s", 7_500_000: "2h 05m", 90_000_000: "1d 01h",
	} {
		if got := wait(ms); got != want {
			t.Errorf("%d ms: got %s, want %s", ms, got, want)
		}
	}
	for ms, want := range map[float64]string{
		0: "0", 0.0001: "1 µs", 0.021: "21 µs", 0.9996: "1.0 ms", 1.44: "1.4 ms", 31: "31 ms", 999.6: "1.0 s", 1234: "1.2 s",
	} {
		if got := unicodeGlyphs.latency(ms); got != want {
			t.Errorf("%v ms: got %s, want %s", ms, got, want)
		}
	}
	for part, want := range map[float64]string{0: "0%", 0.0004: "<0.1%", 0.004: "0.4%", 0.0994: "9.9%", 0.0996: "10%", 0.5: "50%", 1: "100%"} {
		if got := percent(part); got != want {
			t.Errorf("%v: got %s, want %s", part, got, want)
		}
	}
	for rate, want := range map[float64]string{0: "0/s", 0.04: "0/s", 0.4: "0.4/s", 9.9: "9.9/s", 12.4: "12/s", 1234: "1.2k/s"} {
		if got := perSecond(rate); got != want {
			t.Errorf("%v: got %s, want %s", rate, got, want)
		}
	}
}

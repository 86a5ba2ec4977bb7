package top

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// View is one page of the dashboard.
type View int

// The views, in the order of their keys.
const (
	Overview View = iota
	Latency
	Fairness
	Capacity
	Guards
	Budgets
	Leases
	views
)

// String is the name of the view.
func (v View) String() string {
	return [views]string{"Overview", "Latency", "Fairness", "Capacity", "Guards", "Budgets", "Leases"}[v]
}

// Views are the names of all views, as flags spell them.
func Views() []string {
	var names []string
	for v := range views {
		names = append(names, strings.ToLower(v.String()))
	}
	return names
}

// Frame is everything that a picture depends on.
type Frame struct {
	Snapshot *monitor.Snapshot
	History  *History
	View     View
	// Offset is how many lines are scrolled past. What is too much shows the end.
	Offset int
	Paused bool
	Help   bool
	// Trouble says why the snapshot is an old one. Empty means that it is not.
	Trouble string
	// Cols and Rows are the size.
	Cols, Rows int
	Theme      Theme
	// ASCII avoids all other characters.
	ASCII bool
	// Location is the time zone that times are shown in. nil means that of the machine.
	Location *time.Location
	// once is for every view below the other: nothing scrolls.
	once bool
}

// Render draws a frame: as many lines as it has rows, each as wide as it has columns.
func Render(f Frame) []string {
	theme := f.Theme
	if f.Trouble != "" {
		theme = theme.grey()
	}
	lines := make([]string, 0, max(0, f.Rows))
	for _, l := range f.lines() {
		lines = append(lines, theme.draw(l.fit(f.glyphs(), f.Cols)))
	}
	return lines
}

// Text is all views, one below the other, as plain text.
func Text(f Frame) string {
	f.Theme, f.once = Theme{}, true
	lines := []line{f.header(f.Cols), f.throughput(f.Cols)}
	if t := f.trouble(); t != nil {
		lines = append(lines, t)
	}
	for f.View = range views {
		head, body := f.content(f.Cols)
		lines = append(lines, nil, line{{strings.ToUpper(f.View.String()), title}})
		lines = append(lines, head...)
		lines = append(lines, body...)
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(f.Theme.draw(l.fit(f.glyphs(), f.Cols)), " "))
		b.WriteByte('\n')
	}
	return b.String()
}

func (f *Frame) glyphs() *glyphs {
	if f.ASCII {
		return asciiGlyphs
	}
	return unicodeGlyphs
}

// roomy is from how many rows on a frame can afford empty ones.
const roomy = 12

// lines lays the frame out: the header and the views' names stay at the top and the keys at the bottom, as far as there are rows.
func (f *Frame) lines() []line {
	if f.Rows <= 0 || f.Cols <= 0 {
		return nil
	}
	inner, margin := f.Cols, ""
	if f.Cols >= 40 {
		inner, margin = f.Cols-2, " "
	}
	top := []line{f.header(inner), f.throughput(inner), f.tabs(inner)}
	if f.Rows >= roomy {
		top = append(top, f.trouble())
	}
	bottom := []line{f.status(inner)}
	if len(top)+len(bottom) > f.Rows {
		bottom = nil
	}
	top = top[:min(len(top), f.Rows)]
	lines := top
	if room := f.Rows - len(top) - len(bottom); room > 0 {
		body := f.visible(inner, room)
		lines = append(lines, body...)
		lines = append(lines, make([]line, room-len(body))...)
	}
	lines = append(lines, bottom...)
	if margin != "" {
		for i := range lines {
			lines[i] = append(line{{margin, plain}}, lines[i].fit(f.glyphs(), inner)...)
		}
	}
	return lines
}

// visible is the part of the view that is in sight.
func (f *Frame) visible(width, room int) []line {
	head, body := f.page(width, room)
	room -= len(head)
	from := min(max(0, f.Offset), max(0, len(body)-room))
	return append(slices.Clip(head), body[from:min(len(body), from+room)]...)
}

// page is what of a view stays and what scrolls: everything does if otherwise there would hardly be room for any of it.
func (f *Frame) page(width, room int) (head, body []line) {
	if f.Help {
		return nil, f.help()
	}
	head, body = f.content(width)
	if len(head)+min(4, len(body)) > room {
		head, body = nil, append(head, body...)
	}
	return head, body
}

// room is the size of the part that a view has to itself.
func (f *Frame) room() (width, rows int) {
	width, rows = f.Cols, f.Rows-4
	if f.Cols >= 40 {
		width -= 2
	}
	if f.Rows >= roomy {
		rows--
	}
	return width, rows
}

// lastOffset is the largest one that shows anything more.
func (f *Frame) lastOffset() int {
	width, room := f.room()
	head, body := f.page(width, room)
	return max(0, len(body)-max(0, room-len(head)))
}

// content is what a view shows.
func (f *Frame) content(width int) (head, body []line) {
	if f.Snapshot == nil {
		return []line{{{"Nothing is known yet.", faint}}}, nil
	}
	switch f.View {
	case Latency:
		return f.latencies(width)
	case Fairness:
		return f.fairness(width)
	case Capacity:
		return f.capacity(width)
	case Guards:
		return f.guards(width)
	case Budgets:
		return f.budgets(width)
	case Leases:
		return f.leases(width)
	default:
		return f.overview(width)
	}
}

// header says whose numbers these are, as far as there is room.
func (f *Frame) header(width int) line {
	l := line{{"ThrottleKit", title}}
	s := f.Snapshot
	if s == nil {
		return l
	}
	clock := line{{f.clock(s.Meta.GeneratedAt), faint}}
	room := width - clock.columns() - 2
	for _, part := range f.facts() {
		more := append(append(line{}, l...), span{"  ", plain}, part)
		if more.columns() <= room {
			l = more
		}
	}
	return ends(l, clock, width)
}

// facts are what a header tells, the most important first.
func (f *Frame) facts() []span {
	g, s := f.glyphs(), f.Snapshot
	var facts []span
	if s.Meta.NodeID != "" {
		facts = append(facts, span{g.safe(s.Meta.NodeID), accent})
	}
	if h := s.Health; h != nil {
		backend, look := g.safe(h.Backend), plain
		if s.Store != nil && !s.Store.Answering {
			look = bad
		}
		facts = append(facts, span{backend, look}, span{"fail " + g.safe(string(h.FailMode)), plain})
	}
	facts = append(facts, span{plural(len(s.Policies), "policy", "policies"), plain})
	if m := s.Meta; m.WindowMs > 0 {
		facts = append(facts, span{fmt.Sprintf("window %s, %s in", period(m.WindowMs), wait(max(1, m.GeneratedAt%m.WindowMs))), faint})
	}
	return facts
}

// clock is the time of day.
func (f *Frame) clock(millis int64) string {
	at := time.UnixMilli(millis)
	if f.Location != nil {
		at = at.In(f.Location)
	}
	return at.Format("15:04:05")
}

// throughput is how much comes now, and how much of it is denied.
func (f *Frame) throughput(width int) line {
	if f.Snapshot == nil {
		return nil
	}
	var allowed, denied int64
	for i := range f.Snapshot.Policies {
		a := &f.Snapshot.Policies[i].Analytics
		allowed, denied = allowed+a.Allowed, denied+a.Denied
	}
	var allowedRate, deniedRate float64
	var past []float64
	if f.History != nil {
		allowedRate, deniedRate = f.History.rates()
		past = f.History.denied
	}
	look := plain
	if deniedRate >= 0.05 {
		look = warn
	}
	part := 0.0
	if denied > 0 {
		part = float64(denied) / float64(allowed+denied)
	}
	narrow := width < 40
	if width < 30 {
		return line{{perSecond(allowedRate), plain}, {", ", faint}, {perSecond(deniedRate), look}, {" denied", faint}}
	}
	l := line{
		{"allowed ", faint},
		{pad(perSecond(allowedRate), 7, narrow), plain},
		{"  denied ", faint},
		{pad(perSecond(deniedRate), 7, narrow), look},
		{"  " + pad(percent(part), 5, narrow), look},
	}
	if sparks := min(24, width-l.columns()-2); sparks >= 8 && !f.once {
		l = append(l, span{"  ", plain}, span{f.glyphs().spark(past, sparks), warn})
	}
	right := line{{count(allowed), plain}, {" allowed, ", faint}, {count(denied), plain}, {" denied in this window", faint}}
	return ends(l, right, width)
}

// pad widens a number to the left, so that what follows stays where it is.
func pad(text string, width int, narrow bool) string {
	if narrow {
		return text
	}
	return strings.Repeat(" ", max(0, width-columns(text))) + text
}

// tabs are the names of the views; only that of the current one if there is no room.
func (f *Frame) tabs(width int) line {
	for _, form := range []struct {
		names bool
		gap   string
	}{{true, " "}, {false, " "}, {false, ""}} {
		var l line
		for v := range views {
			digit := strconv.Itoa(int(v) + 1)
			name := " " + v.String()
			switch {
			case v == f.View && f.Theme.colour:
				l = l.add(chosen, " "+digit+name+" ")
			case v == f.View:
				l = l.add(title, f.glyphs().selected+digit+name+f.glyphs().unselect)
			case form.names:
				l = l.add(plain, " ").add(faint, digit).add(plain, name+" ")
			default:
				l = l.add(faint, form.gap+digit)
			}
		}
		if l.columns() <= width {
			return l
		}
	}
	return line{{fmt.Sprintf("%d %v", int(f.View)+1, f.View), title}}
}

// trouble is what somebody should do something about; nil if there is nothing.
func (f *Frame) trouble() line {
	var said []string
	if f.Trouble != "" {
		said = append(said, "reconnecting: "+f.glyphs().safe(f.Trouble))
	} else if s := f.Snapshot; s != nil {
		if s.Store != nil && !s.Store.Answering {
			said = append(said, "the store does not answer")
		}
		var byFailMode int64
		for i := range s.Policies {
			byFailMode += s.Policies[i].Analytics.FailModeDecisions
		}
		if byFailMode > 0 {
			said = append(said, "the fail mode made "+plural(int(byFailMode), "decision", "decisions"))
		}
		if n := fenced(s.Guards); n > 0 {
			said = append(said, plural(n, "guard is", "guards are")+" fenced")
		}
	}
	if said == nil {
		return nil
	}
	return line{{"! " + strings.Join(said, "; "), bad}}
}

func fenced(guards []monitor.Guard) int {
	n := 0
	for i := range guards {
		if f := guards[i].Fenced; f != nil && *f {
			n++
		}
	}
	return n
}

// status is the last line: the keys, and in what state the screen is.
func (f *Frame) status(width int) line {
	g := f.glyphs()
	var right line
	w, room := f.room()
	if head, body := f.page(w, room); len(body) > room-len(head) && room > len(head) {
		from := min(max(0, f.Offset), len(body)-(room-len(head)))
		right = right.add(faint, fmt.Sprintf("%d to %d of %d", from+1, from+room-len(head), len(body)))
	}
	if f.Trouble != "" {
		right = append(line{{"RECONNECTING  ", bad}}, right...)
	}
	if f.Paused {
		right = append(line{{"PAUSED  ", warn}}, right...)
	}
	question := "help"
	if f.Help {
		question = "back"
	}
	keys := line{}
	for _, k := range [][2]string{{"q", "quit"}, {"p", "pause"}, {"?", question}, {"Tab", "next"}, {g.arrows, "scroll"}} {
		more := append(line{}, keys...)
		if len(keys) > 0 {
			more = more.add(plain, "  ")
		}
		more = more.add(accent, k[0]).add(faint, " "+k[1])
		if more.columns()+right.columns() > width-2*min(1, len(right)) {
			break
		}
		keys = more
	}
	if len(keys) == 0 {
		return right
	}
	return ends(keys, right, width)
}

// help explains the keys.
func (f *Frame) help() []line {
	g := f.glyphs()
	lines := []line{{{"Keys", title}}}
	for _, k := range [][2]string{
		{"1 to 7", "a view"},
		{"Tab, Shift-Tab", "the next view, the one before"},
		{g.arrows, "scroll by a line; in Overview up is to older denials"},
		{"PgUp, PgDn", "scroll by ten"},
		{"g, G", "first and last line; in Overview oldest and newest denial"},
		{"p", "pause and go on"},
		{"?", "this help, and back"},
		{"q, Ctrl-C", "quit"},
	} {
		lines = append(lines, line{{widen(k[0], 16), accent}, {k[1], plain}})
	}
	return append(lines, nil,
		line{{"Counts are of the current window, rates of the last seconds.", faint}},
		line{{"How often a key was denied or asked for is an estimate.", faint}},
	)
}

// widen pads a text to the right.
func widen(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-columns(text)))
}

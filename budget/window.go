package budget

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// MaxTokens bounds budgets, and what may be given back, so that sums are counted exactly: 2^52.
const MaxTokens = 1 << 52

const (
	amountRule = "must be an integer from 1 to 4503599627370496"
	maxWindows = 16
	maxLevels  = 16
)

// Window is a limit on the tokens of one window. Windows of a fixed Width are aligned to the
// epoch; those with a Cadence begin with local days in a time zone.
type Window struct {
	// Name is how refusals call the window; unique in its budget, of letters, digits, "-", "_" and
	// ".". Defaults to the cadence, or to the width as in "1m0s".
	Name string
	// Limit is how many tokens a window has; at least 1 and at most [MaxTokens], rounded down. It
	// must differ from the limits of the budget's other windows, so that a refusal tells them apart.
	Limit float64
	// Width is the width of a window; at least a millisecond. It excludes a Cadence.
	Width time.Duration
	// Cadence is CalendarDay, CalendarWeek or CalendarMonth of package throttlekit.
	Cadence throttlekit.Cadence
	// Zone is the IANA name of the time zone in which calendar windows begin, as in
	// "Europe/Berlin". Days there may have 23 or 25 hours. Defaults to UTC.
	Zone string
	// WeekStart is the ISO weekday on which a calendar week begins, 1 for Monday to 7 for Sunday.
	// Zero means Monday.
	WeekStart int
}

// window is a validated Window.
type window struct {
	name  string
	limit float64
	width float64 // in milliseconds, 0 for a calendar window
	days  calendar
}

// frame is a window as a step sees it: with the boundaries of the calendar around some instant.
// It is pure data, so that a store can be told it.
type frame struct {
	limit, width float64
	bounds       [4]float64 // of a calendar window: three windows in a row
}

// at is the frame around an instant.
func (w *window) at(nowMillis int64) frame {
	f := frame{limit: w.limit, width: w.width}
	if w.width == 0 {
		f.bounds = w.days.around(nowMillis)
	}
	return f
}

// place is where a window that began at p.start, or a fresh one if p.served is 0, stands at now. It
// only rolls forward. known is false if the frame does not reach that far.
func (f *frame) place(p period, now float64) (current period, end float64, known bool) {
	if f.width > 0 {
		if begun := float64(math.Floor(now/f.width) * f.width); now >= p.start+f.width && begun > p.start {
			p = period{start: begun}
		}
		return p, p.start + f.width, true
	}
	i := len(f.bounds) - 1
	if now < f.bounds[0] || now >= f.bounds[i] {
		return p, 0, false
	}
	for f.bounds[i] > now {
		i--
	}
	if p.start < f.bounds[i] {
		p = period{start: f.bounds[i]}
	}
	return p, f.bounds[i+1], true
}

// appendText writes the frame for the script: "limit:width", or "limit:0:bound:bound:bound:bound".
func (f *frame) appendText(b []byte) []byte {
	b = appendNumber(b, f.limit)
	b = appendNumber(append(b, ':'), f.width)
	if f.width == 0 {
		for _, bound := range f.bounds {
			b = appendNumber(append(b, ':'), bound)
		}
	}
	return b
}

func appendNumber(b []byte, x float64) []byte {
	if x == math.Trunc(x) && math.Abs(x) <= throttlekit.MaxSafe {
		return strconv.AppendInt(b, int64(x), 10)
	}
	return strconv.AppendFloat(b, x, 'g', -1, 64)
}

// faults collects every broken rule of one configuration.
type faults []error

func (f *faults) require(ok bool, field string, value any, rule string) {
	if !ok {
		*f = append(*f, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
	}
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

func validName(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, nameCharacters) == ""
}

const nameRule = "must be up to 64 letters, digits, \"-\", \"_\" and \".\", and unique"

// complete validates a window of a budget.
func (w Window) complete(field string, f *faults) window {
	f.require(w.Name == "" || validName(w.Name), field+"name", w.Name, nameRule)
	w.Name = cmp.Or(w.Name, string(w.Cadence), w.Width.String())
	if w.WeekStart == 0 {
		w.WeekStart = 1
	}
	f.require(w.Limit >= 1 && w.Limit <= MaxTokens, field+"budget", w.Limit,
		"must be a finite number from 1 to 4503599627370496; fractions of a token are rounded down")
	f.require(w.WeekStart >= 1 && w.WeekStart <= 7, field+"weekStart", w.WeekStart, "must be an ISO weekday from 1 to 7")
	done := window{name: w.Name, limit: math.Floor(w.Limit)}
	if w.Cadence == "" {
		f.require(w.Width >= time.Millisecond, field+"window", w.Width, "must be a duration of at least 1ms")
		f.require(w.Zone == "", field+"zone", w.Zone, "must not be given without a calendar cadence")
		done.width = float64(w.Width) / float64(time.Millisecond)
		return done
	}
	f.require(w.Width == 0, field+"window", w.Width, "must not be given together with a calendar cadence")
	f.require(slices.Contains(calendarCadences, w.Cadence), field+"resetCadence", string(w.Cadence),
		"must be calendar-day, calendar-week or calendar-month")
	zone, err := time.LoadLocation(w.Zone)
	f.require(err == nil && w.Zone != "Local", field+"zone", w.Zone, "must be the IANA name of a time zone that this machine knows")
	done.days = calendar{cadence: w.Cadence, zone: zone, weekStart: w.WeekStart}
	return done
}

var calendarCadences = []throttlekit.Cadence{throttlekit.CalendarDay, throttlekit.CalendarWeek, throttlekit.CalendarMonth}

// calendar tells when local days, weeks and months begin.
type calendar struct {
	cadence   throttlekit.Cadence
	zone      *time.Location
	weekStart int
}

// around are the boundaries of three windows, of which the second contains an instant.
func (c calendar) around(nowMillis int64) (bounds [4]float64) {
	today := time.UnixMilli(nowMillis).In(c.zone)
	year, month, day := today.Date()
	for i := range bounds {
		n := i - 1
		var first time.Time // its civil date, in UTC
		switch c.cadence {
		case throttlekit.CalendarMonth:
			first = time.Date(year, month+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
		case throttlekit.CalendarWeek:
			since := (int(today.Weekday()) - c.weekStart + 7) % 7
			first = time.Date(year, month, day-since+7*n, 0, 0, 0, 0, time.UTC)
		default:
			first = time.Date(year, month, day+n, 0, 0, 0, 0, time.UTC)
		}
		bounds[i] = float64(c.begins(first))
	}
	return bounds
}

// begins is the instant at which a civil date begins in the zone, also where it has no midnight
// or two. The date is that of a time in UTC.
func (c calendar) begins(date time.Time) int64 {
	const furthest = 26 * time.Hour // no zone is further from UTC, its changes included
	before, after := date.Add(-furthest).UnixMilli(), date.Add(furthest).UnixMilli()
	for before+1 < after {
		middle := before + (after-before)/2
		year, month, day := time.UnixMilli(middle).In(c.zone).Date()
		if time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Before(date) {
			before = middle
		} else {
			after = middle
		}
	}
	return after
}

// Budget is what a key may spend: one level, with those above it.
type Budget struct {
	// Name is how refusals and stores call the level, as in "team"; unique among the levels, of
	// letters, digits, "-", "_" and ".". Defaults to "key".
	Name string
	// Windows limit every key of the level, each on its own; from 1 to 16.
	Windows []Window
	// Parent is charged whatever is charged here, and refuses for it. Defaults to none. There are
	// at most 16 levels.
	Parent *Budget
	// ParentKey says to which key of the parent a key belongs. It must be safe for concurrent use
	// and always give the same answer. Defaults to one key, which is empty, for all.
	ParentKey func(key string) string
}

// level is a validated Budget.
type level struct {
	name    string
	windows []window
	above   func(key string) string // the key one level up
}

// levels validates a budget and those above it.
func (b *Budget) levels() ([]*level, error) {
	var f faults
	var all []*level
	var seen []*Budget
	field := ""
	for ; b != nil; b = b.Parent {
		if slices.Contains(seen, b) {
			f.require(false, field+"name", b.Name, "must not be its own ancestor: the parents form a cycle")
			break
		}
		if len(seen) == maxLevels {
			f.require(false, field+"name", b.Name, fmt.Sprintf("must be one of at most %d levels", maxLevels))
			break
		}
		seen = append(seen, b)
		l := b.level(field, &f)
		f.require(!slices.ContainsFunc(all, func(o *level) bool { return o.name == l.name }), field+"name", l.name, nameRule)
		all = append(all, l)
		field += "parent."
	}
	switch len(f) {
	case 0:
		return all, nil
	case 1:
		return nil, f[0]
	}
	return nil, joined(f)
}

func (b *Budget) level(field string, f *faults) *level {
	l := &level{name: cmp.Or(b.Name, "key"), above: b.ParentKey}
	if l.above == nil {
		l.above = func(string) string { return "" }
	}
	f.require(validName(l.name), field+"name", b.Name, nameRule)
	f.require(len(b.Windows) >= 1 && len(b.Windows) <= maxWindows, field+"windows", len(b.Windows), "must be from 1 to 16")
	for i, w := range b.Windows {
		at := field
		if len(b.Windows) > 1 {
			at = fmt.Sprintf("%swindows[%d].", field, i)
		}
		done := w.complete(at, f)
		for _, other := range l.windows {
			f.require(other.name != done.name, at+"name", done.name, nameRule)
			f.require(other.limit != done.limit, at+"budget", done.limit, "must differ from the other windows' budgets")
		}
		l.windows = append(l.windows, done)
	}
	return l
}

// named is the name of the window with a limit, or empty.
func (l *level) named(limit int64) string {
	for i := range l.windows {
		if int64(l.windows[i].limit) == limit {
			return l.windows[i].name
		}
	}
	return ""
}

// frames are those of all windows around an instant.
func (l *level) frames(nowMillis int64) []frame {
	frames := make([]frame, len(l.windows))
	for i := range l.windows {
		frames[i] = l.windows[i].at(nowMillis)
	}
	return frames
}

func joined(f faults) error { return errors.Join(f...) }

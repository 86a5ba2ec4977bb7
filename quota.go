package throttlekit

import (
	"math"
	"time"
)

// Quota admits Limit units per calendar month, week or day, per fixed period, or in a
// rolling period. Calendar windows use a fixed offset from UTC, without daylight
// saving. Specification: §3.1.
type Quota struct {
	// Limit is how many units one window admits; positive.
	Limit float64
	// Cadence says where windows begin.
	Cadence Cadence
	// Period is the width of a Fixed or Rolling window; positive. Calendar cadences ignore it.
	Period time.Duration
	// Anchor is an instant in epoch milliseconds at which a Fixed window begins; it may be negative.
	Anchor int64
	// Offset is the local time's distance from UTC, in whole minutes between -14h and 14h.
	Offset time.Duration
	// WeekStart is the ISO weekday on which a calendar week begins, 1 for Monday to
	// 7 for Sunday. Zero means Monday.
	WeekStart int
	// Buckets is the resolution of a Rolling quota, see [SlidingWindow]. Zero means 10.
	Buckets int
}

// Cadence says when the windows of a [Quota] begin.
type Cadence string

// The cadences, spelled as policy files spell them.
const (
	CalendarMonth Cadence = "calendar-month"
	CalendarWeek  Cadence = "calendar-week"
	CalendarDay   Cadence = "calendar-day"
	Fixed         Cadence = "fixed"
	Rolling       Cadence = "rolling"
)

// Cadences are all cadences, in the order of their documentation.
func Cadences() []Cadence {
	return []Cadence{CalendarMonth, CalendarWeek, CalendarDay, Fixed, Rolling}
}

const (
	day       = 24 * time.Hour
	maxOffset = 14 * time.Hour
)

// Rule implements [Strategy].
func (s Quota) Rule() (Rule, error) {
	if s.Cadence == Rolling {
		return s.rolling()
	}
	if s.WeekStart == 0 {
		s.WeekStart = 1
	}
	var c checks
	c.positive("limit", s.Limit)
	c.require(s.WeekStart >= 1 && s.WeekStart <= 7, "weekStart", s.WeekStart, "must be an ISO weekday from 1 to 7")
	c.require(s.Offset%time.Minute == 0 && s.Offset.Abs() <= maxOffset, "offset", s.Offset, "must be whole minutes between -14h and 14h")
	w := &windowed{name: "quota", strategy: s, limit: s.Limit, reported: whole(s.Limit)}
	switch s.Cadence {
	case CalendarMonth:
		w.start, w.end = s.month(0), s.after(s.month(1))
	case CalendarWeek:
		w.start, w.end = s.days(s.weekStart), plus(7*day)
	case CalendarDay:
		w.start, w.end = s.days(func(day int64) int64 { return day }), plus(day)
	case Fixed:
		c.duration("period", s.Period)
		w.start, w.end = s.fixed(), plus(s.Period)
	default:
		c.fail("resetCadence", string(s.Cadence), "must be calendar-month, calendar-week, calendar-day, fixed or rolling")
	}
	if len(c) > 0 {
		return nil, c.err()
	}
	return w, nil
}

// rolling is a sliding window under the name of a quota.
func (s Quota) rolling() (Rule, error) {
	rule, err := SlidingWindow{Limit: s.Limit, Window: s.Period, Buckets: s.Buckets}.rule("quota", "period")
	if err != nil {
		return nil, err
	}
	s.Buckets = rule.spec.Buckets
	rule.strategy = s
	return rule, nil
}

func plus(width time.Duration) func(float64) float64 {
	return func(start float64) float64 { return start + toMillis(width) }
}

// after turns a function of an instant into one of a window's start.
func (s Quota) after(f func(int64) float64) func(float64) float64 {
	return func(start float64) float64 { return f(int64(start)) }
}

func (s Quota) fixed() func(int64) float64 {
	anchor, period := float64(s.Anchor), toMillis(s.Period)
	return func(nowMillis int64) float64 {
		return anchor + float64(math.Floor((float64(nowMillis)-anchor)/period)*period)
	}
}

// month is the start of the civil month that lies n months after the one containing now.
func (s Quota) month(n int) func(int64) float64 {
	offset := s.Offset.Milliseconds()
	return func(nowMillis int64) float64 {
		local := time.UnixMilli(nowMillis + offset).UTC()
		first := time.Date(local.Year(), local.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
		return float64(first.UnixMilli() - offset)
	}
}

// days is the start of the window whose first civil day is first(day containing now);
// days are counted from the epoch.
func (s Quota) days(first func(day int64) int64) func(int64) float64 {
	offset := s.Offset.Milliseconds()
	return func(nowMillis int64) float64 {
		today := floorDiv(nowMillis+offset, day.Milliseconds())
		return float64(first(today)*day.Milliseconds() - offset)
	}
}

// weekStart is the first day of the week that contains day. Day 0 of the epoch was a Thursday, ISO weekday 4.
func (s Quota) weekStart(day int64) int64 {
	return day - floorMod(day+4-int64(s.WeekStart), 7)
}

func floorDiv(a, b int64) int64 { return (a - floorMod(a, b)) / b }

func floorMod(a, b int64) int64 { return ((a % b) + b) % b }

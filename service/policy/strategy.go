package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// strategy is a rate-limiting rule that policy files can name.
type strategy struct {
	name   string
	fields []string
	// read returns the strategy and how the file spells fields that the core names otherwise.
	read func(s *scope) (throttlekit.Strategy, map[string]string)
}

// strategies are all of them, in the order of the documentation.
var strategies = []strategy{
	{"gcra", []string{"limit", "period", "periodMs", "windowMs", "burst"}, readGCRA},
	{"tokenBucket", []string{"capacity", "refillPerSec"}, readTokenBucket},
	{"fixedWindow", []string{"limit", "period", "windowMs"}, readFixedWindow},
	{"slidingWindow", []string{"limit", "period", "windowMs", "buckets"}, readSlidingWindow},
	{"slidingWindowLog", []string{"limit", "period", "windowMs"}, readSlidingWindowLog},
	{"quota", []string{
		"limit", "resetCadence", "period", "periodMs", "anchor", "offsetMinutes", "weekStartsOn", "buckets",
	}, readQuota},
}

func strategyNames() []string {
	names := make([]string, len(strategies))
	for i, s := range strategies {
		names[i] = s.name
	}
	return names
}

// strategyFields are the fields of all strategies.
func strategyFields() []string {
	var all []string
	for _, s := range strategies {
		all = append(all, s.fields...)
	}
	return distinct(all)
}

// readStrategy reads the strategy of a policy. If none of ours is given, every field of
// a strategy counts as known.
func readStrategy(s *scope) (rule throttlekit.Rule, ok bool) {
	name, ok := s.choice("strategy", strategyNames())
	if !ok {
		s.require("strategy", "must be given: "+oneOf(strategyNames()))
		s.asked = append(s.asked, strategyFields()...)
		return nil, false
	}
	i := slices.IndexFunc(strategies, func(known strategy) bool { return known.name == name })
	s.explain = func(field string) string {
		if !slices.Contains(strategyFields(), field) {
			return ""
		}
		return fmt.Sprintf("is not a field of strategy %s, which has %s", name, allOf(strategies[i].fields))
	}
	made, spelled := strategies[i].read(s)
	return s.judge(made, spelled)
}

// needed reads a required number. Its range is the core's business.
func (s *scope) needed(field string) float64 {
	x, ok := s.number(field)
	if !ok {
		s.require(field, "must be given")
	}
	return x
}

// window reads a duration, such as the width of a window, from the first of fields that is
// there, and returns which one that is; fields that end in Ms are numbers of milliseconds.
// Several may be there if they say the same: the reference takes the first and ignores the
// others, which hides a mistake.
func (s *scope) window(required bool, fields ...string) (width time.Duration, from string) {
	for _, field := range fields {
		if s.get(field) == nil {
			continue
		}
		read := s.millis
		if !strings.HasSuffix(field, "Ms") {
			read = s.duration
		}
		d, ok := read(field)
		switch {
		case from == "":
			width, from = d, field
		case ok && !s.wrong[from] && d != width:
			s.fail(field, s.get(field), fmt.Sprintf("must be the same as %s, which is %s", from, millis(width)), "give only one of them")
		}
	}
	if from == "" {
		from = fields[0]
		if required {
			s.require(from, "must be given, or "+oneOf(fields[1:]))
		}
	}
	return width, from
}

func readGCRA(s *scope) (throttlekit.Strategy, map[string]string) {
	g := throttlekit.GCRA{Limit: s.needed("limit")}
	var from string
	g.Period, from = s.window(true, "period", "periodMs", "windowMs")
	if burst, ok := s.number("burst"); ok {
		if g.Burst = burst; burst == 0 { // which would mean the limit to the core
			s.fail("burst", s.get("burst"), "must be a finite number >= 1", "")
		}
	}
	return g, map[string]string{"period": from}
}

func readTokenBucket(s *scope) (throttlekit.Strategy, map[string]string) {
	return throttlekit.TokenBucket{Capacity: s.needed("capacity"), RefillPerSec: s.needed("refillPerSec")}, nil
}

func readFixedWindow(s *scope) (throttlekit.Strategy, map[string]string) {
	limit := s.needed("limit")
	width, from := s.window(true, "period", "windowMs")
	return throttlekit.FixedWindow{Limit: limit, Window: width}, map[string]string{"window": from}
}

func readSlidingWindow(s *scope) (throttlekit.Strategy, map[string]string) {
	limit := s.needed("limit")
	width, from := s.window(true, "period", "windowMs")
	return throttlekit.SlidingWindow{Limit: limit, Window: width, Buckets: s.buckets()}, map[string]string{"window": from}
}

func readSlidingWindowLog(s *scope) (throttlekit.Strategy, map[string]string) {
	limit := s.needed("limit")
	width, from := s.window(true, "period", "windowMs")
	return throttlekit.SlidingWindowLog{Limit: limit, Window: width}, map[string]string{"window": from}
}

// buckets reads the number of sub-windows. Zero stands for the core's default, so it is
// refused here when the file says it.
func (s *scope) buckets() int {
	n, _ := s.integer("buckets", 1, 100_000)
	return int(n)
}

func readQuota(s *scope) (throttlekit.Strategy, map[string]string) {
	cadences := make([]string, 0, len(throttlekit.Cadences()))
	for _, c := range throttlekit.Cadences() {
		cadences = append(cadences, string(c))
	}
	q := throttlekit.Quota{Limit: s.needed("limit")}
	cadence, ok := s.choice("resetCadence", cadences)
	if !ok {
		s.require("resetCadence", "must be given: "+oneOf(cadences))
	}
	q.Cadence = throttlekit.Cadence(cadence)
	var from string
	q.Period, from = s.window(q.Cadence == throttlekit.Fixed || q.Cadence == throttlekit.Rolling, "period", "periodMs")
	q.Anchor, _ = s.integer("anchor", -throttlekit.MaxSafe, throttlekit.MaxSafe)
	offset, _ := s.integer("offsetMinutes", -840, 840)
	q.Offset = time.Duration(offset) * time.Minute
	if first, ok := s.integer("weekStartsOn", 0, 6); ok {
		q.WeekStart = isoWeekday(first)
	}
	q.Buckets = s.buckets()
	return q, map[string]string{"period": from, "offset": "offsetMinutes", "weekStart": "weekStartsOn"}
}

// isoWeekday turns a weekday counted from Sunday, 0, into an ISO one, where Sunday is 7.
func isoWeekday(day int64) int {
	if day == 0 {
		return 7
	}
	return int(day)
}

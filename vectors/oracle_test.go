package vectors_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// The oracles of these tests are slow and obvious: they keep every check that was ever
// admitted and count anew each time, from the text of the specification and without
// a line of the core's.

// oracle decides one check after another.
type oracle interface {
	check(now int64, cost float64) throttlekit.Decision
}

// machine runs a rule as a store does: on one record, which reads as fresh when its time to live is over.
type machine struct {
	rule    throttlekit.Rule
	rec     throttlekit.Record
	expires int64
}

func newMachine(tb testing.TB, s throttlekit.Strategy) *machine {
	tb.Helper()
	rule, err := s.Rule()
	if err != nil {
		tb.Fatal(err)
	}
	return &machine{rule: rule}
}

func (m *machine) check(now int64, cost float64) throttlekit.Decision {
	rec := m.rec
	if m.expires <= now {
		rec = throttlekit.Record{}
	}
	next, d, ttl := m.rule.Apply(rec, now, cost)
	if ttl > 0 {
		m.rec, m.expires = next, now+ttl
	}
	return d
}

// walk is a random timeline around start. Its times mostly advance by up to longest;
// with backward they also step back, by up to three times as much.
type walk struct {
	*rand.Rand

	now, longest int64
	backward     bool
	costs        []float64
}

func newWalk(seed uint64, start, longest int64, backward bool, costs ...float64) *walk {
	return &walk{rand.New(rand.NewPCG(seed, 7)), start, longest, backward, costs}
}

func (w *walk) next() (now int64, cost float64) {
	switch n := w.IntN(16); {
	case n < 5:
		w.now += w.Int64N(w.longest/10 + 1)
	case n < 10:
		w.now += w.Int64N(w.longest + 1)
	case n == 10:
		w.now += w.Int64N(5*w.longest + 1)
	case n == 11 && w.backward:
		w.now = max(0, w.now-w.Int64N(3*w.longest+1))
	}
	return w.now, w.costs[w.IntN(len(w.costs))]
}

// contest is a strategy and the oracle that it is to agree with.
type contest struct {
	strategy throttlekit.Strategy
	oracle   func() oracle
	start    int64
	longest  int64
}

// compete runs random timelines through strategy and oracle, every other one with steps back.
func compete(t *testing.T, timelines uint64, contests []contest, costs ...float64) {
	t.Helper()
	const steps = 80
	for _, c := range contests {
		t.Run(fmt.Sprintf("%T%+v", c.strategy, c.strategy), func(t *testing.T) {
			t.Parallel()
			for seed := range timelines {
				w := newWalk(seed, c.start, c.longest, seed%2 == 1, costs...)
				m, o := newMachine(t, c.strategy), c.oracle()
				for i := range steps {
					now, cost := w.next()
					if got, want := m.check(now, cost), o.check(now, cost); got != want {
						t.Fatalf("timeline %d, check %d, cost %g at %d: %+v, want %+v", seed, i, cost, now, got, want)
					}
				}
			}
		})
	}
}

// windowOracle counts in windows that a function of the time tells. Windows only roll
// forward: a check that comes with an earlier time counts in the newest window reached.
type windowOracle struct {
	limit    float64
	window   func(now int64) (start, end int64)
	admitted []windowUnits
}

type windowUnits struct {
	start, end int64
	cost       float64
}

func (o *windowOracle) check(now int64, cost float64) throttlekit.Decision {
	start, end := o.window(now)
	for _, a := range o.admitted {
		if a.start > start {
			start, end = a.start, a.end
		}
	}
	used := 0.0
	for _, a := range o.admitted {
		if a.start == start {
			used += a.cost
		}
	}
	d := throttlekit.Decision{Limit: int64(o.limit), ResetAtMillis: end}
	if used+cost <= o.limit {
		o.admitted = append(o.admitted, windowUnits{start, end, cost})
		d.Allowed = true
		used += cost
	} else {
		d.RetryAfterMillis = end - now
	}
	d.Remaining = int64(math.Floor(o.limit - used))
	return d
}

const (
	dayMillis  = 86_400_000
	hourMillis = 3_600_000
)

// period gives windows of one width, one of which begins at anchor.
func period(anchor, width int64) func(int64) (int64, int64) {
	return func(now int64) (int64, int64) {
		start := anchor
		if now >= anchor {
			start += (now - anchor) / width * width
		} else {
			start -= (anchor - now + width - 1) / width * width
		}
		return start, start + width
	}
}

// week gives calendar weeks. 1970-01-01 was a Thursday, so the first Sunday was the 4th.
func week(weekday, offsetMinutes int64) func(int64) (int64, int64) {
	const firstSunday = 3 * dayMillis
	return period(firstSunday+weekday*dayMillis-offsetMinutes*60_000, 7*dayMillis)
}

// month gives calendar months by counting them off from 1969-12-01.
func month(offsetMinutes int64) func(int64) (int64, int64) {
	return func(now int64) (int64, int64) {
		local := now + offsetMinutes*60_000
		start, year, m := int64(-31*dayMillis), 1969, 12
		for {
			days := []int64{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[m-1]
			if leap := year%4 == 0 && (year%100 != 0 || year%400 == 0); leap && m == 2 {
				days++
			}
			end := start + days*dayMillis
			if local < end {
				return start - offsetMinutes*60_000, end - offsetMinutes*60_000
			}
			start = end
			if m++; m > 12 {
				year, m = year+1, 1
			}
		}
	}
}

func TestFixedWindowAgainstOracle(t *testing.T) {
	t.Parallel()
	var contests []contest
	for _, c := range []struct {
		limit         float64
		width, start  int64
		longestInSpan int64
	}{
		{5, 1000, 0, 400},
		{1, 7, 1_700_000_000_003, 5},
		{30, 60_000, 1_700_000_000_000, 9000},
		{12, 36 * hourMillis, 1_700_000_000_000, 7 * hourMillis},
		{2.5, 1000, 999, 300},
	} {
		contests = append(contests, contest{
			strategy: throttlekit.FixedWindow{Limit: c.limit, Window: time.Duration(c.width) * time.Millisecond},
			oracle:   func() oracle { return &windowOracle{limit: c.limit, window: period(0, c.width)} },
			start:    c.start, longest: c.longestInSpan,
		})
	}
	compete(t, 60, contests, 1, 1, 2, 3, 0.25, 7, 40)
}

func TestQuotaAgainstOracle(t *testing.T) {
	t.Parallel()
	q := func(cadence throttlekit.Cadence, weekStart int, offsetMinutes int64) throttlekit.Quota {
		return throttlekit.Quota{
			Limit: 20, Cadence: cadence, WeekStart: weekStart, Offset: time.Duration(offsetMinutes) * time.Minute,
		}
	}
	fixed := func(anchor, width int64) throttlekit.Quota {
		return throttlekit.Quota{Limit: 20, Cadence: throttlekit.Fixed, Anchor: anchor, Period: time.Duration(width) * time.Millisecond}
	}
	var contests []contest
	add := func(s throttlekit.Quota, window func(int64) (int64, int64), longest int64, starts ...int64) {
		for _, start := range starts {
			contests = append(contests, contest{
				strategy: s, start: start, longest: longest,
				oracle: func() oracle { return &windowOracle{limit: 20, window: window} },
			})
		}
	}
	const feb2024, feb2100 = 1_709_000_000_000, 4_107_000_000_000
	for _, offset := range []int64{0, 330, -300, 840, -840} {
		add(q(throttlekit.CalendarMonth, 0, offset), month(offset), 5*dayMillis, 0, feb2024, feb2100)
		add(q(throttlekit.CalendarDay, 0, offset), period(-offset*60_000, dayMillis), 5*hourMillis, 0, feb2024)
		for weekday := 1; weekday <= 7; weekday++ {
			add(q(throttlekit.CalendarWeek, weekday, offset), week(int64(weekday), offset), dayMillis, 0, feb2024)
		}
	}
	add(fixed(0, 90*60_000), period(0, 90*60_000), hourMillis/4, 0, feb2024)
	add(fixed(-250, 1000), period(-250, 1000), 200, 0, feb2024)
	add(fixed(4_000_000_000_003, 7000), period(4_000_000_000_003, 7000), 1500, 0, feb2024, 4_000_000_000_000-20_000)
	compete(t, 8, contests, 1, 2, 3, 0.5, 7, 21)
}

// logOracle keeps the time of every unit that was admitted.
type logOracle struct {
	limit  float64
	window int64
	stamps []int64
}

func (o *logOracle) check(now int64, cost float64) throttlekit.Decision {
	var live []int64
	for _, s := range o.stamps {
		if s > now-o.window {
			live = append(live, s)
		}
	}
	units := int(math.Ceil(cost))
	left := func(used int) int64 { return int64(o.limit - float64(used)) }
	if float64(len(live)+units) <= o.limit {
		stamp := now // or the newest time seen
		for _, s := range live {
			stamp = max(stamp, s)
		}
		o.stamps = live // what an admitted check finds expired is gone for good
		for range units {
			o.stamps = append(o.stamps, stamp)
		}
		oldest := stamp
		if len(live) > 0 {
			oldest = live[0]
		}
		return yes(int64(o.limit), left(len(live)+units), oldest+o.window)
	}
	if len(live) == 0 {
		return no(int64(o.limit), left(0), now+o.window, o.window)
	}
	must := len(live) + units - int(math.Floor(o.limit)) // stamps that must leave
	must = min(len(live), max(1, must))
	return no(int64(o.limit), left(len(live)), live[0]+o.window, max(1, live[must-1]+o.window-now))
}

func TestSlidingWindowLogAgainstOracle(t *testing.T) {
	t.Parallel()
	var contests []contest
	for _, c := range []struct {
		limit                  float64
		window, start, longest int64
	}{
		{5, 1000, 0, 400}, {1, 7, 1_700_000_000_003, 5}, {60, 60_000, 1_700_000_000_000, 4000}, {3, dayMillis, 1_700_000_000_000, dayMillis / 2},
	} {
		contests = append(contests, contest{
			strategy: throttlekit.SlidingWindowLog{Limit: c.limit, Window: time.Duration(c.window) * time.Millisecond},
			oracle:   func() oracle { return &logOracle{limit: c.limit, window: c.window} },
			start:    c.start, longest: c.longest,
		})
	}
	compete(t, 60, contests, 1, 1, 1, 2, 3, 0.25, 5, 7.5, 61)
}

package pgstore_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
)

// The database's forms of three strategies are second forms of what the core decides.
// Here both run the same random timelines, and everything must be equal: each field of
// each decision, each stored text and each expiry.

const (
	timelines   = 500 // per strategy
	perTimeline = 50
)

// random is a source of timelines. Its seed is fixed, so that a failure can be repeated.
type random struct{ *rand.Rand }

func (r random) pick(values ...float64) float64 { return values[r.IntN(len(values))] }

// magnitude is a number between 10^low and 10^high, evenly by its logarithm.
func (r random) magnitude(low, high float64) float64 {
	return math.Pow(10, low+r.Float64()*(high-low))
}

func (r random) period() time.Duration {
	if r.IntN(3) == 0 {
		return time.Duration(r.magnitude(3, 13)) // down to fractions of a millisecond
	}
	return time.Duration(r.pick(1, 3, 7, 10, 60, 333, 1000, 3600)) * time.Duration(r.pick(float64(time.Millisecond), float64(time.Second)))
}

func (r random) limit() float64 {
	switch r.IntN(4) {
	case 0:
		return r.magnitude(-2, 4)
	case 1:
		return r.pick(1, 2, 2.5, 3, 7, 1.0/3)
	default:
		return float64(1 + r.IntN(200))
	}
}

func (r random) cost(limit float64) float64 {
	switch r.IntN(6) {
	case 0:
		return limit * r.Float64() // a fraction
	case 1:
		return r.pick(0.1, 0.5, 1e-6, 1e-12, 2.5)
	case 2:
		return limit
	default:
		return float64(1 + r.IntN(4))
	}
}

// clock makes the next instant: often the same one, sometimes an earlier one.
func (r random) clock(now int64, span float64) int64 {
	switch r.IntN(8) {
	case 0, 1:
		return now
	case 2:
		return max(1, now-int64(r.Float64()*span*2))
	case 3:
		return now + int64(r.Float64()*span*3)
	default:
		return now + int64(r.Float64()*span/4)
	}
}

func TestFormsAreOne(t *testing.T) {
	t.Parallel()
	strategies := map[string]func(r random) (throttlekit.Strategy, float64, float64){
		"gcra": func(r random) (throttlekit.Strategy, float64, float64) {
			s := throttlekit.GCRA{Limit: r.limit(), Period: r.period(), Burst: r.pick(0, 1, 2, 5.5, 20, 100)}
			if s.Burst == 0 && s.Limit < 1 {
				s.Burst = 1
			}
			return s, max(s.Limit, s.Burst), float64(s.Period) / 1e6
		},
		"tokenBucket": func(r random) (throttlekit.Strategy, float64, float64) {
			s := throttlekit.TokenBucket{Capacity: r.limit(), RefillPerSec: r.magnitude(-4, 4)}
			if r.IntN(2) == 0 {
				s.RefillPerSec = r.pick(1, 3.5, 10, 100, 1.0/3)
			}
			return s, s.Capacity, s.Capacity / s.RefillPerSec * 1000
		},
		"fixedWindow": func(r random) (throttlekit.Strategy, float64, float64) {
			s := throttlekit.FixedWindow{Limit: r.limit(), Window: r.period()}
			return s, s.Limit, float64(s.Window) / 1e6
		},
	}
	pool := newPool(t, server)
	for name, build := range strategies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t, pool, pgstore.Config{Table: "dual_" + name, SweepInterval: -1})
			if err := store.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := random{rand.New(rand.NewPCG(1, 2))}
			var totals dualTotals
			for i := range timelines {
				strategy, limit, span := build(r)
				line := timeline{rule: rule(t, strategy), key: fmt.Sprint("k", i), table: "dual_" + name}
				now := int64(r.pick(1, 1.7e12, 1.7e12+1, 1_795_000_000_123, 4e12))
				for range perTimeline {
					now = r.clock(now, min(span, 1e12))
					line.steps = append(line.steps, step{now: now, cost: r.cost(limit)})
				}
				line.run(t, pool, store, &totals)
			}
			t.Logf("%d checks: %d allowed, %d denied, %d left to the core", totals.checks, totals.allowed, totals.denied, totals.left)
			if totals.checks < 20_000 || totals.left > totals.checks/100 || totals.allowed < totals.checks/10 || totals.denied < totals.checks/10 {
				t.Error("this is no fair test")
			}
		})
	}
}

type dualTotals struct{ checks, allowed, denied, left int }

type step struct {
	now  int64
	cost float64
}

type timeline struct {
	rule       throttlekit.Rule
	key, table string
	steps      []step
}

// seen is what the database did at one step.
type seen struct {
	reply   string
	state   *string
	expires *int64
}

// run sends the whole timeline at once and compares it with the core.
func (l timeline) run(t *testing.T, pool *pgxpool.Pool, store *pgstore.Store, totals *dualTotals) {
	t.Helper()
	var batch pgx.Batch
	results := make([]seen, len(l.steps))
	for i, s := range l.steps {
		sql, args, ok := store.Statement(l.rule, l.key, s.now, s.cost)
		if !ok {
			t.Fatalf("%+v is not recognized", l.rule.Strategy())
		}
		batch.Queue(sql, args...).QueryRow(func(row pgx.Row) error { return row.Scan(&results[i].reply) })
		batch.Queue(`SELECT max(state), max(expires_at) FROM `+l.table+` WHERE key = $1`, l.key).
			QueryRow(func(row pgx.Row) error { return row.Scan(&results[i].state, &results[i].expires) })
	}
	if err := pool.SendBatch(t.Context(), &batch).Close(); err != nil {
		t.Fatalf("%+v: %v", l.rule.Strategy(), err)
	}
	var rec throttlekit.Record
	var text string
	var expires int64
	for i, s := range l.steps {
		live := rec
		if expires <= s.now { // until the clock steps back, anyway
			live = throttlekit.Record{}
		}
		next, want, ttl := l.rule.Apply(live, s.now, s.cost)
		got, left, err := pgstore.Decide(results[i].reply, l.rule, s.cost)
		if err != nil {
			t.Fatalf("%+v step %d: %v", l.rule.Strategy(), i, err)
		}
		totals.checks++
		if left {
			totals.left++
		} else {
			if got != want {
				t.Fatalf("%+v step %d %+v: the database says %+v, the core %+v", l.rule.Strategy(), i, s, got, want)
			}
			if want.Allowed {
				totals.allowed++
			} else {
				totals.denied++
			}
			if ttl > 0 {
				rec, text, expires = next, encode(t, l.rule, next), min(throttlekit.MaxSafe, s.now+ttl)
			}
		}
		if expires == 0 && results[i].state == nil {
			continue // nothing was ever written
		}
		if results[i].state == nil || *results[i].state != text || *results[i].expires != expires {
			t.Fatalf("%+v step %d %+v: stored %s until %d, the core has %s until %d", l.rule.Strategy(), i, s,
				deref(results[i].state), deref(results[i].expires), text, expires)
		}
	}
}

func encode(tb testing.TB, transition throttlekit.Transition, rec throttlekit.Record) string {
	tb.Helper()
	text, err := transition.Encode(rec)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func deref[T any](p *T) any {
	if p == nil {
		return "nothing"
	}
	return *p
}

// TestNumbersAreWrittenAlike compares PostgreSQL's text of numbers, as corrected, with
// the core's, over the whole range that functions write.
func TestNumbersAreWrittenAlike(t *testing.T) {
	t.Parallel()
	pool := newPool(t, server)
	r := random{rand.New(rand.NewPCG(3, 4))}
	numbers := []float64{
		0, 1, 0.1, 0.5, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 5e-324, 2.2250738585072014e-308,
		999999999999999, 123456789012345.67, 1700000000000.25,
	}
	for _, edge := range []float64{1e-4, 1e-5, 1e-6, 1e-7, 1e-9, 1e-10, 1e15} {
		numbers = append(numbers, math.Nextafter(edge, 0))
		if edge < 1 {
			numbers = append(numbers, math.Nextafter(edge, 1))
		}
	}
	for range 20_000 {
		numbers = append(numbers,
			r.magnitude(-320, 15), r.magnitude(-12, 0), r.magnitude(0, 15),
			math.Round(r.magnitude(0, 15)), 1.7e12+r.Float64()*1e11, float64(r.IntN(1000))*r.pick(0.1, 0.001, 1.0/3),
			-r.magnitude(-12, 15))
	}
	rows, err := pool.Query(t.Context(), `SELECT v, `+pgstore.NumberSQL("v")+` FROM unnest($1::float8[]) AS v`, numbers)
	if err != nil {
		t.Fatal(err)
	}
	var v float64
	var text string
	checked := 0
	if _, err := pgx.ForEachRow(rows, []any{&v, &text}, func() error {
		want, err := json.Marshal(v)
		if string(want) != text {
			t.Errorf("%g is written %s, want %s", v, text, want)
		}
		checked++
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d numbers", checked)
}

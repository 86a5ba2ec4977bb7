package budget_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
)

// someBudget has one to three levels of one to three windows, calendar ones among them.
func someBudget(r *rand.Rand) *budget.Budget {
	var b *budget.Budget
	for level := range 1 + r.IntN(3) {
		next := &budget.Budget{Name: fmt.Sprint("level", level), Parent: b}
		limits := r.Perm(60)
		for i := range 1 + r.IntN(3) {
			w := budget.Window{Name: fmt.Sprint("w", i), Limit: float64(5 + 3*limits[i])}
			switch r.IntN(5) {
			case 0:
				w.Cadence, w.Zone = throttlekit.CalendarDay, "America/New_York"
			case 1:
				w.Cadence, w.Zone, w.WeekStart = throttlekit.CalendarWeek, "Asia/Kathmandu", 1+r.IntN(7)
			case 2:
				w.Width = time.Duration(1+r.IntN(72)) * time.Hour
			case 3:
				w.Width = time.Duration(1+r.IntN(5000))*time.Second + 1500*time.Microsecond
			default:
				w.Width = time.Duration(1+r.IntN(100)) * time.Minute
			}
			next.Windows = append(next.Windows, w)
		}
		if r.IntN(2) == 0 {
			next.ParentKey = func(key string) string { return key[:min(1, len(key))] }
		}
		b = next
	}
	return b
}

// tick moves a clock irregularly, sometimes back if it may.
func tick(r *rand.Rand, now int64, back bool) int64 {
	switch r.IntN(14) {
	case 0:
		return now + r.Int64N(72*3_600_000)
	case 1:
		return now + r.Int64N(4*24*3_600_000)
	case 2:
		if !back {
			return now + r.Int64N(20*60_000)
		}
		return max(1, now-r.Int64N(5*24*3_600_000))
	case 3, 4:
		return now + r.Int64N(120_000)
	case 5:
		return now + r.Int64N(3_600_000)
	default:
		return now + r.Int64N(3)
	}
}

// TestPlacesAgree runs random timelines of everything that a ledger and a meter can do through accounts in
// the process, on a store of values and on a store of text: every answer must be the same.
func TestPlacesAgree(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for n := range uint64(300) {
		r := rand.New(rand.NewPCG(7, n))
		clock := throttlekit.NewManualClock(1_700_000_000_000 + r.Int64N(4e10))
		b := someBudget(r)
		type one struct {
			name   string
			ledger *budget.Ledger
			leases []*budget.Lease
		}
		var all []*one
		for name, config := range places(t, b, clock) {
			l := ledger(t, budget.LedgerConfig{
				Config: config, TTL: 20 * time.Minute, MaxInFlight: 4,
				Learning: budget.PredictiveConfig{LearnedConfig: budget.LearnedConfig{Max: 60}},
			})
			all = append(all, &one{name: name, ledger: l})
		}
		history := ""
		for range 60 {
			op, tokens, key := r.IntN(8), 1+r.Int64N(20), []string{"a1", "a2", "b1"}[r.IntN(3)]
			hint, pick, more := r.Float64()*50, r.IntN(1<<20), r.Int64N(30)
			var answers []string
			for _, o := range all {
				var answer any
				var err error
				var lease *budget.Lease
				if len(o.leases) > 0 {
					lease = o.leases[pick%len(o.leases)]
				}
				switch {
				case op <= 1 || lease == nil:
					lease, err = o.ledger.Admit(t.Context(), budget.Request{Key: key, Input: tokens, Hint: hint, MaxOutput: more})
					if err == nil {
						answer = fmt.Sprint("admit ", lease.Verdict(), lease.MaxOutput())
						if lease.Verdict().Allowed {
							o.leases = append(o.leases, lease)
						}
					}
				case op <= 4:
					answer, err = lease.Debit(t.Context(), tokens)
				case op == 5:
					answer, err = lease.Settle(t.Context(), budget.Usage{Input: more, Output: tokens})
				case op == 6:
					answer, err = lease.Renew(t.Context())
				default:
					answer, err = o.ledger.InFlight(t.Context(), key)
				}
				peek, peekErr := o.ledger.Peek(t.Context(), key)
				answers = append(answers, fmt.Sprintf("%+v %v | %+v %v", answer, err, peek, peekErr))
				if o == all[0] {
					counts[fmt.Sprint(op, " ", err)]++
				}
			}
			history += fmt.Sprintf("\n%d: op %d, %d tokens, key %s, %s", clock.NowMillis(), op, tokens, key, answers[0])
			for i := range answers {
				if answers[i] != answers[0] {
					t.Fatalf("timeline %d: %s says %s\n%s says %s, after%s", n, all[i].name, answers[i], all[0].name, answers[0], history)
				}
			}
			clock.Set(tick(r, clock.NowMillis(), false))
		}
	}
	t.Log(counts)
}

// TestMetersAgree does the same for meters, whose clock may also step back. A memory store drops
// what has ended from time to time, after which it knows nothing of the time that it had reached.
func TestMetersAgree(t *testing.T) {
	t.Parallel()
	allowed := map[bool]int{}
	for n := range uint64(300) {
		r := rand.New(rand.NewPCG(9, n))
		clock := throttlekit.NewManualClock(1_700_000_000_000 + r.Int64N(4e10))
		var names []string
		var meters []*budget.Meter
		all := places(t, someBudget(r), clock)
		delete(all, "memory")
		for name, config := range all {
			names, meters = append(names, name), append(meters, meter(t, config))
		}
		history := ""
		for range 60 {
			tokens, key, peek := 1+r.Int64N(20), []string{"a1", "a2", "b1"}[r.IntN(3)], r.IntN(4) == 0
			var first budget.Verdict
			for i, m := range meters {
				v, err := m.DebitExplained(t.Context(), key, tokens)
				if peek {
					v, err = m.Peek(t.Context(), key)
				}
				if i == 0 {
					first = v
					allowed[v.Allowed]++
					history += fmt.Sprintf("\n%d: %d tokens, key %s, peek %v, %+v", clock.NowMillis(), tokens, key, peek, v)
				}
				if v != first || err != nil || v.Level == "" || v.Window == "" {
					t.Fatalf("timeline %d: %s says %+v %v, %s says %+v, after%s", n, names[i], v, err, names[0], first, history)
				}
			}
			clock.Set(tick(r, clock.NowMillis(), true))
		}
	}
	if min(allowed[true], allowed[false]) < 3000 {
		t.Errorf("this is no fair test: %v", allowed)
	}
}

// TestOracle holds one window to a slow and obvious model.
func TestOracle(t *testing.T) {
	t.Parallel()
	for n := range uint64(200) {
		r := rand.New(rand.NewPCG(8, n))
		limit, width := int64(1+r.IntN(30)), int64(1+r.IntN(5000))
		clock := throttlekit.NewManualClock(r.Int64N(1e12))
		m := meter(t, budget.Config{
			Clock: clock, Budget: &budget.Budget{Windows: []budget.Window{{Limit: float64(limit), Width: time.Duration(width) * time.Millisecond}}},
		})
		start, served := int64(-1<<60), int64(0)
		for range 200 {
			now, tokens := clock.NowMillis(), 1+r.Int64N(8)
			if now >= start+width {
				start, served = now/width*width, 0
			}
			want := throttlekit.Decision{Limit: limit, ResetAtMillis: start + width}
			if served >= limit {
				want.RetryAfterMillis = start + width - now
			} else {
				served += tokens
				want.Allowed, want.Remaining = true, max(0, limit-served)
			}
			if got := debit(t, m, "k", tokens); got != want {
				t.Fatalf("%d tokens at %d: %+v, want %+v", tokens, now, got, want)
			}
			switch r.IntN(6) {
			case 0:
				clock.Set(now + r.Int64N(3*width))
			case 1:
				clock.Set(max(0, now-r.Int64N(3*width)))
			default:
				clock.Set(now + r.Int64N(3))
			}
		}
	}
}

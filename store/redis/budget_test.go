package redisstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// someBudget has one to three levels of one to three windows, calendar ones among them.
func someBudget(r *pick) *budget.Budget {
	var b *budget.Budget
	for level := range 1 + r.IntN(3) {
		next := &budget.Budget{Name: fmt.Sprint("level", level), Parent: b}
		limits := r.Perm(60)
		for i := range 1 + r.IntN(3) {
			w := budget.Window{Name: fmt.Sprint("w", i), Limit: float64(5 + 3*limits[i])}
			switch r.IntN(4) {
			case 0:
				w.Cadence, w.Zone = throttlekit.CalendarDay, "America/New_York"
			case 1:
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

// TestBudgetsAgreeWithCore runs random timelines of ledgers through the script and through the
// accounts of a process, which package budget holds to its transitions: every answer must be the same.
func TestBudgetsAgreeWithCore(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	stop := flushAllTheTime(t, server)
	t.Cleanup(stop)
	var steps, allowed atomic.Int64
	inParallel(t, max(20, checks()/100), func(n int) error {
		return runBudget(t, server, rand.New(rand.NewPCG(*seed<<8|210, uint64(n))), n%2 == 0, &steps, &allowed)
	})
	t.Logf("equal in every field: %d answers, of which %d allow", steps.Load(), allowed.Load())
	if a, s := allowed.Load(), steps.Load(); a < s/4 || a > s*9/10 {
		t.Error("this is no fair test")
	}
}

func runBudget(t *testing.T, server *redistest.Server, r *pick, back bool, steps, allowed *atomic.Int64) error {
	t.Helper()
	clock := throttlekit.NewManualClock(1_700_000_000_000 + r.Int64N(4e10))
	store := sharedClientStore(t, server, redisstore.Config{Prefix: freshPrefix(), Clock: clock, TTLFloor: far, Timeout: patient})
	b := someBudget(r)
	configs := [2]budget.Config{{Budget: b, Clock: clock}, {Budget: b, Store: store, Prefix: "b"}}
	var ledgers [2]*budget.Ledger
	var meters [2]*budget.Meter
	for i, config := range configs {
		var err error
		if ledgers[i], err = budget.NewLedger(budget.LedgerConfig{
			Config: config, TTL: 20 * time.Minute, MaxInFlight: 4,
			Learning: budget.PredictiveConfig{LearnedConfig: budget.LearnedConfig{Max: 60}},
		}); err != nil {
			return err
		}
		if meters[i], err = budget.NewMeter(config); err != nil {
			return err
		}
	}
	var leases [2][]*budget.Lease
	history := ""
	for range 40 {
		op, tokens, key := r.IntN(8), 1+r.Int64N(20), oneOf(r, "a1", "a2", "b{x}1")
		hint, which, more := r.Float64()*50, r.IntN(1<<20), r.Int64N(30)
		var answers [2]string
		for i, l := range ledgers {
			var answer any
			var err error
			switch {
			case back: // what reserves is only the same on clocks that go forward
				answer, err = meters[i].DebitExplained(t.Context(), key, tokens)
				if op == 0 {
					answer, err = meters[i].Peek(t.Context(), key)
				}
			case op <= 1 || len(leases[i]) == 0:
				var lease *budget.Lease
				lease, err = l.Admit(t.Context(), budget.Request{Key: key, Input: tokens, Hint: hint, MaxOutput: more})
				if err == nil {
					if answer = lease.Verdict(); lease.Verdict().Allowed {
						leases[i] = append(leases[i], lease)
					}
				}
			case op <= 4:
				answer, err = leases[i][which%len(leases[i])].Debit(t.Context(), tokens)
			case op == 5:
				answer, err = leases[i][which%len(leases[i])].Settle(t.Context(), budget.Usage{Input: more, Output: tokens})
			case op == 6:
				answer, err = leases[i][which%len(leases[i])].Renew(t.Context())
			default:
				answer, err = l.InFlight(t.Context(), key)
			}
			if err != nil && !errors.Is(err, throttlekit.ErrClosed) {
				return fmt.Errorf("op %d: %w", op, err)
			}
			if v, ok := answer.(budget.Verdict); ok && i == 0 {
				steps.Add(1)
				if v.Allowed {
					allowed.Add(1)
				}
			}
			answers[i] = fmt.Sprintf("%+v %v", answer, err)
		}
		history += fmt.Sprintf("\n%d: op %d, %d tokens, key %s: %s", clock.NowMillis(), op, tokens, key, answers[0])
		if answers[0] != answers[1] {
			return fmt.Errorf("the script says %s after%s", answers[1], history)
		}
		now := clock.NowMillis()
		if then := step(r, now, time.Duration(1+r.IntN(3_600_000))*time.Millisecond); back || then > now {
			now = then
		}
		clock.Set(now)
	}
	return nil
}

// TestBudgetLayout holds the record of a meter to what other implementations read and write.
func TestBudgetLayout(t *testing.T) {
	t.Parallel()
	conn, prefix := dial(t, shared), freshPrefix()
	clock := throttlekit.NewManualClock(90_000)
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Clock: clock})
	m, err := budget.NewMeter(budget.Config{
		Store: store, Prefix: "p", Budget: &budget.Budget{Windows: []budget.Window{{Limit: 10, Width: time.Minute}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	debit := func(tokens int64, want throttlekit.Decision) {
		t.Helper()
		if got, err := m.Debit(t.Context(), "k", tokens); err != nil || got != want {
			t.Errorf("got %+v, want %+v, error %v", got, want, err)
		}
	}
	holds := func(want string) {
		t.Helper()
		if got := fmt.Sprint(do(t, conn, "HGETALL", prefix+":p:k")); got != want {
			t.Errorf("the hash holds %s, want %s", got, want)
		}
	}
	debit(4, throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 6, ResetAtMillis: 120_000})
	holds("[w 60000 s 4]")
	if ttl, ok := do(t, conn, "PTTL", prefix+":p:k").(int64); !ok || ttl > 30_000 || ttl < 10_000 {
		t.Errorf("it lives for %d ms, want 30,000 at first", ttl)
	}
	debit(9, throttlekit.Decision{Allowed: true, Limit: 10, ResetAtMillis: 120_000})
	debit(1, throttlekit.Decision{Limit: 10, ResetAtMillis: 120_000, RetryAfterMillis: 30_000})
	holds("[w 60000 s 13]")
	do(t, conn, "HSET", prefix+":p:k", "w", "120000", "s", "3") // by another implementation
	clock.Set(130_000)
	debit(2, throttlekit.Decision{Allowed: true, Limit: 10, Remaining: 5, ResetAtMillis: 180_000})
	do(t, conn, "HSET", prefix+":p:k", "s", "many")
	if _, err := m.Debit(t.Context(), "k", 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("a corrupt record: %v", err)
	}
}

// TestManyStreamsOneBudget: whatever the concurrency, what is metered exceeds the budget by at most the last
// debit less one, and with grants not at all.
func TestManyStreamsOneBudget(t *testing.T) {
	t.Parallel()
	const streams, limit = 500, 20_000
	for _, chunk := range []int64{1, 17} {
		for _, granted := range []bool{false, true} {
			t.Run(fmt.Sprint(chunk, " granted ", granted), func(t *testing.T) {
				t.Parallel()
				const processes = 4
				type debiter = func(string, int64) (throttlekit.Decision, error)
				var debits [processes]debiter
				prefix := freshPrefix()
				for i := range debits {
					store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, Timeout: patient})
					m, err := budget.NewMeter(budget.Config{Store: store, Budget: &budget.Budget{Windows: []budget.Window{
						{Limit: limit, Width: 24 * 366 * time.Hour}, {Limit: limit * 2, Width: 24 * 365 * 20 * time.Hour},
					}}})
					if err != nil {
						t.Fatal(err)
					}
					debits[i] = func(key string, n int64) (throttlekit.Decision, error) { return m.Debit(t.Context(), key, n) }
					if granted {
						g, err := budget.NewGranted(budget.GrantedConfig{Meter: m, Batch: 256})
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() { _ = g.Close(t.Context()) })
						debits[i] = func(key string, n int64) (throttlekit.Decision, error) { return g.Debit(t.Context(), key, n) }
					}
				}
				var metered atomic.Int64
				var streaming sync.WaitGroup
				for i := range streams {
					streaming.Go(func() {
						for {
							d, err := debits[i%processes]("k", chunk)
							if err != nil {
								t.Error(err)
								return
							}
							if !d.Allowed {
								return
							}
							metered.Add(chunk)
						}
					})
				}
				streaming.Wait()
				most, least := int64(limit)+chunk-1, int64(limit)
				if granted { // each process may be left with less than a chunk, which no stream can use
					most, least = limit, limit-processes*2*(chunk-1)
				}
				if n := metered.Load(); n > most || n < least {
					t.Errorf("%d tokens were metered of %d", n, limit)
				}
			})
		}
	}
}

// TestStreamsOfALedger: the same for leases, which all end with nothing held.
func TestStreamsOfALedger(t *testing.T) {
	t.Parallel()
	const streams, limit, input = 500, 20_000, 5
	store := open(t, shared.URL(), redisstore.Config{Prefix: freshPrefix(), Timeout: patient})
	l, err := budget.NewLedger(budget.LedgerConfig{
		Config: budget.Config{Store: store, Budget: &budget.Budget{
			Windows: []budget.Window{{Limit: limit, Width: 24 * 366 * time.Hour}},
			Parent:  &budget.Budget{Name: "all", Windows: []budget.Window{{Limit: limit * 2, Width: 24 * 366 * time.Hour}}},
		}},
		Learning: budget.PredictiveConfig{LearnedConfig: budget.LearnedConfig{Max: 100}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var streaming sync.WaitGroup
	for i := range streams {
		streaming.Go(func() {
			for round := range 4 {
				lease, err := l.Admit(t.Context(), budget.Request{Key: "k", Input: input})
				if err != nil {
					t.Error(err)
					return
				}
				for range (i + round) % 8 {
					if v, err := lease.Debit(t.Context(), 17); err != nil && !errors.Is(err, throttlekit.ErrClosed) || !v.Allowed {
						break
					}
				}
				if err := lease.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	streaming.Wait()
	stats := l.Stats()
	if stats.Metered > limit+16 || stats.Admitted == 0 || stats.Admitted+stats.Refused != 4*streams {
		t.Errorf("%d tokens were metered of %d: %+v", stats.Metered, limit, stats)
	}
	if f, err := l.InFlight(t.Context(), "k"); err != nil || f != (budget.InFlight{}) {
		t.Errorf("at the end there are %+v, %v", f, err)
	}
	t.Logf("%+v", stats)
}

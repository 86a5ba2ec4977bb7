package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

func ledgerOn(t *testing.T, store throttlekit.Store, limit float64, ttl time.Duration) *budget.Ledger {
	t.Helper()
	l, err := budget.NewLedger(budget.LedgerConfig{
		Config: budget.Config{Store: store, Budget: year(limit)}, TTL: ttl, MaxInFlight: 4000,
		Learning: budget.PredictiveConfig{LearnedConfig: budget.LearnedConfig{Max: 50}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func admitted(t *testing.T, l *budget.Ledger, key string, input int64) *budget.Lease {
	t.Helper()
	lease, err := l.Admit(t.Context(), budget.Request{Key: key, Input: input})
	if err != nil || !lease.Verdict().Allowed {
		t.Fatalf("not admitted: %v", err)
	}
	return lease
}

// usedOf is what the record of a budget of one window has counted.
func usedOf(t *testing.T, conn *redistest.Conn, key string) int64 {
	t.Helper()
	text, _ := do(t, conn, "HGET", key, "s").(string)
	used, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// millisOf is the time on the server's clock.
func millisOf(t *testing.T, conn *redistest.Conn) int64 {
	t.Helper()
	var seconds, micros int64
	pair := do(t, conn, "TIME").([]any)
	if _, err := fmt.Sscan(pair[0].(string)+" "+pair[1].(string), &seconds, &micros); err != nil {
		t.Fatal(err)
	}
	return seconds*1000 + micros/1000
}

// dropped waits until nothing is held for some keys, whose latest signs of life are past, and holds that against the TTL.
func dropped(t *testing.T, conn *redistest.Conn, l *budget.Ledger, ttl time.Duration, keys ...string) {
	t.Helper()
	last := millisOf(t, conn) + ttl.Milliseconds() + 50 // what was sent last may be made last
	for {
		now, held := millisOf(t, conn), budget.InFlight{}
		for _, key := range keys {
			f, err := l.InFlight(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			held.Requests += f.Requests
			held.Expected += f.Expected
		}
		if held == (budget.InFlight{}) {
			return
		}
		if now > last {
			t.Fatalf("%d ms after its TTL there is still %+v", now-last, held)
		}
		wait(t, 20*time.Millisecond)
	}
}

// books are what one key was charged: at least that much, and what calls that were not answered may have added.
type books struct {
	charged, doubt atomic.Int64
	lapsed         atomic.Int64 // leases whose reservation was gone when they were settled
}

func (b *books) check(t *testing.T, name string, used int64) {
	t.Helper()
	if charged, doubt := b.charged.Load(), b.doubt.Load(); used < charged || used > charged+doubt {
		t.Errorf("%s: %d tokens were charged, %d more may be, and the store counts %d", name, charged, doubt, used)
	}
}

// TestEndsAtRandom ends thousands of streams in every way that there is. Once the TTL has passed nothing is held, and
// what is counted is what was charged: to the token where every call was answered, else not less than that.
func TestEndsAtRandom(t *testing.T) {
	t.Parallel()
	ends := 10_000
	if testing.Short() {
		ends = 1000
	}
	const keys, callers, ttl = 16, 32, 2 * time.Second
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
	l := ledgerOn(t, store, 1e9, ttl)
	var all [keys]books
	var names []string
	for i := range keys {
		names = append(names, fmt.Sprint("k", i))
	}
	var counts [numberOfEnds]atomic.Int64
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			r := rand.New(rand.NewPCG(*seed<<8|211, uint64(caller)))
			for n := caller; n < ends; n += callers {
				i := r.IntN(keys)
				how := r.IntN(numberOfEnds)
				counts[how].Add(1)
				if err := endAtRandom(t, l, r, names[i], how, i >= keys/2, &all[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	conn := dial(t, shared)
	dropped(t, conn, l, ttl, names...)
	for i, name := range names {
		all[i].check(t, name, usedOf(t, conn, prefix+":"+name))
		if doubt := all[i].doubt.Load(); doubt > 0 && i < keys/2 {
			t.Errorf("%s: %d tokens are in doubt, and all calls were answered", name, doubt)
		}
	}
	var charged, doubt, lapsed int64
	for i := range all {
		charged, doubt, lapsed = charged+all[i].charged.Load(), doubt+all[i].doubt.Load(), lapsed+all[i].lapsed.Load()
	}
	for how := range counts {
		if n := counts[how].Load(); n < int64(ends)/numberOfEnds/2 {
			t.Errorf("this is no fair test: %d of %d end in way %d", n, ends, how)
		}
	}
	if doubt == 0 {
		t.Error("this is no fair test: no call was canceled while it was under way")
	}
	t.Logf("%d ends, %d tokens charged, %d in doubt, %d lapsed: %+v", ends, charged, doubt, lapsed, l.Stats())
}

// The ways in which a stream ends.
const (
	endByCancel = iota
	endByClose
	endBySettling
	endByPanic
	abandoned
	numberOfEnds
)

// endAtRandom is one stream. If it is rude, its calls are canceled while they are under way.
func endAtRandom(t *testing.T, l *budget.Ledger, r *pick, key string, how int, rude bool, b *books) (err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	input, chunk, pieces := 1+r.Int64N(20), 1+r.Int64N(17), r.IntN(6)
	lease, err := l.Admit(ctx, budget.Request{Key: key, Input: input})
	if err != nil || !lease.Verdict().Allowed {
		return fmt.Errorf("not admitted: %w", err)
	}
	metered, doubt := input, int64(0)
	for piece := range pieces {
		if last := piece == pieces-1; last && rude {
			time.AfterFunc(time.Duration(r.Int64N(int64(2*time.Millisecond))), cancel)
		} else if last && how == endByCancel {
			break
		}
		switch v, err := lease.Debit(ctx, chunk); {
		case errors.Is(err, context.Canceled):
			doubt += chunk
		case err != nil || !v.Allowed:
			return fmt.Errorf("a debit: %+v, %w", v, err)
		default:
			metered += chunk
		}
	}
	switch how {
	case abandoned:
	case endBySettling:
		used := budget.Usage{Input: input, Output: r.Int64N(2*(metered-input) + 1)}
		receipt, err := lease.Settle(t.Context(), used)
		switch {
		case err != nil:
			return fmt.Errorf("settling: %w", err)
		case receipt.Lapsed:
			b.lapsed.Add(1)
		default: // what is unknown is put right, unless it comes later yet
			metered = receipt.Reported
		}
	case endByPanic:
		defer func() {
			if what := recover(); what != key {
				err = fmt.Errorf("recovered %v", what)
			}
			b.charged.Add(metered)
			b.doubt.Add(doubt)
		}()
		defer func() { err = lease.Close() }()
		panic(key)
	default:
		cancel()
		if err := lease.Close(); err != nil {
			return fmt.Errorf("closing: %w", err)
		}
	}
	b.charged.Add(metered)
	b.doubt.Add(doubt)
	return nil
}

// TestFrozenUnderStreams freezes the server for longer than calls last and shorter reservations do: calls end at their
// deadline, and in the end the books agree.
func TestFrozenUnderStreams(t *testing.T) {
	t.Parallel()
	const streams, chunk, input, ttl = 12, 17, 5, time.Second
	server := start(t, redistest.Options{})
	prefix := freshPrefix()
	store := open(t, server.URL(), redisstore.Config{Prefix: prefix, Timeout: usualDeadline})
	recovers(t, func() error { return second(store.Apply(t.Context(), "warm", ruleOf(t, yearly(5)), 1)) })
	ledgers := []*budget.Ledger{ledgerOn(t, store, 1e9, time.Hour), ledgerOn(t, store, 1e9, ttl)} // one is patient, the other is not
	names := []string{"settled", "abandoned"}
	var leases [streams]*budget.Lease
	var each [streams]books
	for i := range leases {
		recovers(t, func() (err error) {
			leases[i], err = ledgers[i%2].Admit(t.Context(), budget.Request{Key: names[i%2], Input: input})
			return err
		})
	}
	crowd := gather(t, streams, 5*time.Millisecond, func(i int) (throttlekit.Decision, error) {
		v, err := leases[i].Debit(t.Context(), chunk)
		if err != nil {
			each[i].doubt.Add(chunk)
		} else if v.Allowed {
			each[i].charged.Add(chunk)
		}
		return v.Decision, err
	})
	wait(t, 200*time.Millisecond)
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	wait(t, ttl+500*time.Millisecond)
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	recovers(t, func() error { return second(ledgers[0].Peek(t.Context(), names[0])) })
	wait(t, 300*time.Millisecond)
	crowd.leave()
	crowd.check(t, usualDeadline)
	if crowd.failed.Load() == 0 || crowd.denied.Load() > 0 {
		t.Errorf("%d failed, %d denied", crowd.failed.Load(), crowd.denied.Load())
	}
	var total [2]books
	for i, lease := range leases {
		metered := input + each[i].charged.Load()
		total[i%2].charged.Add(metered)
		if i%2 == 1 {
			total[1].doubt.Add(each[i].doubt.Load())
			if lease.Stands() {
				t.Errorf("stream %d: its reservation went while the server stood still", i)
			}
			continue
		}
		var receipt budget.Receipt
		recovers(t, func() (err error) {
			receipt, err = lease.Settle(t.Context(), budget.Usage{Input: input, Output: metered - input})
			return err
		})
		// What was charged without an answer is given back, because it was not used, and nothing else.
		if receipt.Debt > 0 || receipt.Refund > each[i].doubt.Load() {
			t.Errorf("stream %d: %+v, %d tokens were in doubt", i, receipt, each[i].doubt.Load())
		}
	}
	conn := dial(t, server)
	dropped(t, conn, ledgers[0], 0, names[0])
	dropped(t, conn, ledgers[1], ttl, names[1])
	for i, name := range names {
		total[i].check(t, name, usedOf(t, conn, prefix+":"+name))
	}
	t.Logf("%d tokens charged, %d in doubt", total[0].charged.Load()+total[1].charged.Load(), total[1].doubt.Load())
}

// TestRestartedEmptyUnderStreams: a server that has lost everything counts anew. Streams are metered on, and learn that
// they have no reservation when they renew it or settle, which gives nothing back.
func TestRestartedEmptyUnderStreams(t *testing.T) {
	t.Parallel()
	const streams, chunk, input, limit = 8, 17, 1000, 1e6
	server := start(t, redistest.Options{})
	prefix := freshPrefix()
	store := open(t, server.URL(), redisstore.Config{Prefix: prefix, Timeout: usualDeadline})
	recovers(t, func() error { return second(store.Apply(t.Context(), "warm", ruleOf(t, yearly(5)), 1)) })
	l := ledgerOn(t, store, limit, time.Hour)
	var leases [streams]*budget.Lease
	for i := range leases {
		recovers(t, func() (err error) {
			leases[i], err = l.Admit(t.Context(), budget.Request{Key: "k", Input: input})
			return err
		})
	}
	var charged, doubt [2]atomic.Int64 // before and after
	var epoch atomic.Int32
	crowd := gather(t, streams, time.Millisecond, func(i int) (throttlekit.Decision, error) {
		before := epoch.Load()
		v, err := leases[i].Debit(t.Context(), chunk)
		if err != nil {
			doubt[before].Add(chunk)
		} else if v.Allowed {
			charged[before].Add(chunk)
		}
		return v.Decision, err
	})
	wait(t, 100*time.Millisecond)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	failed := crowd.failed.Load()
	for start := time.Now(); crowd.failed.Load() < failed+2*streams && time.Since(start) < patient; {
		wait(t, time.Millisecond) // so that no debit is under way that was made before
	}
	epoch.Store(1)
	if err := server.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	recovers(t, func() error { return second(l.Peek(t.Context(), "k")) })
	wait(t, 200*time.Millisecond)
	crowd.leave()
	crowd.check(t, usualDeadline)
	anew := &books{}
	anew.charged.Store(charged[1].Load())
	anew.doubt.Store(doubt[0].Load() + doubt[1].Load())
	conn := dial(t, server)
	used := usedOf(t, conn, prefix+":k")
	anew.check(t, "anew", used)
	if charged[0].Load() == 0 || used == 0 || used >= limit || crowd.denied.Load() > 0 {
		t.Errorf("this is no fair test: %d before, %d anew, %d denied", charged[0].Load(), used, crowd.denied.Load())
	}
	if f, err := l.InFlight(t.Context(), "k"); err != nil || f != (budget.InFlight{}) {
		t.Errorf("nothing is held any more: %+v, %v", f, err)
	}
	for i, lease := range leases {
		var alive bool
		recovers(t, func() (err error) { alive, err = lease.Renew(t.Context()); return err })
		if alive || lease.Stands() {
			t.Errorf("stream %d: its reservation is gone; renewed %v, stands %v", i, alive, lease.Stands())
		}
		if i%2 == 0 {
			recovers(t, lease.Close)
			continue
		}
		var receipt budget.Receipt
		recovers(t, func() (err error) { receipt, err = lease.Settle(t.Context(), budget.Usage{Input: 1}); return err })
		if !receipt.Lapsed || receipt.Refund != 0 {
			t.Errorf("stream %d: %+v", i, receipt)
		}
	}
	if after := usedOf(t, conn, prefix+":k"); after != used {
		t.Errorf("settling what is gone has changed %d into %d", used, after)
	}
	if v, err := l.Peek(t.Context(), "k"); err != nil || v.Remaining != limit-used {
		t.Errorf("%+v, %v", v, err)
	}
	if stats := l.Stats(); stats.Refunded != 0 {
		t.Errorf("%+v", stats)
	}
}

// TestRepliesToDebitsLost resets connections after the server has made a step and before its reply has arrived: what
// was debited is counted once for each time it was sent, and nothing that was used is ever given back.
func TestRepliesToDebitsLost(t *testing.T) {
	t.Parallel()
	const ttl, rounds = time.Second, 10
	server := start(t, redistest.Options{})
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	prefix := freshPrefix()
	// One connection, so that it is a step's reply that is lost and not the greeting of another connection.
	store, err := redisstore.Connect(
		rueidis.ClientOption{InitAddress: []string{proxy.Addr}, PipelineMultiplex: -1, ForceSingleClient: true},
		redisstore.Config{Prefix: prefix, Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	l := ledgerOn(t, store, 1e6, time.Hour)
	brief := ledgerOn(t, store, 1e6, ttl)
	m, err := budget.NewMeter(budget.Config{Store: store, Budget: year(1e6)})
	if err != nil {
		t.Fatal(err)
	}
	g, err := budget.NewGranted(budget.GrantedConfig{Meter: m, Batch: 100})
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, server)
	lost := func(what string, call func() error) {
		t.Helper()
		if err := second(m.Debit(t.Context(), "warm", 1)); err != nil { // there is a connection again, and the script
			t.Fatal(err)
		}
		proxy.LoseReplies(1)
		if err := call(); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	counts := func(key string, want int64) {
		t.Helper()
		if used := usedOf(t, conn, prefix+":"+key); used != want {
			t.Errorf("%s: the store counts %d, want %d", key, used, want)
		}
	}
	for range rounds {
		lost("a debit", func() error { return second(m.Debit(t.Context(), "meter", 3)) })
	}
	counts("meter", 3*rounds)

	lost("a grant", func() error { return second(g.Debit(t.Context(), "granted", 1)) })
	if d, err := g.Debit(t.Context(), "granted", 1); err != nil || !d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	counts("granted", 100+1) // of the grant that nobody knows of, nothing comes back

	for round := range rounds { // each stream debits 17 twice, and then says that it has used less or more than that
		lease := admitted(t, l, "settled", 5)
		lost("a debit", func() error { return second(lease.Debit(t.Context(), 17)) })
		if err := second(lease.Debit(t.Context(), 17)); err != nil {
			t.Error(err)
		}
		used := budget.Usage{Input: 5, Output: 17 + int64(round%2)*30}
		lost("settling", func() error { return second(lease.Settle(t.Context(), used)) })
		if receipt, err := lease.Settle(t.Context(), used); err != nil || !receipt.Lapsed {
			t.Errorf("settling again: %+v, %v", receipt, err)
		}
	}
	counts("settled", (22+15)*rounds)

	for range rounds { // and here it is not known what of 5 and 17 was used
		lease := admitted(t, l, "closed", 5)
		lost("a debit", func() error { return second(lease.Debit(t.Context(), 17)) })
		lost("closing", lease.Close)
	}
	counts("closed", 22*rounds)

	for range rounds {
		lease := admitted(t, l, "used", 5)
		lost("a debit", func() error { return second(lease.Debit(t.Context(), 17)) })
		lost("renewing", func() error { return second(lease.Renew(t.Context())) })
		if receipt, err := lease.Settle(t.Context(), budget.Usage{Input: 5, Output: 17}); err != nil || receipt != (budget.Receipt{Metered: 22, Reported: 22}) {
			t.Errorf("settling at what was used: %+v, %v", receipt, err)
		}
	}
	counts("used", 22*rounds)
	for _, key := range []string{"settled", "closed", "used"} {
		dropped(t, conn, l, 0, key)
	}

	for range rounds {
		lost("an admission", func() error { return second(brief.Admit(t.Context(), budget.Request{Key: "lost", Input: 5})) })
	}
	if f, err := brief.InFlight(t.Context(), "lost"); err != nil || f.Requests == 0 {
		t.Errorf("%+v, %v", f, err)
	}
	dropped(t, conn, brief, ttl, "lost")
	counts("lost", 5*rounds)
}

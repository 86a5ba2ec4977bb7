package redisstore_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// stranger is a process of another implementation: it reads and writes keys by plain commands, as
// the specification's §2 lays them out, and knows nothing of this package's scripts. It decides by
// the formulas of the core, on a record that it reads from the key itself.
type stranger struct {
	conn *redistest.Conn
	key  string
}

// g17 and g14 are C's %.17g and %.14g.
func g17(x float64) string { return strconv.FormatFloat(x, 'g', 17, 64) }
func g14(x float64) string { return strconv.FormatFloat(x, 'g', 14, 64) }

func (s stranger) do(t *testing.T, args ...string) any {
	t.Helper()
	return do(t, s.conn, args...)
}

func texts(reply any) (list []string) {
	items, _ := reply.([]any)
	for _, item := range items {
		text, _ := item.(string)
		list = append(list, text)
	}
	return list
}

// check decides and writes in the layout of a strategy.
func (s stranger) check(t *testing.T, rule throttlekit.Rule, now int64, cost float64) throttlekit.Decision {
	t.Helper()
	if log, ok := rule.Strategy().(throttlekit.SlidingWindowLog); ok { // others prune before they look, denials too
		s.do(t, "ZREMRANGEBYSCORE", s.key, "-inf", g17(float64(now)-float64(log.Window)/float64(time.Millisecond)))
	}
	var rec throttlekit.Record
	if text := s.read(t, rule); text != "" {
		var err error
		if rec, err = rule.Decode([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	next, d, _ := rule.Apply(rec, now, cost)
	if d.Allowed {
		text, err := rule.Encode(next)
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, rule, text, now, cost)
	}
	return d
}

// read is the key's state as JSON text.
func (s stranger) read(t *testing.T, rule throttlekit.Rule) string {
	t.Helper()
	pair := func(a, b, nameA, nameB string) string {
		v := texts(s.do(t, "HMGET", s.key, a, b))
		if v[0] == "" || v[1] == "" {
			return ""
		}
		return fmt.Sprintf(`{%q:%s,%q:%s}`, nameA, v[0], nameB, v[1])
	}
	switch strategy := rule.Strategy().(type) {
	case throttlekit.GCRA:
		text, _ := s.do(t, "GET", s.key).(string)
		return text
	case throttlekit.TokenBucket:
		return pair("t", "l", "tokens", "last")
	case throttlekit.FixedWindow, throttlekit.Quota:
		return pair("s", "c", "start", "count")
	case throttlekit.SlidingWindow:
		size := strategy.Buckets + 1
		ticks, counts := make([]string, size), make([]string, size)
		for i := range ticks {
			ticks[i], counts[i] = "-1", "0"
		}
		held := texts(s.do(t, "HGETALL", s.key))
		for i := 0; i < len(held); i += 2 {
			slot, _ := strconv.Atoi(held[i])
			ticks[slot], counts[slot], _ = strings.Cut(held[i+1], ":")
		}
		return fmt.Sprintf(`{"i":[%s],"n":[%s]}`, strings.Join(ticks, ","), strings.Join(counts, ","))
	default:
		held := texts(s.do(t, "ZRANGE", s.key, "0", "-1", "WITHSCORES"))
		var stamps []string
		for i := 1; i < len(held); i += 2 {
			stamps = append(stamps, held[i])
		}
		return "[" + strings.Join(stamps, ",") + "]"
	}
}

// write stores the state that JSON text says, by the commands that the layout asks for.
func (s stranger) write(t *testing.T, rule throttlekit.Rule, text []byte, now int64, cost float64) {
	t.Helper()
	lasts := strconv.FormatInt(far.Milliseconds(), 10)
	parse := func(v any) {
		if err := json.Unmarshal(text, v); err != nil {
			t.Fatal(err)
		}
	}
	var pair map[string]float64
	switch strategy := rule.Strategy().(type) {
	case throttlekit.GCRA:
		var tat float64
		parse(&tat)
		s.do(t, "SET", s.key, g17(tat), "PX", lasts)
	case throttlekit.TokenBucket:
		parse(&pair)
		s.do(t, "HSET", s.key, "t", g17(pair["tokens"]), "l", g17(pair["last"]))
		s.do(t, "PEXPIRE", s.key, lasts)
	case throttlekit.FixedWindow, throttlekit.Quota:
		parse(&pair)
		s.do(t, "HSET", s.key, "s", g17(pair["start"]), "c", g17(pair["count"]))
		s.do(t, "PEXPIRE", s.key, lasts)
	case throttlekit.SlidingWindow:
		var ring struct{ I, N []float64 }
		parse(&ring)
		newest := 0
		for i := range ring.I {
			if ring.I[i] > ring.I[newest] {
				newest = i
			}
		}
		slot := int(math.Mod(ring.I[newest], float64(strategy.Buckets+1)))
		s.do(t, "HSET", s.key, strconv.Itoa(slot), g14(ring.I[newest])+":"+g14(ring.N[newest]))
		s.do(t, "PEXPIRE", s.key, lasts)
	case throttlekit.SlidingWindowLog:
		count := s.do(t, "ZCARD", s.key).(int64)
		for rank := range int64(math.Ceil(cost)) {
			s.do(t, "ZADD", s.key, g17(float64(now)), g14(float64(now))+"-"+strconv.FormatInt(count+rank+1, 10))
		}
		s.do(t, "PEXPIRE", s.key, lasts)
	}
}

// TestTwoImplementationsAreOneLimiter has this store and a stranger take turns on one key: decisions
// must be those of one limiter, whoever makes them.
func TestTwoImplementationsAreOneLimiter(t *testing.T) {
	t.Parallel()
	timelines := 40
	if testing.Short() {
		timelines = 6
	}
	for _, name := range []string{"gcra", "tokenBucket", "fixedWindow", "slidingWindow", "slidingWindowLog", "quota"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := slices.IndexFunc(generators, func(g generator) bool { return g.name == name })
			theirs := 0
			for n := range timelines {
				r := rand.New(rand.NewPCG(*seed<<8|uint64(at), uint64(1000+n)))
				theirs += takeTurns(t, generators[at], r)
			}
			t.Logf("%d checks, %d of them by the other implementation", timelines*timelineLength, theirs)
		})
	}
}

func takeTurns(t *testing.T, g generator, r *pick) (theirs int) {
	t.Helper()
	var rule throttlekit.Rule
	var limit float64
	var width time.Duration
	for rule == nil {
		var s throttlekit.Strategy
		s, limit, width = g.make(r)
		quota, isQuota := s.(throttlekit.Quota)
		if isQuota && quota.Cadence == throttlekit.Rolling || width < time.Millisecond {
			continue
		}
		rule, _ = transitionOf(s).(throttlekit.Rule)
	}
	clock := throttlekit.NewManualClock(base)
	prefix := freshPrefix()
	store := sharedClientStore(t, shared, redisstore.Config{Prefix: prefix, Clock: clock, TTLFloor: far, Timeout: patient})
	other := stranger{dial(t, shared), prefix + ":k"}
	var rec throttlekit.Record
	now := int64(base)
	for i := range timelineLength {
		clock.Set(now)
		cost := min(200, math.Ceil(someCost(r, limit, true))) // integers: 14 digits hold them
		next, want, _ := rule.Apply(rec, now, cost)
		var got throttlekit.Decision
		who := "this store"
		if r.IntN(2) == 0 {
			who = "the stranger"
			got = other.check(t, rule, now, cost)
			theirs++
		} else {
			var err error
			if got, err = store.Apply(t.Context(), "k", rule, cost); err != nil {
				t.Fatal(err)
			}
		}
		if got != want {
			t.Fatalf("%+v, check %d at %d by %s: got %+v, want %+v", rule.Strategy(), i, now, who, got, want)
		}
		if want.Allowed {
			rec = next
		}
		now = max(now, step(r, now, width))
	}
	return theirs
}

package redisstore_test

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
)

// TestTransitionsWithoutScript counts with several processes' worth of stores at once.
func TestTransitionsWithoutScript(t *testing.T) {
	t.Parallel()
	const stores, callers = 4, 50
	prefix := freshPrefix()
	count := tally{limit: 1e9, ttl: 1e6}
	var group sync.WaitGroup
	for range stores {
		store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, MaxRetries: 1000})
		for range callers {
			group.Go(func() {
				if d, err := store.Apply(t.Context(), "k", count, 1); err != nil || !d.Allowed {
					t.Errorf("%+v, %v", d, err)
				}
			})
		}
	}
	group.Wait()
	got := look(t, prefix+":k")
	if got.kind != "string" || len(got.texts) != 1 || got.texts[0] != strconv.Itoa(stores*callers) {
		t.Errorf("counted %v", got)
	}
	if got.ttl <= 0 || got.ttl > 1e6 {
		t.Errorf("time to live is %d", got.ttl)
	}
}

// intruder is a transition in whose midst somebody else changes the record.
type intruder struct {
	tally

	times *atomic.Int64
	act   func()
}

func (i intruder) Apply(rec throttlekit.Record, now int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	if i.times.Add(-1) >= 0 {
		i.act()
	}
	return i.tally.Apply(rec, now, cost)
}

func TestConflictsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		conflicts int64
		retries   int
		fails     bool
	}{
		{"none", 0, 5, false},
		{"as many as retries", 5, 5, false},
		{"one too many", 6, 5, true},
		{"no retries", 1, -1, true},
		{"default", 20, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			prefix := freshPrefix()
			conn := dial(t, shared)
			store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, MaxRetries: test.retries})
			var times atomic.Int64
			times.Store(test.conflicts)
			c := intruder{tally{limit: 1e9, ttl: 1e6}, &times, func() { do(t, conn, "INCR", prefix+":k") }}
			d, err := store.Apply(t.Context(), "k", c, 100)
			if !test.fails {
				if err != nil || d.Remaining != 1e9-100-test.conflicts {
					t.Errorf("%+v, %v", d, err)
				}
				return
			}
			if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), "contention") {
				t.Errorf("got %v", err)
			}
			if got := do(t, conn, "GET", prefix+":k"); got != strconv.FormatInt(test.conflicts, 10) {
				t.Errorf("the record is %v", got)
			}
		})
	}
}

// TestConflictsInBatches has somebody else change one record of an atomic batch: nothing of it may be written on old ground.
func TestConflictsInBatches(t *testing.T) {
	t.Parallel()
	prefix := freshPrefix()
	conn := dial(t, shared)
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix, MaxRetries: 3})
	fixed := ruleOf(t, throttlekit.FixedWindow{Limit: 10, Window: 24 * 365 * time.Hour})
	for _, conflicts := range []int64{2, 9} {
		var times atomic.Int64
		times.Store(conflicts)
		key := strconv.FormatInt(conflicts, 10)
		c := intruder{tally{limit: 1e9, ttl: 1e6}, &times, func() { do(t, conn, "INCR", prefix+":custom"+key) }}
		d, err := store.Batch(t.Context(), []throttlekit.Op{
			{Key: "fixed" + key, Transition: fixed, Cost: 3}, {Key: "custom" + key, Transition: c, Cost: 100},
		}, throttlekit.CommitAll)
		if conflicts == 2 {
			if err != nil || d[0].Remaining != 7 || d[1].Remaining != 1e9-102 {
				t.Errorf("%+v, %v", d, err)
			}
		} else if !errors.Is(err, throttlekit.ErrStoreUnavailable) || look(t, prefix+":fixed"+key).kind != "none" {
			t.Errorf("%v, and the other key holds %v", err, look(t, prefix+":fixed"+key))
		}
	}
}

// TestServerTimeDecides gives a custom transition the server's time, not this process'.
func TestServerTimeDecides(t *testing.T) {
	t.Parallel()
	store := open(t, shared.URL(), redisstore.Config{})
	conn := dial(t, shared)
	now := func() int64 {
		reply := do(t, conn, "TIME").([]any)
		seconds, _ := strconv.ParseInt(reply[0].(string), 10, 64)
		micros, _ := strconv.ParseInt(reply[1].(string), 10, 64)
		return seconds*1000 + micros/1000
	}
	before := now()
	d, err := store.Apply(t.Context(), "k", tally{limit: 5, ttl: 1000}, 1)
	if after := now(); err != nil || d.ResetAtMillis < before || d.ResetAtMillis > after {
		t.Errorf("decided at %d, not between %d and %d; %v", d.ResetAtMillis, before, after, err)
	}
}

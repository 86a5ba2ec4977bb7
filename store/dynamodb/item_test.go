package dynamostore_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
)

var (
	slow   = throttlekit.GCRA{Limit: 5, Period: 5 * time.Hour}
	bucket = throttlekit.TokenBucket{Capacity: 5, RefillPerSec: 0.001}
	window = throttlekit.FixedWindow{Limit: 5, Window: 1000 * time.Hour}
	rolls  = throttlekit.SlidingWindow{Limit: 5, Window: 1000 * time.Hour}
	log    = throttlekit.SlidingWindowLog{Limit: 5, Window: 1000 * time.Hour}
)

const now = 1_700_000_000_123

// TestLayout: an item has exactly the attributes that other implementations read and write.
func TestLayout(t *testing.T) {
	t.Parallel()
	client := newClient(t, server)
	clock := throttlekit.NewManualClock(now)
	config := dynamostore.Config{Prefix: newPrefix(), Clock: clock}
	store := newStore(t, client, config)
	r := rule(t, throttlekit.GCRA{Limit: 1, Period: 1500 * time.Millisecond, Burst: 4})
	expect := func(want map[string]string) {
		t.Helper()
		if want != nil {
			want["pk"] = "S" + config.Prefix + ":k"
		}
		if got := read(t, client, config.Prefix+":k"); !maps.Equal(got, want) {
			t.Errorf("the item is %v, want %v", got, want)
		}
	}
	check := func(cost float64, allowed bool) {
		t.Helper()
		if d, err := store.Apply(t.Context(), "k", r, cost); err != nil || d.Allowed != allowed {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	check(5, false)
	expect(nil)
	check(1, true)
	expect(map[string]string{"state": "S1700000001623", "expires_at": "N1700000002", "expires_at_ms": "N1700000001623", "version": "N0"})
	check(1, true)
	once := map[string]string{"state": "S1700000003123", "expires_at": "N1700000004", "expires_at_ms": "N1700000003123", "version": "N1"}
	expect(once)
	check(4, false)
	expect(once)
	clock.Advance(time.Hour) // the item expires and keeps its version
	check(1, true)
	expect(map[string]string{"state": "S1700003601623", "expires_at": "N1700003602", "expires_at_ms": "N1700003601623", "version": "N2"})
	if err := store.Reset(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	expect(nil)
}

// TestStates: the text of every strategy's record is the core's.
func TestStates(t *testing.T) {
	t.Parallel()
	client := newClient(t, server)
	config := dynamostore.Config{Prefix: newPrefix(), Clock: throttlekit.NewManualClock(now)}
	store := newStore(t, client, config)
	for _, s := range []throttlekit.Strategy{slow, bucket, window, rolls, log} {
		r := rule(t, s)
		var rec throttlekit.Record
		for range 2 {
			next, want, _ := r.Apply(rec, now, 1.5)
			rec = next
			if d, err := store.Apply(t.Context(), r.Name(), r, 1.5); err != nil || d != want {
				t.Fatalf("%+v, %v, want %+v", d, err, want)
			}
		}
		if got := read(t, client, config.Prefix+":"+r.Name())["state"]; got != "S"+encode(t, r, rec) {
			t.Errorf("%s is stored as %s, want %s", r.Name(), got, encode(t, r, rec))
		}
	}
}

// TestForeignItems: items of others are used as far as they are records, and never
// overwritten otherwise.
func TestForeignItems(t *testing.T) {
	t.Parallel()
	client := newClient(t, server)
	config := dynamostore.Config{Prefix: newPrefix(), Clock: throttlekit.NewManualClock(now)}
	store := newStore(t, client, config)
	r := rule(t, throttlekit.FixedWindow{Limit: 5, Window: 1000 * time.Hour})
	start := encode(t, r, func() throttlekit.Record { rec, _, _ := r.Apply(throttlekit.Record{}, now, 3); return rec }())
	for i, tc := range []struct {
		item map[string]string
		left int64  // units left after one more
		want string // or what the error says
	}{
		{map[string]string{"state": "S" + start, "expires_at_ms": "N1700000000124", "expires_at": "N1", "version": "N7"}, 1, ""},
		{map[string]string{"state": "S" + start, "expires_at_ms": "N1700000000123.5", "expires_at": "N1", "version": "N7"}, 1, ""},
		{map[string]string{"state": "S" + start, "expires_at": "N1700000001", "version": "N7"}, 1, ""},
		{map[string]string{"state": "S" + start, "expires_at_ms": "N1700000000123", "expires_at": "N1800000000", "version": "N7"}, 4, ""},
		{map[string]string{"state": "Snonsense, but expired", "expires_at_ms": "N5", "version": "N7"}, 4, ""},
		{map[string]string{"state": "S" + start, "expires_at": "N1700000000", "version": "N7"}, 4, ""},
		{map[string]string{"state": "S" + start, "expires_at_ms": "N1800000000000", "version": "N7", "more": "Sof it"}, 1, ""},
		{map[string]string{"state": "S" + start, "expires_at_ms": "N1800000000000"}, 0, "its version is no integer"},
		{map[string]string{"state": "S" + start, "expires_at_ms": "N1800000000000", "version": "N1.5"}, 0, "its version is no integer"},
		{map[string]string{"state": "S" + start, "version": "N7"}, 0, "its expires_at is no number"},
		{map[string]string{"state": "S" + start, "expires_at_ms": "Ssoon", "version": "N7"}, 0, "its expires_at_ms is no number"},
		{map[string]string{"state": "N5", "expires_at_ms": "N1800000000000", "version": "N7"}, 0, "its state is no string"},
		{map[string]string{"version": "N7"}, 0, "its state is no string"},
		{map[string]string{"state": "S{", "expires_at_ms": "N1800000000000", "version": "N7"}, 0, "corrupt fixedWindow record"},
		{map[string]string{"state": "S1700000000000", "expires_at_ms": "N1800000000000", "version": "N7"}, 0, "corrupt fixedWindow record"},
	} {
		key := fmt.Sprint("k", i)
		write(t, client, config.Prefix+":"+key, tc.item)
		d, err := store.Apply(t.Context(), key, r, 1)
		after := read(t, client, config.Prefix+":"+key)
		if tc.want == "" {
			if err != nil || !d.Allowed || d.Remaining != tc.left || after["version"] != "N8" {
				t.Errorf("%v: %+v, %v, then %v; want %d left", tc.item, d, err, after, tc.left)
			}
			continue
		}
		if text := fmt.Sprint(err); !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(text, tc.want) ||
			!strings.Contains(text, "DynamoDB table "+table) || !strings.Contains(text, config.Prefix) {
			t.Errorf("%v: %v, want %q, table and prefix", tc.item, err, tc.want)
		}
		delete(after, "pk")
		if !maps.Equal(after, tc.item) {
			t.Errorf("%v was overwritten with %v", tc.item, after)
		}
		if _, _, err := store.Load(t.Context(), key, r); !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("Load of %v: %v", tc.item, err)
		}
		if err := store.Reset(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
}

func TestLongestKey(t *testing.T) {
	t.Parallel()
	store := newStore(t, newClient(t, server), dynamostore.Config{Prefix: "p"})
	key := strings.Repeat("k", 2048-len("p:"))
	if d, err := store.Apply(t.Context(), key, rule(t, slow), 1); err != nil || !d.Allowed {
		t.Error(d, err)
	}
	for _, tooLong := range []string{key + "x", "\xff" + key[:1100]} {
		if _, err := store.Apply(t.Context(), tooLong, rule(t, slow), 1); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Error(err)
		}
	}
}

func TestInvalidConfigs(t *testing.T) {
	t.Parallel()
	client := newClient(t, server)
	_, err := dynamostore.New(client, dynamostore.Config{HashKey: "version", Timeout: -1})
	for _, field := range []string{"table", "hashKey", "timeout"} {
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(fmt.Sprint(err), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	if _, err := dynamostore.New(nil, dynamostore.Config{Table: "t"}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Error(err)
	}
	if err := dynamostore.CreateTable(t.Context(), client, dynamostore.Config{}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Error(err)
	}
	if err := dynamostore.CreateTable(t.Context(), nil, dynamostore.Config{Table: "t"}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Error(err)
	}
}

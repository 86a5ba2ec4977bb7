package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

const secret = "open-sesame"

// mustFail calls a store in every way and wants each to fail with an error that a person can use.
func mustFail(t *testing.T, store throttlekit.Store, says string) {
	t.Helper()
	rule := ruleOf(t, throttlekit.GCRA{Limit: 5, Period: time.Second})
	calls := map[string]func() error{
		"apply":  func() error { _, err := store.Apply(t.Context(), "user:42", rule, 1); return err },
		"custom": func() error { _, err := store.Apply(t.Context(), "user:42", tally{limit: 5, ttl: 1}, 1); return err },
		"load":   func() error { _, _, err := store.Load(t.Context(), "user:42", rule); return err },
		"each": func() error {
			_, err := store.Batch(t.Context(), []throttlekit.Op{{Key: "user:42", Transition: rule, Cost: 1}}, throttlekit.CommitEach)
			return err
		},
		"all": func() error {
			_, err := store.Batch(t.Context(), []throttlekit.Op{{Key: "user:42", Transition: rule, Cost: 1}}, throttlekit.CommitAll)
			return err
		},
	}
	for name, call := range calls {
		err := call()
		switch {
		case !errors.Is(err, throttlekit.ErrStoreUnavailable):
			t.Errorf("%s: got %v", name, err)
		case !strings.Contains(err.Error(), says), !strings.Contains(err.Error(), `redis store, keys with prefix "shop"`):
			t.Errorf("%s: %q does not say %q and where", name, err, says)
		case strings.Contains(err.Error(), secret), strings.Contains(err.Error(), "user:42"):
			t.Errorf("%s: %q shows a secret or a key", name, err)
		}
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	locked := start(t, redistest.Options{Password: secret})
	host := strings.TrimPrefix(locked.URL(), "redis://:"+secret+"@")
	noScripts := start(t, redistest.Options{Settings: []string{`rename-command EVALSHA ""`, `rename-command EVAL ""`}})
	restricted := start(t, redistest.Options{Settings: []string{"user default on nopass ~* &* +@all -@scripting"}})
	full := start(t, redistest.Options{Settings: []string{"maxmemory 1", "maxmemory-policy noeviction"}})
	crowded := start(t, redistest.Options{Settings: []string{"maxclients 1"}})
	hog := dial(t, crowded)
	do(t, hog, "PING")
	primary := start(t, redistest.Options{})
	replica, err := redistest.StartReplica(ctx, primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replica.Close() })
	for _, test := range []struct{ name, url, says string }{
		{"unreachable", "redis://:" + secret + "@127.0.0.1:1", "check that the server runs"},
		{"no such host", "redis://no-such-host.invalid:6379", "no-such-host.invalid"},
		{"no password", "redis://" + host, "wants a password"},
		{"wrong password", "redis://:" + secret + "x@" + host, "password is wrong"},
		{"wrong user", "redis://nobody:" + secret + "x@" + host, "password is wrong"},
		{"wrong database", primary.URL() + "/99", "no database of that number"},
		{"replica", replica.URL(), "connect to the primary"},
		{"scripting disabled", noScripts.URL(), "needs Lua scripting"},
		{"scripting forbidden", restricted.URL(), "the user needs EVALSHA"},
		{"out of memory", full.URL(), "raise maxmemory"},
		{"no connection left", crowded.URL(), "maxclients"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			store := open(t, test.url, redisstore.Config{Prefix: "shop", Timeout: 5 * time.Second})
			if test.name == "replica" || test.name == "out of memory" { // reading works there
				_, err := store.Apply(t.Context(), "user:42", ruleOf(t, throttlekit.GCRA{Limit: 5, Period: time.Second}), 1)
				if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), test.says) {
					t.Error(err)
				}
				return
			}
			mustFail(t, store, test.says)
		})
	}
}

// TestForeignRecords has keys hold what the transition cannot read: nothing may be overwritten.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	rules := map[string]throttlekit.Transition{
		"gcra":             ruleOf(t, throttlekit.GCRA{Limit: 5, Period: time.Second}),
		"tokenBucket":      ruleOf(t, throttlekit.TokenBucket{Capacity: 5, RefillPerSec: 1}),
		"fixedWindow":      ruleOf(t, throttlekit.FixedWindow{Limit: 5, Window: time.Second}),
		"slidingWindow":    ruleOf(t, throttlekit.SlidingWindow{Limit: 5, Window: time.Second}),
		"slidingWindowLog": ruleOf(t, throttlekit.SlidingWindowLog{Limit: 5, Window: time.Second}),
		"custom":           tally{limit: 5, ttl: 1000},
	}
	for _, test := range []struct {
		name  string
		write []string // KEY stands for the key
		read  []string
		rules []string
		says  string
	}{
		{"a list", []string{"RPUSH", "KEY", "x"}, []string{"LRANGE", "KEY", "0", "-1"}, []string{"gcra", "tokenBucket", "fixedWindow", "slidingWindow", "slidingWindowLog", "custom"}, "WRONGTYPE"},
		{"a hash", []string{"HSET", "KEY", "x", "y"}, []string{"HGETALL", "KEY"}, []string{"gcra", "slidingWindowLog", "custom"}, "WRONGTYPE"},
		{"text", []string{"SET", "KEY", "hello"}, []string{"GET", "KEY"}, []string{"gcra", "custom"}, "corrupt"},
		{"nan", []string{"SET", "KEY", "nan"}, []string{"GET", "KEY"}, []string{"gcra", "custom"}, "corrupt"},
		{"infinity", []string{"SET", "KEY", "inf"}, []string{"GET", "KEY"}, []string{"gcra", "custom"}, "corrupt"},
		{"overflow", []string{"SET", "KEY", "1e999"}, []string{"GET", "KEY"}, []string{"gcra", "custom"}, "corrupt"},
		{"empty", []string{"SET", "KEY", ""}, []string{"GET", "KEY"}, []string{"gcra", "custom"}, "corrupt"},
		{"bad tokens", []string{"HSET", "KEY", "t", "x", "l", "1"}, []string{"HGETALL", "KEY"}, []string{"tokenBucket"}, "corrupt"},
		{"bad time", []string{"HSET", "KEY", "t", "1", "l", "-inf"}, []string{"HGETALL", "KEY"}, []string{"tokenBucket"}, "corrupt"},
		{"bad count", []string{"HSET", "KEY", "s", "1", "c", "one"}, []string{"HGETALL", "KEY"}, []string{"fixedWindow"}, "corrupt"},
		{"bad slot", []string{"HSET", "KEY", "0", "17"}, []string{"HGETALL", "KEY"}, []string{"slidingWindow"}, "corrupt"},
		{"bad tick", []string{"HSET", "KEY", "0", "x:1"}, []string{"HGETALL", "KEY"}, []string{"slidingWindow"}, "corrupt"},
	} {
		for _, name := range test.rules {
			t.Run(test.name+" for "+name, func(t *testing.T) {
				t.Parallel()
				conn := dial(t, shared)
				prefix := freshPrefix()
				store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
				key := prefix + ":k"
				command := func(args []string) any {
					full := append([]string(nil), args...)
					full[1] = key
					return do(t, conn, full...)
				}
				command(test.write)
				before := fmt.Sprint(command(test.read))
				rule := rules[name]
				fresh := throttlekit.Op{Key: "fresh", Transition: rules["gcra"], Cost: 1}
				bad := throttlekit.Op{Key: "k", Transition: rule, Cost: 1}
				for call, err := range map[string]error{
					"apply": second(store.Apply(t.Context(), "k", rule, 1)),
					"load":  third(store.Load(t.Context(), "k", rule)),
					"all":   second(store.Batch(t.Context(), []throttlekit.Op{fresh, bad}, throttlekit.CommitAll)),
					"any":   second(store.Batch(t.Context(), []throttlekit.Op{fresh, bad}, throttlekit.CommitAny)),
				} {
					if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(test.says)) ||
						!strings.Contains(err.Error(), "reset it") {
						t.Errorf("%s: got %v", call, err)
					}
				}
				if after := fmt.Sprint(command(test.read)); after != before {
					t.Errorf("the key held %s and now holds %s", before, after)
				}
				if kind := look(t, prefix+":fresh").kind; kind != "none" {
					t.Errorf("a failed batch left a %s under its other key", kind)
				}
				if err := store.Reset(t.Context(), "k"); err != nil {
					t.Error(err)
				}
				if _, err := store.Apply(t.Context(), "k", rule, 1); err != nil {
					t.Errorf("after Reset: %v", err)
				}
			})
		}
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }

func TestURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "localhost:6379", "http://localhost", "redis://:" + secret + "/x@host:6379/0", "redis://:" + secret + "@host:port",
		"redis://host/" + secret + "/x", "redis://host/" + secret, "://" + secret, "redis://user:" + secret + "%zz@host",
		"redis://a:1,b:2", "redis://a:1,b", "redis://:" + secret + "@a:1,b:2", "redis://a:1?addr=b:2,c:3", "redis://a:1?addr=", "redis://a:1?master_set=",
		"redis://a:1?masterset=main", "redis://a:1?" + secret, "redis://a:1?a;b", "sentinel://a:1",
	} {
		store, err := redisstore.Open(url, redisstore.Config{})
		if !errors.Is(err, throttlekit.ErrInvalid) || store != nil {
			t.Errorf("%q: %v", url, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q shows the secret", err)
		}
	}
	for _, url := range []string{
		"redis://localhost", "rediss://user:pass@host:1/2", "redis://a:1?addr=b:2&addr=c:3", "redis://a:26379?master_set=main", "unix:///tmp/redis.sock",
		"rediss://a:1/3?addr=[::1]:2&skip_verify&dial_timeout=1s&protocol=2",
	} {
		store, err := redisstore.Open(url, redisstore.Config{})
		if err != nil {
			t.Fatalf("%q: %v", url, err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, config := range []redisstore.Config{{Timeout: -1}, {TTLFloor: -1}} {
		if _, err := redisstore.Open("redis://localhost", config); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%+v: %v", config, err)
		}
	}
	if _, err := redisstore.New(nil, redisstore.Config{}); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Error(err)
	}
}

func TestCostsThatAreNoNumbers(t *testing.T) {
	t.Parallel()
	prefix := freshPrefix()
	store := open(t, shared.URL(), redisstore.Config{Prefix: prefix})
	rule := ruleOf(t, throttlekit.GCRA{Limit: 5, Period: time.Second})
	for _, cost := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		_, err := store.Apply(t.Context(), "k", rule, cost)
		_, batchErr := store.Batch(t.Context(), []throttlekit.Op{{Key: "k", Transition: rule, Cost: cost}}, throttlekit.CommitAll)
		if !errors.Is(err, throttlekit.ErrInvalid) || !errors.Is(batchErr, throttlekit.ErrInvalid) {
			t.Error(err, batchErr)
		}
	}
	if kind := look(t, prefix+":k").kind; kind != "none" {
		t.Errorf("the key holds a %s", kind)
	}
}

// TestContexts tells the caller's own mind from the store's state.
func TestContexts(t *testing.T) {
	t.Parallel()
	silent := silence(t)
	store := open(t, "redis://"+silent, redisstore.Config{Prefix: "shop", Timeout: 100 * time.Millisecond})
	rule := ruleOf(t, throttlekit.GCRA{Limit: 5, Period: time.Second})
	call := func(ctx context.Context) error { return second(store.Apply(ctx, "k", rule, 1)) }

	if err := call(t.Context()); !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), "no answer within 100ms") {
		t.Errorf("no deadline: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := call(ctx); !errors.Is(err, throttlekit.ErrStoreUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	if err := call(ctx); errors.Is(err, throttlekit.ErrStoreUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline that has passed: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, cancel)
	if err := call(ctx); errors.Is(err, throttlekit.ErrStoreUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := call(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("already cancelled: %v", err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := call(t.Context()); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// silence is the address of a server that takes connections and never says a word.
func silence(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

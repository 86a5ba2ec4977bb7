package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// What --store says counts; else the one connection that is given does.
func TestChooseStore(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ store, redis, postgres, dynamo, want, wrong string }{
		{want: memoryStore},
		{redis: "a", want: redisStore},
		{postgres: "a", want: postgresStore},
		{dynamo: "a", want: dynamoStore},
		{store: memoryStore, redis: "a", postgres: "b", want: memoryStore},
		{store: redisStore, redis: "a", postgres: "b", want: redisStore},
		{store: postgresStore, redis: "a", postgres: "b", dynamo: "c", want: postgresStore},
		{store: dynamoStore, dynamo: "c", want: dynamoStore},
		{redis: "a", postgres: "b", wrong: "ambiguous: --redis and --postgres-url"},
		{redis: "a", dynamo: "b", wrong: "ambiguous"},
		{postgres: "a", dynamo: "b", wrong: "ambiguous"},
		{store: redisStore, wrong: "needs --redis"},
		{store: redisStore, postgres: "a", wrong: "needs --redis"},
		{store: postgresStore, wrong: "needs --postgres-url"},
		{store: dynamoStore, wrong: "needs --dynamodb-table"},
	} {
		s := &storage{kind: word{value: test.store}, redisURL: test.redis, postgresURL: test.postgres, dynamo: dynamo{table: test.dynamo}}
		b, err := s.choose()
		got := memoryStore
		if b != nil {
			got = b.name
		}
		switch {
		case test.wrong != "":
			if err == nil || !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("%+v: error %v", test, err)
			}
		case err != nil || got != test.want:
			t.Errorf("%+v: got %s, error %v", test, got, err)
		}
	}
}

func TestDiscreet(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"redis://host:6379/0":                         "redis://host:6379/0",
		"redis://user:secret@host:6379/0":             "redis://user:***@host:6379/0",
		"redis://:secret@host":                        "redis://:***@host",
		`got "postgres://u:a@b:c/d@host/db" and more`: `got "postgres://u:***@host/db" and more`,
		"host=h password=secret user=u":               "host=h password=*** user=u",
		"postgres://h/db?password=secret&x=y":         "postgres://h/db?password=***&x=y",
		"redis://[user:password@]host":                "redis://[user:password@]host",
		"mail me@example.org at 10:30":                "mail me@example.org at 10:30",
	} {
		if got := discreet(text); got != want {
			t.Errorf("%s became %s, want %s", text, got, want)
		}
	}
}

// sharedPolicies is a policy file; its windows outlast the tests, whenever they run.
func sharedPolicies(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	const text = `limiters:
  suite: {strategy: fixedWindow, limit: 1000, period: 50000d}
  once: {strategy: fixedWindow, limit: 1, period: 50000d}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func startRedis(t *testing.T, options redistest.Options) *redistest.Server {
	t.Helper()
	server, err := redistest.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

// Two servers on one Redis, asked by many callers over both doors at once, admit the limit between them, not one more
// and not one less.
func TestServersShareOneLimit(t *testing.T) {
	t.Parallel()
	const limit, callers, checks = 1000, 16, 100
	redis, file := startRedis(t, redistest.Options{}), sharedPolicies(t)
	var allowed [2]atomic.Int64
	var done sync.WaitGroup
	var servers [2]*process
	for i := range servers {
		// No check may be answered by the fail mode, whatever else the machine does.
		servers[i] = serve(t, "--port", "0", "--http-port", "0", "--config", file, "--redis", redis.URL(), "--fail", "closed",
			"--store-timeout", atMost.String())
		for c := range callers {
			ask := loadCaller(t, servers[i], c%2 == 0)
			done.Go(func() {
				for range checks {
					d, err := ask.ask(t.Context(), "everybody", 1)
					if err != nil {
						t.Error(err)
						return
					}
					if d.Allowed {
						allowed[i].Add(1)
					}
				}
			})
		}
	}
	done.Wait()
	a, b := allowed[0].Load(), allowed[1].Load()
	t.Logf("of %d checks each, one server admitted %d, the other %d", callers*checks, a, b)
	if a+b != limit {
		t.Errorf("%d + %d checks were admitted, want %d", a, b, limit)
	}
	for _, p := range servers {
		if strings.Contains(p.stderr.String(), "the store cannot decide") {
			t.Errorf("the fail mode answered: %s", p.stderr)
		}
	}
}

// Servers start without their Redis, answer as --fail says, and share a count as soon as it is there.
func TestServeWithoutItsStore(t *testing.T) {
	t.Parallel()
	redis, file := startRedis(t, redistest.Options{}), sharedPolicies(t)
	if err := redis.Kill(); err != nil {
		t.Fatal(err)
	}
	dial := func(fail string) (*process, *client.Client) {
		p := serve(t, "--port", "0", "--http-port", "off", "--config", file, "--redis", redis.Addr, "--fail", fail)
		c, err := client.Dial(p.grpc, client.WithTimeout(atMost))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return p, c
	}
	check := func(c *client.Client, key string) bool {
		t.Helper()
		d, err := c.Check(t.Context(), "once", key)
		if err != nil {
			t.Fatal(err)
		}
		return d.Allowed
	}
	lenient, open := dial("open")
	strict, closed := dial("closed")
	for range 3 {
		if !check(open, "me") {
			t.Error("the server that fails open denied")
		}
		if check(closed, "me") {
			t.Error("the server that fails closed admitted")
		}
	}
	for _, p := range []*process{lenient, strict} {
		said := p.stderr.String()
		if !strings.Contains(said, "throttlekit: warning: the store does not answer yet") || !strings.Contains(said, "the store cannot decide") {
			t.Errorf("standard error: %s", said)
		}
	}

	if err := redis.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	n := 0
	key := func() string { n++; return fmt.Sprint("after ", n) }
	until(t, "the server that fails closed has not recovered", func() bool { return check(closed, key()) })
	// The other one has recovered when it denies what a limit of 1 cannot give again.
	until(t, "the server that fails open has not recovered", func() bool { k := key(); check(open, k); return !check(open, k) })
	if !check(open, "both") || check(closed, "both") {
		t.Error("the servers do not share a limit")
	}
}

// until polls.
func until(t *testing.T, otherwise string, reached func() bool) {
	t.Helper()
	deadline, tick := time.After(atMost), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(otherwise)
		}
	}
}

// A wrong password is named as the cause, and shown nowhere.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	const right, guess = "correct-horse", "battery-staple"
	redis := startRedis(t, redistest.Options{Password: right})
	url := "redis://:" + guess + "@" + redis.Addr

	var said bytes.Buffer
	if code := run(t.Context(), []string{"doctor", "--redis", url}, nil, &said, &said); code != codeFailed {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(said.String(), "FAIL  store") || !strings.Contains(said.String(), "password is wrong") {
		t.Errorf("doctor says:\n%s", &said)
	}
	p := serve(t, "--port", "0", "--http-port", "off", "--redis", url, "--log-level", "debug")
	c, err := client.Dial(p.grpc, client.WithTimeout(atMost))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if d, err := c.Check(t.Context(), "default", "me"); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
	p.kill()
	if !strings.Contains(p.stderr.String(), "password is wrong") {
		t.Errorf("standard error: %s", p.stderr)
	}
	code := run(t.Context(), []string{"conformance", "--store", url}, nil, &said, &said)
	if code != codeFailed {
		t.Errorf("exit code %d", code)
	}
	all := said.String() + p.stdout.String() + p.stderr.String()
	if strings.Contains(all, guess) || strings.Contains(all, right) {
		t.Errorf("a password is shown:\n%s", all)
	}

	said.Reset()
	good := "redis://:" + right + "@" + redis.Addr
	args := []string{"doctor", "--redis", good, "--store-timeout", atMost.String()}
	if code := run(t.Context(), args, nil, &said, &said); code != 0 || strings.Contains(said.String(), right) {
		t.Errorf("exit code %d:\n%s", code, &said)
	}
}

// A Redis that may drop records reopens limits.
func TestDoctorWarnsOfEviction(t *testing.T) {
	t.Parallel()
	redis := startRedis(t, redistest.Options{Settings: []string{"maxmemory 50mb", "maxmemory-policy allkeys-lru"}})
	var said bytes.Buffer
	if code := run(t.Context(), []string{"doctor", "--redis", redis.Addr}, nil, &said, &said); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(said.String(), "warn  eviction") || !strings.Contains(said.String(), "fix: CONFIG SET maxmemory-policy noeviction") {
		t.Errorf("doctor says:\n%s", &said)
	}
}

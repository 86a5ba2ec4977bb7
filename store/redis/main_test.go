package redisstore_test

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// shared is the server of the tests that leave it as they find it; each uses keys of its own.
var shared *redistest.Server

func TestMain(m *testing.M) {
	if job := os.Getenv(streamsJob); job != "" { // this process is one of those that a test started
		if err := stream(job); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	server, err := redistest.Start(context.Background(), redistest.Options{})
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	shared = server
	code := m.Run()
	forgetClient(server)
	if err := server.Close(); err != nil && code == 0 {
		code = 1
	}
	os.Exit(code)
}

var prefixes atomic.Int64

// freshPrefix is a prefix that no other test uses.
func freshPrefix() string { return "test" + strconv.FormatInt(prefixes.Add(1), 10) }

// patient is a timeout for tests that do not test it: the machine may be busy.
const patient = 10 * time.Second

// wait lets time pass, for tests in which real processes need it.
func wait(tb testing.TB, d time.Duration) {
	tb.Helper()
	select {
	case <-time.After(d):
	case <-tb.Context().Done():
	}
}

func newClient(tb testing.TB, server *redistest.Server) rueidis.Client {
	tb.Helper()
	option, err := rueidis.ParseURL(server.URL())
	if err != nil {
		tb.Fatal(err)
	}
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	return client
}

// open opens a store with a fresh prefix, unless the configuration has one.
func open(tb testing.TB, url string, config redisstore.Config) *redisstore.Store {
	tb.Helper()
	if config.Prefix == "" {
		config.Prefix = freshPrefix()
	}
	if config.Timeout == 0 {
		config.Timeout = patient
	}
	store, err := redisstore.Open(url, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	return store
}

// clients are those that many tests of a server share, so that their calls are pipelined.
var clients = struct {
	sync.Mutex

	of map[*redistest.Server]rueidis.Client
}{of: make(map[*redistest.Server]rueidis.Client)}

// sharedClientStore is a store on the client that all tests of a server share.
func sharedClientStore(tb testing.TB, server *redistest.Server, config redisstore.Config) *redisstore.Store {
	tb.Helper()
	clients.Lock()
	defer clients.Unlock()
	client := clients.of[server]
	if client == nil {
		var err error
		client, err = rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true})
		if err != nil {
			tb.Fatal(err)
		}
		clients.of[server] = client
	}
	store, err := redisstore.New(client, config)
	if err != nil {
		tb.Fatal(err)
	}
	return store
}

func forgetClient(server *redistest.Server) {
	clients.Lock()
	defer clients.Unlock()
	if client := clients.of[server]; client != nil {
		client.Close()
		delete(clients.of, server)
	}
}

func start(tb testing.TB, options redistest.Options) *redistest.Server {
	tb.Helper()
	server, err := redistest.Start(tb.Context(), options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		forgetClient(server)
		if err := server.Close(); err != nil {
			tb.Error(err)
		}
	})
	return server
}

func dial(tb testing.TB, server *redistest.Server) *redistest.Conn {
	tb.Helper()
	conn, err := server.Dial(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

func do(tb testing.TB, conn *redistest.Conn, args ...string) any {
	tb.Helper()
	reply, err := conn.Do(tb.Context(), args...)
	if err != nil {
		tb.Fatalf("%v: %v", args, err)
	}
	return reply
}

func ruleOf(tb testing.TB, strategy throttlekit.Strategy) throttlekit.Rule {
	tb.Helper()
	rule, err := strategy.Rule()
	if err != nil {
		tb.Fatal(err)
	}
	return rule
}

// base is an instant in the past for tests that tell the time themselves.
const base = 1_700_000_000_000

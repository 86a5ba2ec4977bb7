package redistest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

func start(t *testing.T, options redistest.Options) *redistest.Server {
	t.Helper()
	server, err := redistest.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func TestMissingProgram(t *testing.T) {
	t.Parallel()
	_, err := redistest.Start(t.Context(), redistest.Options{Program: "no-such-redis"})
	if err == nil || !strings.Contains(err.Error(), "apt-get install redis-server") {
		t.Errorf("got %v", err)
	}
}

func TestWrongSettings(t *testing.T) {
	t.Parallel()
	_, err := redistest.Start(t.Context(), redistest.Options{Settings: []string{"no-such-setting yes"}})
	if err == nil {
		t.Error("a server started on a wrong configuration")
	}
}

// TestLifecycle ends a server in every way and starts it again.
func TestLifecycle(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{Persist: true, Password: "open-sesame"})
	set := func(value string) {
		t.Helper()
		if reply, err := server.Do(t.Context(), "SET", "k", value); err != nil || reply != "OK" {
			t.Errorf("SET: %v, %v", reply, err)
		}
	}
	expect := func(want any) {
		t.Helper()
		if reply, err := server.Do(t.Context(), "GET", "k"); err != nil || reply != want {
			t.Errorf("GET: %v, %v, want %v", reply, err, want)
		}
	}
	set("1")
	for _, end := range []func() error{server.Stop, server.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Do(t.Context(), "PING"); err == nil {
			t.Error("a server that has ended answers")
		}
		if err := server.Restart(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		expect("1")
	}
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := server.Do(ctx, "PING"); err == nil {
		t.Error("a frozen server answers")
	}
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	expect("1")
	if err := errors.Join(server.Kill(), server.Restart(t.Context(), true)); err != nil {
		t.Fatal(err)
	}
	expect(nil)
	if err := server.Freeze(); err != nil { // it ends all the same
		t.Fatal(err)
	}
	for range 2 {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(server.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if err := server.Freeze(); err == nil {
		t.Error("there is no server to freeze")
	}
}

// TestReplies reads every kind of reply, and a pipeline longer than the buffers between the processes.
func TestReplies(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	conn, err := server.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	reply, err := conn.Do(t.Context(), "EVAL", "return {1, 'two', {3, false}, redis.status_reply('four')}", "0")
	list, ok := reply.([]any)
	if err != nil || !ok || len(list) != 4 || list[0] != int64(1) || list[1] != "two" || list[3] != "four" {
		t.Fatalf("%v, %v", reply, err)
	}
	if inner, ok := list[2].([]any); !ok || inner[0] != int64(3) || inner[1] != nil {
		t.Errorf("%v", list[2])
	}
	var wrong redistest.Error
	if _, err := conn.Do(t.Context(), "NO-SUCH-COMMAND"); !errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
	commands := make([][]string, 20_000)
	for i := range commands {
		commands[i] = []string{"ECHO", strings.Repeat("x", 500)}
	}
	replies, err := conn.Pipeline(t.Context(), commands...)
	if err != nil || len(replies) != len(commands) || replies[19_999] != commands[0][1] {
		t.Errorf("%d replies, %v", len(replies), err)
	}
}

// TestFrozenProxy holds a call back, lets it pass, and loses another when it closes.
func TestFrozenProxy(t *testing.T) {
	t.Parallel()
	server := start(t, redistest.Options{})
	proxy, err := redistest.StartProxy(t.Context(), server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	incr := func() chan error {
		conn, err := redistest.Dial(t.Context(), proxy.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		answer := make(chan error, 1)
		go func() {
			_, err := conn.Do(t.Context(), "INCR", "k")
			answer <- err
		}()
		return answer
	}
	expect := func(want any) {
		t.Helper()
		if reply, err := server.Do(t.Context(), "GET", "k"); err != nil || reply != want {
			t.Errorf("%v, %v, want %v", reply, err, want)
		}
	}
	if err := <-incr(); err != nil {
		t.Error(err)
	}
	proxy.Freeze()
	proxy.Freeze()
	held := incr()
	select {
	case err := <-held:
		t.Errorf("passed a frozen proxy: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	expect("1")
	proxy.Thaw()
	if err := <-held; err != nil {
		t.Error(err)
	}
	expect("2")
	proxy.Freeze()
	lost := incr()
	if err := proxy.Close(); err != nil {
		t.Error(err)
	}
	if err := <-lost; err == nil {
		t.Error("answered by a proxy that is closed")
	}
	expect("2")
}

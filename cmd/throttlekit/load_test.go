package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
)

// The policy counts down from here, so every answer of it has a number of its own. Its window outlasts the test, whenever
// that runs.
const (
	countdown = 1_000_000_000
	counting  = `limiters: {suite: {strategy: fixedWindow, limit: 1000000000, period: 50000d}}`
)

// A server that is told to stop while 32 callers ask it over both doors answers everything that it has charged: the
// numbers of the answers have no gap.
func TestTerminateUnderLoad(t *testing.T) {
	t.Parallel()
	const callers, warmUp = 32, 2000
	file := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, []byte(counting), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, "--port", "0", "--http-port", "0", "--config", file, "--shutdown-timeout", "10s")

	var (
		mu      sync.Mutex
		answers = make(map[int64]int)
		warm    = make(chan struct{})
		done    sync.WaitGroup
	)
	answered := func(d throttlekit.Decision) {
		mu.Lock()
		defer mu.Unlock()
		answers[countdown-d.Remaining]++
		if len(answers) == warmUp {
			close(warm)
		}
	}
	for i := range callers {
		ask := loadCaller(t, p, i%2 == 0)
		done.Go(func() {
			for {
				d, err := ask.ask(t.Context(), "everybody", 1)
				if err != nil {
					if reason := unfinished(err); reason != "" {
						t.Errorf("an answer was cut off (%s): %v", reason, err)
					}
					return
				}
				answered(d)
			}
		})
	}
	select {
	case <-warm:
	case <-time.After(atMost):
		t.Fatalf("no load: %s", p.stderr)
	}
	began := time.Now()
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
	done.Wait()

	t.Logf("%d answers", len(answers))
	for n := range int64(len(answers)) {
		if times := answers[n+1]; times != 1 {
			t.Errorf("of %d answers, number %d was given %d times", len(answers), n+1, times)
		}
	}
	if !strings.Contains(p.stderr.String(), "stopped, every request was answered") {
		t.Errorf("standard error: %s", p.stderr)
	}
}

// loadCaller has a connection of its own. Its askers are those of the conformance doors, whose policy is named suite.
func loadCaller(t *testing.T, p *process, overGRPC bool) asker {
	t.Helper()
	if !overGRPC {
		a := newHTTPAsker("http://" + p.http)
		t.Cleanup(func() { _ = a.Close() })
		return a
	}
	c, err := client.Dial(p.grpc, client.WithTimeout(atMost))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return grpcAsker{c}
}

// unfinished says why an error is none that a stopping server may cause, or is empty.
func unfinished(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "Client.Timeout"):
		return "no answer in time"
	case strings.Contains(err.Error(), "unexpected EOF"), strings.Contains(err.Error(), "unexpected end of JSON"):
		return "half an answer"
	case strings.Contains(err.Error(), "error reading from server"):
		return "the connection broke"
	}
	return ""
}

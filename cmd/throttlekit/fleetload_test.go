package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

var fleetLoad = flag.Duration("fleetload", 6*time.Second, "how long TestFleetUnderLoad puts load on a fleet")

const (
	leasedClientName  = "leased-client"
	fleetLimit        = 5000 // per second
	fleetWindowMillis = 1000
	fleetCallers      = 4
)

// leasedClient is the program of one leased client: it checks as fast as a few paced goroutines can, and writes a line
// for each admission: when it asked, when it had the answer, and the end of the window that paid.
func leasedClient() {
	ctx := context.Background()
	c, err := client.Dial(os.Args[1], client.WithUnavailable(client.FailClosed))
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	leased, err := c.Fleet().Leased("fleet", "", 50)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for range fleetCallers {
		go func() {
			for range time.Tick(2 * time.Millisecond) {
				for range 4 { // all clients together ask for more than the limit
					before := time.Now().UnixMilli()
					if d, err := leased.Check(ctx, ""); err == nil && d.Allowed {
						_, _ = fmt.Printf("%d %d %d\n", before, time.Now().UnixMilli(), d.ResetAtMillis)
					}
				}
			}
		}()
	}
	select {} // until it is killed
}

// tally counts admissions by window.
type tally struct {
	mu       sync.Mutex
	paid     map[int64]int // by the end of the window that paid
	happened map[int64]int // by the wall clock, of those that happened in one window for certain
	total    int
}

func (c *tally) read(lines *bufio.Scanner) {
	for lines.Scan() {
		var before, after, reset int64
		if n, err := fmt.Sscan(lines.Text(), &before, &after, &reset); n != 3 || err != nil {
			continue // a line that a killed client did not finish
		}
		c.mu.Lock()
		c.total++
		c.paid[reset]++
		if window := before / fleetWindowMillis; window == after/fleetWindowMillis {
			c.happened[window]++
		}
		c.mu.Unlock()
	}
}

// Two servers on one Redis, four leased clients in processes of their own. Redis freezes, one client is killed with
// units in its hands: no window admits more than the limit.
func TestFleetUnderLoad(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf("limiters:\n  fleet: {strategy: fixedWindow, limit: %d, windowMs: %d, federated: {}}\n", fleetLimit, fleetWindowMillis)
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	redis := startRedis(t, redistest.Options{})
	var servers [2]*process
	for i := range servers {
		servers[i] = serve(t, "--port", "0", "--http-port", "off", "--config", file, "--redis", redis.URL())
	}
	counts := &tally{paid: map[int64]int{}, happened: map[int64]int{}}
	var readers sync.WaitGroup
	var clients [4]*exec.Cmd
	for i := range clients {
		clients[i] = exec.CommandContext(t.Context(), leasedClientName, servers[i%2].grpc)
		clients[i].Stderr = os.Stderr
		out, err := clients[i].StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := clients[i].Start(); err != nil {
			t.Fatal(err)
		}
		readers.Go(func() { counts.read(bufio.NewScanner(out)) })
	}
	pass(t, *fleetLoad/3)
	if err := redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	pass(t, 1500*time.Millisecond)
	if err := redis.Thaw(); err != nil {
		t.Fatal(err)
	}
	pass(t, *fleetLoad/3)
	if err := clients[0].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	pass(t, *fleetLoad/3)
	for _, c := range clients[1:] {
		_ = c.Process.Kill()
	}
	readers.Wait()
	for _, c := range clients {
		_ = c.Wait() // all of them were killed
	}

	full := 0
	for name, windows := range map[string]map[int64]int{"that end at": counts.paid, "number": counts.happened} {
		for window, n := range windows {
			if n > fleetLimit {
				t.Errorf("the window %s %d admitted %d, the limit is %d", name, window, n, fleetLimit)
			}
			if n == fleetLimit {
				full++
			}
		}
	}
	if counts.total < fleetLimit {
		t.Errorf("%d admissions in all are no load", counts.total)
	}
	most := 0
	for _, n := range counts.paid {
		most = max(most, n)
	}
	t.Logf("%d admissions in %d windows, at most %d in one of %d; %d counts reached the limit",
		counts.total, len(counts.paid), most, fleetLimit, full)
}

// pass lets real time pass: the processes of this test live in it.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

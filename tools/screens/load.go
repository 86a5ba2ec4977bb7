package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/throttlekit/throttlekit-go/client"
)

//go:embed policies.yaml
var policies []byte

var listening = regexp.MustCompile(`throttlekit listening on (\S+) \(gRPC\)`)

// serve runs "throttlekit serve" and asks it until stop is called.
func serve(ctx context.Context, throttlekit string) (addr string, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, throttlekit, "serve", "--config", "-", "--port", "0", "--http-port", "off", "--node-id", "10.0.0.7:50051")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(policies), os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return "", nil, err
	}
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			addr = found[1]
		}
	}
	c, err := client.Dial(addr)
	if err != nil {
		cancel()
		return "", nil, err
	}
	var running sync.WaitGroup
	load(ctx, &running, c)
	return addr, func() {
		cancel()
		running.Wait()
		_ = c.Close()
		_ = cmd.Wait()
	}, nil
}

var customers = []string{"acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne", "tyrell", "cyberdyne", "soylent"}

// customer is one of them, the first ones more often than the others.
func customer() string { return customers[min(int(rand.ExpFloat64()*2), len(customers)-1)] }

// load asks as the callers of a busy service would.
func load(ctx context.Context, running *sync.WaitGroup, c *client.Client) {
	every := func(pause time.Duration, ask func()) {
		running.Go(func() {
			for ctx.Err() == nil {
				ask()
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration((0.5 + rand.Float64()) * float64(pause))):
				}
			}
		})
	}
	for range 4 {
		every(4*time.Millisecond, func() { _, _ = c.Check(ctx, "api", customer()) })
		every(9*time.Millisecond, func() { _, _ = c.Check(ctx, "tenants", customer()) })
	}
	every(30*time.Millisecond, func() { _, _ = c.Check(ctx, "default", "10.1.0."+fmt.Sprint(rand.IntN(20))) })
	every(300*time.Millisecond, func() { _, _ = c.Check(ctx, "login", []string{"mallory", "trudy", "alice"}[rand.IntN(3)]) })
	every(60*time.Millisecond, func() { _, _ = c.Check(ctx, "daily", customer()) })
	every(25*time.Millisecond, func() { _, _ = c.Debit(ctx, "tokens", "team-"+string(rune('a'+rand.IntN(4))), 400+rand.Int64N(900)) })
	work := func(policy string, least, spread int) func() {
		return func() {
			_ = c.Do(ctx, policy, customer(), func(ctx context.Context) error {
				select {
				case <-time.After(time.Duration(least+rand.IntN(spread)) * time.Millisecond):
				case <-ctx.Done():
				}
				return nil
			})
		}
	}
	for range 24 {
		every(60*time.Millisecond, work("llm", 40, 80))
	}
	for range 8 {
		every(80*time.Millisecond, work("jobs", 10, 90))
	}
}

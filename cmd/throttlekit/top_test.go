package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

const watchedPolicies = `
limiters:
  api: { strategy: fixedWindow, limit: 2, period: 50000d }
  pace: { strategy: gcra, limit: 60, period: 1m, burst: 3 }
  jobs: { concurrency: { minLimit: 1, maxLimit: 1 } }
  tenants: { fairEscrow: { limit: 4, windowMs: 86400000, weights: { gold: 3 } } }
  tokens: { tokenBudget: { budget: 10, windowMs: 86400000 } }
`

// watched is a server with a Monitor door, in this process.
func watched(t *testing.T, secret *string) (addr string, svc *service.Service) {
	t.Helper()
	hub, err := monitor.New(monitor.Config{Node: "here", Backend: "memory"})
	if err != nil {
		t.Fatal(err)
	}
	svc = watchedService(t, hub)
	return serving1(t, svc, server.Config{Monitor: hub, MonitorSecret: secret}), svc
}

func watchedService(t *testing.T, hub *monitor.Hub) *service.Service {
	t.Helper()
	file, err := policy.Parse("watched.yaml", []byte(watchedPolicies))
	if err != nil {
		t.Fatal(err)
	}
	config := service.Config{FailMode: service.FailOpen}
	if hub != nil {
		config.Taps = []service.Tap{hub}
	}
	svc, err := newService(file, policy.Env{}, config)
	if err != nil {
		t.Fatal(err)
	}
	if hub != nil {
		if err := hub.Attach(svc); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = svc.Close() })
	return svc
}

// serving1 serves a service on a free port until the test ends.
func serving1(t *testing.T, svc *service.Service, config server.Config) (addr string) {
	t.Helper()
	config.GRPCAddr, config.HTTPAddr = anyPort, server.Off
	srv, err := server.New(svc, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-served
	})
	return srv.GRPCAddr().String()
}

// command runs the program within this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestTopPrints(t *testing.T) {
	t.Parallel()
	addr, svc := watched(t, nil)
	for range 3 {
		if _, err := svc.Check(t.Context(), "api", "\x1b[31mmallory", 1); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := command(t, "top", "--once", "--addr", addr)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{"OVERVIEW", "LATENCY", "FAIRNESS", "CAPACITY", "GUARDS", "BUDGETS", "LEASES", `\x1b[31mmallory`, "2 allowed, 1 denied", "here"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("escape codes in %q", out)
	}
	for line := range strings.Lines(out) {
		if len([]rune(line)) > 101 {
			t.Errorf("too long: %q", line)
		}
	}
	code, out, errs = command(t, "top", "--json", "--addr", addr)
	var s monitor.Snapshot
	if err := json.Unmarshal([]byte(out), &s); code != 0 || err != nil || len(s.Policies) != 5 || s.Policies[0].Analytics.Denied != 1 {
		t.Errorf("exit code %d, %v: %s%s", code, err, out, errs)
	}
}

func TestTopRefuses(t *testing.T) {
	t.Parallel()
	secret := "s3cret"
	locked, _ := watched(t, &secret)
	dark := serving1(t, watchedService(t, nil), server.Config{})
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--addr", locked}, 2, "standard output is no terminal"},
		{[]string{"--addr", locked, "--once"}, 2, "who present its monitor secret (--monitor-secret or $THROTTLEKIT_MONITOR_SECRET)"},
		{[]string{"--addr", locked, "--once", "--monitor-secret", "guess"}, 2, "refuses the monitor secret"},
		{[]string{"--addr", locked, "--json", "--monitor-secret", secret}, 0, ""},
		{[]string{"--addr", dark, "--once"}, 2, "has no Monitor door"},
		{[]string{"--addr", "127.0.0.1:1", "--once"}, 1, "no server answers at 127.0.0.1:1"},
		{[]string{"--once", "--monitor-secret", ""}, 2, "--monitor-secret must not be empty"},
		{[]string{"--once", "--interval", "1ms"}, 2, "--interval must be at least 100ms, got 1ms"},
		{[]string{"--once", "--view", "all"}, 2, "--view must be overview, "},
		{[]string{"here"}, 2, "unexpected argument"},
	} {
		code, out, errs := command(t, append([]string{"top"}, test.args...)...)
		if code != test.code || !strings.Contains(errs, test.want) || (code != 0 && out != "") {
			t.Errorf("%q: exit code %d\n%s%s", test.args, code, out, errs)
		}
		if strings.Contains(errs, "guess") {
			t.Errorf("the secret is shown: %s", errs)
		}
	}
}

func TestLocale(t *testing.T) {
	for _, test := range []struct {
		all, lang string
		want      bool
	}{{"", "en_US.UTF-8", true}, {"C", "en_US.UTF-8", false}, {"de_DE.utf8", "C", true}, {"", "POSIX", false}} {
		t.Setenv("LC_ALL", test.all)
		t.Setenv("LC_CTYPE", "")
		t.Setenv("LANG", test.lang)
		if got := speaksUTF8(); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// Two servers lease one budget from one Redis: of 20 checks, in turns, as many are admitted as the limit says, and a
// client that leases finds the budget as they left it.
func TestServersFederate(t *testing.T) {
	t.Parallel()
	const text = "limiters:\n  fleet: {strategy: fixedWindow, limit: 5, period: 50000d, federated: {batch: 1}}\n"
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	redis := startRedis(t, redistest.Options{})
	var servers [2]*process
	for i := range servers {
		servers[i] = serve(t, "--port", "0", "--http-port", "off", "--config", file, "--redis", redis.URL(),
			"--store-timeout", atMost.String(), "--fleet-secret", "s3cret")
	}
	allowed := 0
	for i := range 20 {
		err := exec.CommandContext(t.Context(), "throttlekit", "check", "fleet", "me", "--addr", servers[i%2].grpc, "--timeout", atMost.String()).Run()
		exit, failed := errors.AsType[*exec.ExitError](err)
		switch {
		case err == nil:
			allowed++
		case !failed || exit.ExitCode() != codeDenied:
			t.Fatalf("check %d: %v", i, err)
		}
	}
	if allowed != 5 {
		t.Errorf("%d of 20 checks were admitted, want 5", allowed)
	}
	for _, test := range []struct {
		domain string
		want   int
	}{{"me", 0}, {"you", 5}} {
		admitted := 0
		for i := range 10 {
			if leases(t, servers[i%2], test.domain) {
				admitted++
			}
		}
		if admitted != test.want {
			t.Errorf("%q: leased %d times, want %d", test.domain, admitted, test.want)
		}
	}
}

// leases reports whether a server lends a client one unit.
func leases(t *testing.T, p *process, domain string) bool {
	t.Helper()
	c, err := client.Dial(p.grpc, client.WithTimeout(atMost), client.WithFleetSecret("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := c.Fleet().Leased("fleet", domain, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := l.Check(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return d.Allowed
}

// The environment says what the flags do not.
func TestFleetVariables(t *testing.T) {
	for _, test := range []struct {
		args           []string
		secret, region string
	}{
		{nil, "from env", "eu"},
		{[]string{"--fleet-secret", "flag"}, "flag", "eu"},
		{[]string{"--region", "us"}, "from env", "us"},
	} {
		t.Setenv(secretVariable, "from env")
		t.Setenv(regionVariable, "eu")
		var f fleet
		cmd := &cobra.Command{}
		f.define(cmd)
		if err := cmd.ParseFlags(test.args); err != nil {
			t.Fatal(err)
		}
		if err := f.settle(cmd); err != nil || string(f.secret) != test.secret || string(f.region) != test.region {
			t.Errorf("%v: got %q, %q, %v", test.args, string(f.secret), string(f.region), err)
		}
	}
}

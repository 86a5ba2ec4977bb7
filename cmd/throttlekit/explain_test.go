package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	addr, svc := watched(t, nil)
	ask := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		_, err := svc.Check(t.Context(), "api", "mallory", 1)
		ask(err)
		_, err = svc.Check(t.Context(), "tenants", "gold", 1)
		ask(err)
	}
	_, err := svc.Check(t.Context(), "pace", "alice", 1)
	ask(err)
	for range 2 {
		_, err = svc.Debit(t.Context(), "tokens", "team", 10)
		ask(err)
	}
	for _, test := range []struct {
		args  string
		code  int
		lines []string
	}{
		{"api alice", 0, []string{
			`^would be allowed  alice in api$`,
			`^  rule +fixedWindow, limit 2, fail mode open, store memory$`,
			`^  left +2 of 2, whole again \d`,
			`^  can spend +2 requests of cost 1 now$`,
			`^  binds +rate after 2 more requests`,
			`^  this window +2 allowed and 1 denied by this policy$`,
		}},
		{"api mallory", 3, []string{
			`^would be denied  mallory in api$`,
			`^  left +0 of 2, whole again \d.* \(in \d+h`,
			`^  can spend +0 requests of cost 1 now$`,
			`^  binds +rate now; it next has more \d.* \(in \d+h`,
			`^  this window .*; the key is no\. 1 of those denied \(1\)$`,
			`^  last denied +\d.* by rate, whole again `,
		}},
		{"pace alice", 0, []string{
			`^  rule +gcra, limit 3`, `^  left +2 of 3`, `^  this window .*no\. 1 of those asked for \(1\)$`,
		}},
		{"api alice --cost 3", 3, []string{`^would be denied  alice in api, cost 3$`, `^  binds +rate: cost 3 can never be allowed$`}},
		{"api alice --cost 2", 0, []string{`^would be allowed  alice in api, cost 2$`, `^  binds +rate after 1 more request;`}},
		{"jobs nightly", 0, []string{
			`^cannot be foreseen  nightly in jobs$`,
			`^  rule +concurrency,`,
			`^  in flight +0 of 1, 0 waiting$`,
			`^  binds +concurrency after 1 more at once$`,
			`^  no peek +policy "jobs" of kind concurrency cannot peek`,
		}},
		{"tenants gold", 0, []string{
			`^cannot be foreseen  gold in tenants$`,
			`^  share +\d used at weight 3, \d guaranteed; \d of 4 units used by 1 tenant$`,
			`^  binds +fairness$`,
		}},
		{"tenants nobody", 0, []string{`^  share .*; this one has used none$`}},
		{"tokens team", 0, []string{`^  binds +cost$`, `^  last denied +\d.* by cost, whole again `}},
	} {
		code, out, errs := command(t, append([]string{"explain", "--addr", addr}, strings.Fields(test.args)...)...)
		if code != test.code || errs != "" {
			t.Errorf("%s: exit code %d, want %d: %s", test.args, code, test.code, errs)
		}
		for _, line := range test.lines {
			if !regexp.MustCompile("(?m)" + line).MatchString(out) {
				t.Errorf("%s: %s is missing in\n%s", test.args, line, out)
			}
		}
		code, out, errs = command(t, append([]string{"explain", "-o", "json", "--addr", addr}, strings.Fields(test.args)...)...)
		var e explanation
		if err := json.Unmarshal([]byte(out), &e); err != nil || code != test.code || e.Rule == nil || e.Window == nil || errs != "" {
			t.Errorf("%s: exit code %d, %v: %s", test.args, code, err, out)
		}
	}
}

// A guard that is full denies, whoever asks.
func TestExplainFullGuard(t *testing.T) {
	t.Parallel()
	addr, svc := watched(t, nil)
	if _, err := svc.Admit(t.Context(), "jobs", service.AdmitRequest{Key: "holder"}); err != nil {
		t.Fatal(err)
	}
	code, out, _ := command(t, "explain", "jobs", "nightly", "--addr", addr)
	if code != 3 || !strings.Contains(out, "would be denied") || !strings.Contains(out, "concurrency, until a slot is given back") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// What cannot be watched can be explained all the same, as far as Peek and Forecast go.
func TestExplainUnwatched(t *testing.T) {
	t.Parallel()
	secret := "s3cret"
	locked, _ := watched(t, &secret)
	for addr, why := range map[string]string{
		locked: "not watched  the server at " + locked + " lets only those watch it who present its monitor secret",
		serving1(t, watchedService(t, nil), server.Config{}): "it has no Monitor door",
	} {
		code, out, errs := command(t, "explain", "api", "alice", "--addr", addr)
		if code != 0 || !strings.Contains(out, "rule         limit 2\n") || !strings.Contains(out, why) {
			t.Errorf("exit code %d:\n%s%s", code, out, errs)
		}
	}
	code, out, _ := command(t, "explain", "api", "alice", "--addr", locked, "--monitor-secret", secret)
	if code != 0 || !strings.Contains(out, "rule         fixedWindow, limit 2") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"none alice --addr " + locked, 2, `policy not found: "none"`},
		{"api --addr " + locked, 2, "an argument is missing"},
		{"api alice --cost 0", 2, "--cost must be an integer"},
		{"api alice --addr 127.0.0.1:1", 1, "no server answers"},
	} {
		code, out, errs := command(t, append([]string{"explain"}, strings.Fields(test.args)...)...)
		if code != test.code || !strings.Contains(errs, test.want) || out != "" {
			t.Errorf("%s: exit code %d\n%s%s", test.args, code, out, errs)
		}
	}
}

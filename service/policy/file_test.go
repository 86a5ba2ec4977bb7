package policy_test

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/wrong.txt anew; read the difference before you keep it")

// TestParseReportsAll holds every line that one file with all kinds of mistakes gets to a golden text.
func TestParseReportsAll(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/wrong.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = policy.Parse("wrong.yaml", text)
	if !errors.Is(err, throttlekit.ErrInvalid) {
		t.Fatalf("got %v, want an error that matches ErrInvalid", err)
	}
	got := err.Error() + "\n"
	if *rewrite {
		if err := os.WriteFile("testdata/wrong.txt", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/wrong.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseProblemFields(t *testing.T) {
	t.Parallel()
	_, err := policy.Parse("p.yaml", []byte("limiters:\n  api: {strategy: gcra, limit: -1, period: 1m}\n"))
	var e *policy.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T, want *policy.Error", err)
	}
	want := []policy.Problem{{
		File: "p.yaml", Line: 2, Column: 32, Path: "limiters.api.limit",
		Rule: "must be a positive finite number", Value: "-1",
	}}
	if !reflect.DeepEqual(e.Problems, want) || e.Omitted != 0 {
		t.Errorf("got %+v, want %+v", e, want)
	}
}

func TestParseBoundsProblems(t *testing.T) {
	t.Parallel()
	_, err := policy.Parse("p.yaml", []byte("limiters:\n"+strings.Repeat("  a: {}\n", 1500)))
	var e *policy.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want *policy.Error", err)
	}
	if len(e.Problems) != 1000 || e.Omitted != 500 {
		t.Errorf("got %d problems and %d omitted, want 1000 and 500", len(e.Problems), e.Omitted)
	}
	if !strings.HasSuffix(err.Error(), "\nand 500 more problems") {
		t.Errorf("the message does not say that problems are missing")
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(path, []byte(policy.StarterText()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := policy.Load(path)
	if err != nil || f.Name() != path || len(f.Policies()) != 4 {
		t.Errorf("got %v, %v", f, err)
	}
	if _, err := policy.Load(path + ".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that matches fs.ErrNotExist", err)
	}
	if _, err := policy.Load(t.TempDir()); err == nil {
		t.Error("a directory is no policy file")
	}
	if _, err := policy.Load("/dev/zero"); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("got %v from an endless file, want an error that matches ErrInvalid", err)
	}
}

func TestStarter(t *testing.T) {
	t.Parallel()
	f, err := policy.Starter()
	if err != nil {
		t.Fatal(err)
	}
	want := []service.Info{
		{Name: "default", Kind: "plain", Strategy: "gcra", Limit: 20},
		{Name: "login", Kind: "plain", Strategy: "slidingWindowLog", Limit: 5, FailMode: service.FailClosed},
		{Name: "api", Kind: "plain", Strategy: "tokenBucket", Limit: 50},
		{Name: "daily", Kind: "plain", Strategy: "quota", Limit: 10000},
	}
	if got := f.Policies(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(f.Warnings()) != 0 {
		t.Errorf("got warnings %v", f.Warnings())
	}
	policies, err := f.Build(policy.Env{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(service.Config{Policies: policies})
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range s.Policies() {
		if d, err := s.Check(t.Context(), info.Name, "k", 1); err != nil || !d.Allowed || d.Limit != info.Limit {
			t.Errorf("%s: got %+v, %v", info.Name, d, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// keys is a store that notes under which keys it is used.
type keys struct {
	throttlekit.Store

	seen   []string
	closed bool
}

func (k *keys) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	k.seen = append(k.seen, key)
	return k.Store.Apply(ctx, key, t, cost)
}

func (k *keys) Close() error {
	k.closed = true
	return k.Store.Close()
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	m, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: throttlekit.NewManualClock(1e12)})
	if err != nil {
		t.Fatal(err)
	}
	return &keys{Store: m}
}

func TestBuildPrefixes(t *testing.T) {
	t.Parallel()
	const plain = "strategy: tokenBucket, capacity: 5, refillPerSec: 1"
	for _, tt := range []struct{ name, text, want string }{
		{"name", "limiters: {api: {" + plain + "}}", "api:k"},
		{"defaults", "defaults: {prefix: shop}\nlimiters: {api: {" + plain + "}}", "shop:k"},
		{"own", "defaults: {prefix: shop}\nlimiters: {api: {" + plain + ", prefix: a}}", "a:k"},
		{"empty", "defaults: {prefix: shop}\nlimiters: {api: {" + plain + ", prefix: ''}}", "k"},
		{"null is none", "defaults: {prefix: }\nlimiters: {api: {" + plain + ", prefix: ~}}", "api:k"},
		{"number-like name", "limiters: {1: {" + plain + "}}", "1:k"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := newKeys(t)
			p := build(t, tt.text, policy.Env{Store: store})[0]
			if _, err := p.(service.Checker).Check(t.Context(), "k", 1); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(store.seen, []string{tt.want}) {
				t.Errorf("got keys %q, want %q", store.seen, tt.want)
			}
			if err := p.Close(); err != nil || store.closed {
				t.Errorf("got %v, closed %v; a shared store must stay open", err, store.closed)
			}
		})
	}
}

func TestBuildPrivateStores(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(1e12)
	built := build(t, "limiters:\n  a: {strategy: fixedWindow, limit: 1, period: 1s, prefix: x}\n"+
		"  b: {strategy: fixedWindow, limit: 1, period: 1s, prefix: x}\n", policy.Env{Clock: clock})
	check := func(i int, want bool) {
		t.Helper()
		if d, err := built[i].(service.Checker).Check(t.Context(), "k", 1); err != nil || d.Allowed != want {
			t.Errorf("policy %d: got %+v, %v, want allowed %v", i, d, err, want)
		}
	}
	check(0, true)
	check(0, false)
	check(1, true) // its records are its own
	clock.Advance(time.Second)
	check(0, true)
	for _, p := range built {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if _, err := p.(service.Checker).Check(t.Context(), "k", 1); !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("got %v after Close, want ErrClosed", err)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	f, err := policy.Parse("p.yaml", []byte(`defaults: {prefix: shop}
limiters:
  a: {strategy: fixedWindow, limit: 1, period: 1s}
  b: {strategy: gcra, limit: 1, period: 1s}
  c: {strategy: fixedWindow, limit: 1, windowMs: 1000}
  d: {strategy: gcra, limit: 1, period: 1s, prefix: d}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := f.Warnings()
	want := "p.yaml:4:3: limiters.b: shares the prefix \"shop\" with limiters.a, but not its strategy; give each its own prefix"
	if len(got) != 1 || got[0].String() != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// build parses and builds a text that has nothing wrong with it.
func build(t *testing.T, text string, env policy.Env) []service.Policy {
	t.Helper()
	f, err := policy.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	built, err := f.Build(env)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func TestPrivateStoresAreBounded(t *testing.T) {
	t.Parallel()
	file, err := policy.Parse("p.yaml", []byte("limiters:\n  api: {strategy: gcra, limit: 1, period: 1h}\n"))
	if err != nil {
		t.Fatal(err)
	}
	policies, err := file.Build(policy.Env{MaxKeys: 1})
	if err != nil {
		t.Fatal(err)
	}
	checker, ok := policies[0].(service.Checker)
	if !ok {
		t.Fatal("a plain policy does not check")
	}
	if _, err := checker.Check(t.Context(), "a", 1); err != nil {
		t.Error(err)
	}
	if _, err := checker.Check(t.Context(), "b", 1); !errors.Is(err, throttlekit.ErrStoreFull) {
		t.Errorf("second key: %v", err)
	}
	if err := policies[0].Close(); err != nil {
		t.Error(err)
	}
}

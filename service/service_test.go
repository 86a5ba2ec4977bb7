package service_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

const text = `limiters:
  api: {strategy: gcra, limit: 10, period: 1s, burst: 5}
  day: {strategy: fixedWindow, limit: 2, period: 1d, failMode: closed}
`

// newStore is a memory store whose clock stands still.
func newStore(tb testing.TB, maxKeys int) throttlekit.Store {
	tb.Helper()
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{
		Clock: throttlekit.NewManualClock(1_700_000_000_000), MaxKeys: maxKeys,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	return store
}

// newService is a service for the policies in text, on store.
func newService(tb testing.TB, text string, store throttlekit.Store, config service.Config) *service.Service {
	tb.Helper()
	f, err := policy.Parse("test.yaml", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	built, err := f.Build(policy.Env{Store: store})
	if err != nil {
		tb.Fatal(err)
	}
	config.Policies = append(built, config.Policies...)
	s, err := service.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

// bare is a policy that can do nothing.
type bare struct {
	info  service.Info
	err   error
	count *atomic.Int64
}

func (b bare) Info() service.Info { return b.info }

func (b bare) Close() error {
	if b.count != nil {
		b.count.Add(1)
	}
	return b.err
}

func TestNewReportsAll(t *testing.T) {
	t.Parallel()
	_, err := service.New(service.Config{
		FailMode: "ajar",
		Taps:     []service.Tap{nil},
		Policies: []service.Policy{
			bare{info: service.Info{Name: "a"}},
			bare{info: service.Info{Name: "a"}},
			nil,
			bare{info: service.Info{FailMode: "Open"}},
		},
	})
	const want = `failMode must be open or closed, got "ajar"
taps[0] must be given, got <nil>
policies[1].name must be unique, got "a"
policies[2] must be given, got <nil>
policies[3].failMode must be open or closed, got "Open"
policies[3].name must not be empty, got ""`
	if !errors.Is(err, throttlekit.ErrInvalid) || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestPoliciesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	s := newService(t, text, nil, service.Config{Policies: []service.Policy{bare{info: service.Info{Name: "zero", Kind: "meter"}}}})
	want := []service.Info{
		{Name: "api", Kind: "plain", Strategy: "gcra", Limit: 5},
		{Name: "day", Kind: "plain", Strategy: "fixedWindow", Limit: 2, FailMode: service.FailClosed},
		{Name: "zero", Kind: "meter"},
	}
	got := s.Policies()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got[0].Name = "changed"
	if s.Policies()[0].Name != "api" {
		t.Error("a caller can change the service's policies")
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	s := newService(t, text, newStore(t, 0), service.Config{})
	ctx := t.Context()
	for want := int64(4); want >= 0; want-- {
		if d, err := s.Check(ctx, "api", "k", 1); err != nil || !d.Allowed || d.Remaining != want {
			t.Fatalf("got %+v, %v, want %d remaining", d, err, want)
		}
	}
	if d, err := s.Check(ctx, "api", "k", 1); err != nil || d.Allowed || d.Limit != 5 || d.RetryAfterMillis != 100 {
		t.Errorf("got %+v, %v, want a denial", d, err)
	}
	if d, err := s.Check(ctx, "api", "", 5); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v for the empty key", d, err)
	}
	if d, err := s.Check(ctx, "api", "\xff\x00", 0.5); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v for a binary key", d, err)
	}
	many, err := s.CheckMany(ctx, "day", []string{"a", "b", "a", "a"}, 1)
	if err != nil || len(many) != 4 || !many[0].Allowed || !many[1].Allowed || !many[2].Allowed || many[3].Allowed {
		t.Errorf("got %+v, %v", many, err)
	}
	if none, err := s.CheckMany(ctx, "day", nil, 1); err != nil || len(none) != 0 {
		t.Errorf("got %+v, %v for no keys", none, err)
	}
	for range 2 {
		if d, err := s.Peek(ctx, "day", "b"); err != nil || !d.Allowed || d.Remaining != 1 {
			t.Errorf("got %+v, %v from Peek", d, err)
		}
	}
	if f, err := s.Forecast(ctx, "api", "k", 1); err != nil || f.SpendableNow != 0 || f.FullAtMillis == 0 {
		t.Errorf("got %+v, %v from Forecast", f, err)
	}
}

// operation is one way of asking a service.
type operation struct {
	name string
	run  func(s *service.Service, ctx context.Context, policy, key string, cost float64) error
}

var operations = []operation{
	{"check", func(s *service.Service, ctx context.Context, policy, key string, cost float64) error {
		_, err := s.Check(ctx, policy, key, cost)
		return err
	}},
	{"check many", func(s *service.Service, ctx context.Context, policy, key string, cost float64) error {
		_, err := s.CheckMany(ctx, policy, []string{"first", key}, cost)
		return err
	}},
	{"peek", func(s *service.Service, ctx context.Context, policy, key string, _ float64) error {
		_, err := s.Peek(ctx, policy, key)
		return err
	}},
	{"forecast", func(s *service.Service, ctx context.Context, policy, key string, cost float64) error {
		_, err := s.Forecast(ctx, policy, key, cost)
		return err
	}},
}

func TestErrors(t *testing.T) {
	t.Parallel()
	tap := new(recorder)
	meter := bare{info: service.Info{Name: "meter", Kind: "tokenBudget"}}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, text, nil, service.Config{Policies: []service.Policy{meter}, Taps: []service.Tap{tap}})
			ctx := t.Context()
			run := func(policy, key string, cost float64, is error, want string) {
				t.Helper()
				err := op.run(s, ctx, policy, key, cost)
				if !errors.Is(err, is) || err.Error() != want {
					t.Errorf("got %v\nwant %s", err, want)
				}
			}
			run("nope", "k", 1, throttlekit.ErrPolicyNotFound, `throttlekit: policy not found: "nope"; configured: "api", "day", "meter"`)
			run("", "k", 1, throttlekit.ErrPolicyNotFound, `throttlekit: policy not found: ""; configured: "api", "day", "meter"`)
			run("a\n\x1b", "k", 1, throttlekit.ErrPolicyNotFound, `throttlekit: policy not found: "a\n\x1b"; configured: "api", "day", "meter"`)
			run(strings.Repeat("n", 1000), "k", 1, throttlekit.ErrPolicyNotFound,
				`throttlekit: policy not found: "`+strings.Repeat("n", 64)+`"… (1000 bytes); configured: "api", "day", "meter"`)
			run("meter", "k", 1, throttlekit.ErrUnsupported,
				`throttlekit: operation not supported: policy "meter" of kind tokenBudget cannot `+op.name)
			run("api", strings.Repeat("k", service.MaxKeyBytes+1), 1, throttlekit.ErrInvalid, "key must be at most 65536 bytes long, got 65537")
			if err := op.run(s, ctx, "api", strings.Repeat("k", service.MaxKeyBytes), 1); err != nil {
				t.Errorf("got %v for the longest key", err)
			}
			if op.name != "peek" {
				for _, cost := range []float64{0, -1, 1 << 53} {
					if err := op.run(s, ctx, "api", "k", cost); !errors.Is(err, throttlekit.ErrInvalid) {
						t.Errorf("cost %v: got %v, want ErrInvalid", cost, err)
					}
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			run("api", "k", 1, throttlekit.ErrClosed, "throttlekit: closed: the service")
		})
	}
	t.Cleanup(func() {
		for _, e := range tap.events {
			if len(e.Key) != service.MaxKeyBytes && e.Key != "first" {
				t.Errorf("an error was told to a tap: %+v", e)
			}
		}
	})
}

func TestUnknownPolicyListIsBounded(t *testing.T) {
	t.Parallel()
	var policies []service.Policy
	for i := range 23 {
		policies = append(policies, bare{info: service.Info{Name: strconv.Itoa(i)}})
	}
	s, err := service.New(service.Config{Policies: policies})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Check(t.Context(), "x", "k", 1)
	if err == nil || !strings.HasSuffix(err.Error(), `"18", "19" and 3 more`) {
		t.Errorf("got %v", err)
	}
	s, err = service.New(service.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Check(t.Context(), "x", "k", 1)
	if err == nil || err.Error() != `throttlekit: policy not found: "x"; configured: (none)` {
		t.Errorf("got %v", err)
	}
}

func TestCheckManyIsBounded(t *testing.T) {
	t.Parallel()
	s := newService(t, text, nil, service.Config{})
	if d, err := s.CheckMany(t.Context(), "api", make([]string, service.MaxKeys), 1); err != nil || len(d) != service.MaxKeys {
		t.Errorf("got %d decisions, %v", len(d), err)
	}
	_, err := s.CheckMany(t.Context(), "api", make([]string, service.MaxKeys+1), 1)
	var invalid *throttlekit.InvalidError
	if !errors.As(err, &invalid) || invalid.Field != "keys" || err.Error() != "keys must be at most 10000, got 10001" {
		t.Errorf("got %v", err)
	}
}

// short is a policy that forgets a decision.
type short struct{ bare }

func (short) CheckMany(_ context.Context, keys []string, _ float64) ([]throttlekit.Decision, error) {
	return make([]throttlekit.Decision, len(keys)-1), nil
}

func TestCheckManyMustAnswerAll(t *testing.T) {
	t.Parallel()
	s, err := service.New(service.Config{Policies: []service.Policy{short{bare{info: service.Info{Name: "p"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckMany(t.Context(), "p", []string{"a", "b"}, 1); err == nil {
		t.Error("got no error for a lost decision")
	}
}

func TestCloseIsIdempotent(t *testing.T) {
	t.Parallel()
	var count atomic.Int64
	broken := errors.New("broken")
	s, err := service.New(service.Config{Policies: []service.Policy{
		bare{info: service.Info{Name: "a"}, err: broken, count: &count},
		bare{info: service.Info{Name: "b"}, count: &count},
		bare{info: service.Info{Name: "c"}, err: broken, count: &count},
	}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "closing policy \"a\": broken\nclosing policy \"c\": broken"
	for range 2 {
		if err := s.Close(); !errors.Is(err, broken) || err.Error() != want {
			t.Errorf("got %v", err)
		}
	}
	if got := count.Load(); got != 3 {
		t.Errorf("policies were closed %d times, want 3", got)
	}
}

func TestBind(t *testing.T) {
	t.Parallel()
	tap := new(recorder)
	s := newService(t, text, newStore(t, 0), service.Config{
		Taps: []service.Tap{tap}, Policies: []service.Policy{bare{info: service.Info{Name: "meter"}}},
	})
	bound, err := s.Bind("day")
	if err != nil {
		t.Fatal(err)
	}
	var checker throttlekit.Checker = bound
	if d, err := checker.Check(t.Context(), "k"); err != nil || !d.Allowed || d.Remaining != 1 {
		t.Errorf("got %+v, %v", d, err)
	}
	if d, err := bound.CheckN(t.Context(), "k", 2); err != nil || d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
	if _, err := s.Bind("nope"); !errors.Is(err, throttlekit.ErrPolicyNotFound) {
		t.Errorf("got %v, want ErrPolicyNotFound", err)
	}
	if _, err := s.Bind("meter"); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Errorf("got %v, want ErrUnsupported", err)
	}
	if len(tap.events) != 2 {
		t.Errorf("a tap was told %d decisions, want 2", len(tap.events))
	}
	s.Close()
	if _, err := checker.Check(t.Context(), "k"); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// TestConcurrentUse drives every method at once; a limit must hold exactly.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	const limit, workers, rounds = 500, 8, 100
	s := newService(t, fmt.Sprintf("limiters: {p: {strategy: fixedWindow, limit: %d, period: 1d}}", limit),
		newStore(t, 0), service.Config{Taps: []service.Tap{new(recorder)}})
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				if d, err := s.Check(t.Context(), "p", "k", 1); err != nil {
					t.Error(err)
				} else if d.Allowed {
					allowed.Add(1)
				}
				many, err := s.CheckMany(t.Context(), "p", []string{"k", "other"}, 1)
				if err != nil {
					t.Error(err)
				} else if many[0].Allowed {
					allowed.Add(1)
				}
				if _, err := s.Peek(t.Context(), "p", "k"); err != nil {
					t.Error(err)
				}
				s.Policies()
				s.FailModeCount()
			}
		})
	}
	wg.Wait()
	if allowed.Load() != limit {
		t.Errorf("%d requests were admitted, want %d", allowed.Load(), limit)
	}
	for range workers {
		wg.Go(func() {
			s.Check(t.Context(), "p", "k", 1)
			s.Close()
		})
	}
	wg.Wait()
}

func TestCheckAllocatesNothing(t *testing.T) {
	f, err := policy.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, taps := range [][]service.Tap{nil, {counter{}}} {
		built, err := f.Build(policy.Env{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := service.New(service.Config{Policies: built, Taps: taps})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		bound, err := s.Bind("api")
		if err != nil {
			t.Fatal(err)
		}
		allocs := testing.AllocsPerRun(1000, func() {
			if _, err := s.Check(ctx, "api", "k", 1); err != nil {
				t.Fatal(err)
			}
			if _, err := bound.Check(ctx, "k"); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("with %d taps: %v allocations, want none", len(taps), allocs)
		}
		s.Close()
	}
}

// counter is a tap that does next to nothing.
type counter struct{}

func (counter) Decided(service.Event) {}

// recorder is a tap that keeps what it is told.
type recorder struct {
	mu     sync.Mutex
	events []service.Event
}

func (r *recorder) Decided(e service.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// steps is a clock that moves on by one step at every reading.
func steps(step time.Duration) func() time.Time {
	var n atomic.Int64
	return func() time.Time { return time.UnixMilli(0).Add(time.Duration(n.Add(1)) * step) }
}

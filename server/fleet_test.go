package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// lending is a service with a federated policy "fleet" of 5 units a minute, whose store tells the time by clock, and a
// plain policy "plain".
func lending(tb testing.TB, clock throttlekit.Clock) *service.Service {
	tb.Helper()
	return lendingFrom(tb, must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})), 5)
}

func lendingFrom(tb testing.TB, store throttlekit.Store, limit int) *service.Service {
	tb.Helper()
	file := must(policy.Parse("fleet.yaml", fmt.Appendf(nil, `limiters:
  fleet: {strategy: fixedWindow, limit: %d, period: 1m, federated: {batch: 1}}
  plain: {strategy: gcra, limit: 5, period: 1m}
`, limit)))
	svc := must(service.New(service.Config{Policies: must(file.Build(policy.Env{Store: store}))}))
	tb.Cleanup(func() {
		if err := errors.Join(svc.Close(), store.Close()); err != nil {
			tb.Error(err)
		}
	})
	return svc
}

// reserver asks Fleet.Reserve with some headers. It returns the name of the status code and the lease.
type reserver func(tb testing.TB, headers map[string]string, req *throttlekitv1.ReserveRequest) (code, message string, lease *throttlekitv1.Lease)

// reservers are the ways into Fleet.
func reservers(tb testing.TB, s *Server) map[string]reserver {
	tb.Helper()
	stub := throttlekitv1.NewFleetClient(dial(tb, s))
	web := httpClient(tb)
	return map[string]reserver{
		"grpc": func(tb testing.TB, headers map[string]string, req *throttlekitv1.ReserveRequest) (string, string, *throttlekitv1.Lease) {
			tb.Helper()
			res, err := stub.Reserve(metadata.NewOutgoingContext(tb.Context(), metadata.New(headers)), req)
			code := map[codes.Code]string{
				codes.OK: "ok", codes.Unauthenticated: "unauthenticated", codes.NotFound: "not_found",
				codes.InvalidArgument: "invalid_argument", codes.Unimplemented: "unimplemented", codes.Unavailable: "unavailable",
			}[status.Code(err)]
			return code, status.Convert(err).Message(), res.GetLease()
		},
		"http": func(tb testing.TB, headers map[string]string, req *throttlekitv1.ReserveRequest) (string, string, *throttlekitv1.Lease) {
			tb.Helper()
			r := must(http.NewRequestWithContext(tb.Context(), http.MethodPost,
				"http://"+s.HTTPAddr().String()+throttlekitv1connect.FleetReserveProcedure, bytes.NewReader(must(protojson.Marshal(req)))))
			r.Header.Set("Content-Type", "application/json")
			for name, value := range headers {
				r.Header.Set(name, value)
			}
			res, err := web.Do(r)
			if err != nil {
				tb.Fatal(err)
			}
			defer res.Body.Close()
			var text bytes.Buffer
			if _, err := text.ReadFrom(res.Body); err != nil {
				tb.Fatal(err)
			}
			if res.StatusCode == http.StatusOK {
				var answer throttlekitv1.ReserveResponse
				if err := protojson.Unmarshal(text.Bytes(), &answer); err != nil {
					tb.Fatal(err)
				}
				return "ok", "", answer.GetLease()
			}
			_, code, _ := strings.Cut(text.String(), `"code":"`)
			code, _, _ = strings.Cut(code, `"`)
			return code, text.String(), nil
		},
	}
}

func ask(domain string, wants int64) *throttlekitv1.ReserveRequest {
	return &throttlekitv1.ReserveRequest{Policy: "fleet", Caller: &throttlekitv1.Caller{Domain: domain}, Wants: wants}
}

// The numbers that the reference pins: a budget of 5, in windows of a minute, by the store's clock.
func TestReserve(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	svc := lending(t, clock)
	s, _ := serve(t, svc, local())
	windows := int64(1)
	for name, reserve := range reservers(t, s) {
		clock.Set(0)
		check := func(domain string, wants int64, want *throttlekitv1.Lease) {
			t.Helper()
			want.Limit, want.SafeCapacity = 5, want.GetCapacity()
			code, message, got := reserve(t, nil, ask(domain, wants))
			if code != "ok" || !proto.Equal(got, want) {
				t.Errorf("%s: %q wants %d: got %s %s %v, want %v", name, domain, wants, code, message, got, want)
			}
		}
		lent := func(units, expiry, interval int64) *throttlekitv1.Lease {
			return &throttlekitv1.Lease{Capacity: units, ExpiryMs: expiry, RefreshIntervalMs: interval}
		}
		check(name, 3, lent(3, 60_000, 60_000))
		check(name, 3, lent(2, 60_000, 60_000))
		check(name, 1, &throttlekitv1.Lease{ExpiryMs: 60_000, RefreshIntervalMs: 60_000, RetryAfterMs: 60_000})
		clock.Set(59_999)
		check(name, 1, &throttlekitv1.Lease{ExpiryMs: 60_000, RefreshIntervalMs: 1, RetryAfterMs: 1})
		clock.Set(60_000)
		check(name, 0, lent(1, 120_000, 60_000))
		clock.Set(61_500)
		check(name, throttlekit.MaxSafe, lent(4, 120_000, 58_500))

		// A domain is what a key is to Check, and none is the policy's name.
		if d, err := svc.Check(t.Context(), "fleet", name, 1); err != nil || d.Allowed {
			t.Errorf("%s: got %+v, %v, want a denial", name, d, err)
		}
		windows++
		clock.Set(120_000 * windows) // another one for each way in
		check("", 4, lent(4, clock.NowMillis()+60_000, 60_000))
		check("fleet", 4, lent(1, clock.NowMillis()+60_000, 60_000))
	}
}

func TestReserveRefuses(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, lending(t, throttlekit.NewManualClock(0)), local())
	axis := func(policy string, a throttlekitv1.Axis, wants int64) *throttlekitv1.ReserveRequest {
		return &throttlekitv1.ReserveRequest{Policy: policy, Axis: a, Wants: wants}
	}
	for name, reserve := range reservers(t, s) {
		for _, test := range []struct {
			req        *throttlekitv1.ReserveRequest
			code, says string
		}{
			{&throttlekitv1.ReserveRequest{Policy: "none"}, "not_found", "none"},
			{&throttlekitv1.ReserveRequest{}, "not_found", "configured"},
			{&throttlekitv1.ReserveRequest{Policy: "plain"}, "not_found", "of kind plain does not lend; federated policies do"},
			{axis("none", throttlekitv1.Axis_AXIS_CONCURRENCY, 1), "not_found", ""},
			{axis("fleet", throttlekitv1.Axis_AXIS_CONCURRENCY, 1), "unimplemented", "slots are not lent"},
			{ask("k", -1), "invalid_argument", "wants must be an integer from 1 to 9007199254740991, got -1"},
			{ask("k", math.MinInt64), "invalid_argument", "wants"},
			{ask("k", throttlekit.MaxSafe+1), "invalid_argument", "wants"},
			{ask("k", math.MaxInt64), "invalid_argument", "wants"},
			{ask(strings.Repeat("k", service.MaxKeyBytes+1), 1), "invalid_argument", "must be at most 65536 bytes"},
		} {
			if code, message, _ := reserve(t, nil, test.req); code != test.code || !strings.Contains(message, test.says) {
				t.Errorf("%s: %.100v: got %s: %s, want %s: %s", name, test.req, code, message, test.code, test.says)
			}
		}
		for _, a := range []throttlekitv1.Axis{throttlekitv1.Axis_AXIS_UNSPECIFIED, throttlekitv1.Axis_AXIS_RATE, throttlekitv1.Axis_AXIS_TOKEN_BUDGET, 77} {
			req := axis("fleet", a, 1)
			req.Caller = &throttlekitv1.Caller{Domain: fmt.Sprint(name, a), ClientId: "me", Region: "eu", Priority: 9}
			req.Has, req.Used = -5, 7
			if code, message, lease := reserve(t, nil, req); code != "ok" || lease.GetCapacity() != 1 {
				t.Errorf("%s: axis %v: got %s %s", name, a, code, message)
			}
		}
	}
	// What JSON can say and the contract cannot.
	for _, wants := range []string{"2.5", `"NaN"`, "1e300", `"x"`, "true"} {
		got := send(t, httpClient(t), http.MethodPost, "http://"+s.HTTPAddr().String()+throttlekitv1connect.FleetReserveProcedure,
			"application/json", `{"policy":"fleet","wants":`+wants+`}`)
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, "invalid_argument") {
			t.Errorf("wants %s: got %d %s", wants, got.status, got.body)
		}
	}
}

// A configured secret is asked of everybody, loopback included, before anything else is said.
func TestFleetSecret(t *testing.T) {
	t.Parallel()
	const secret = "correct horse"
	cfg := local()
	cfg.FleetSecret = secret
	s, _ := serve(t, lending(t, throttlekit.NewManualClock(0)), cfg)
	for name, reserve := range reservers(t, s) {
		for _, test := range []struct {
			headers map[string]string
			want    string
		}{
			{map[string]string{"x-fleet-secret": secret}, "ok"},
			{map[string]string{"authorization": "Bearer " + secret}, "ok"},
			{map[string]string{"authorization": "bEARER   " + secret}, "ok"},
			{map[string]string{"x-fleet-secret": secret, "authorization": "Bearer wrong"}, "ok"},
			{map[string]string{"x-fleet-secret": "wrong", "authorization": "Bearer " + secret}, "unauthenticated"},
			{nil, "unauthenticated"},
			{map[string]string{"x-fleet-secret": ""}, "unauthenticated"},
			{map[string]string{"x-fleet-secret": secret[:12]}, "unauthenticated"},
			{map[string]string{"x-fleet-secret": secret + "x"}, "unauthenticated"},
			{map[string]string{"x-fleet-secret": strings.Repeat("x", 8000)}, "unauthenticated"},
			{map[string]string{"authorization": secret}, "unauthenticated"},
			{map[string]string{"authorization": "Basic " + secret}, "unauthenticated"},
			{map[string]string{"authorization": "Bearer"}, "unauthenticated"},
		} {
			code, message, _ := reserve(t, test.headers, ask(fmt.Sprint(name, test.headers), 1))
			if code != test.want || strings.Contains(message, secret) {
				t.Errorf("%s: %v: got %s %s, want %s", name, test.headers, code, message, test.want)
			}
		}
		if code, message, _ := reserve(t, nil, &throttlekitv1.ReserveRequest{Policy: "none", Wants: -1}); code != "unauthenticated" {
			t.Errorf("%s: a stranger learns %s %s", name, code, message)
		}
	}
	// A stranger's request is not even read.
	got := send(t, httpClient(t), http.MethodPost, "http://"+s.HTTPAddr().String()+throttlekitv1connect.FleetReserveProcedure, "application/json", "{{{")
	if got.status != http.StatusUnauthorized {
		t.Errorf("got %d %s", got.status, got.body)
	}
	// The secret is for Fleet alone.
	if _, err := throttlekitv1.NewRateLimiterClient(dial(t, s)).Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "plain"}); err != nil {
		t.Errorf("check: %v", err)
	}
}

func TestFleetWithoutSecret(t *testing.T) {
	t.Parallel()
	f := newFleet(lending(t, throttlekit.NewManualClock(0)), "")
	none := func(string) string { return "anything" }
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.8.9.10:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true,
		"": false, "127.0.0.1": false, "localhost:1": false, "10.0.0.1:1": false, "[::ffff:10.0.0.1]:1": false, "[fe80::1%lo]:1": false,
		"0.0.0.0:1": false, "128.0.0.1:1": false, "@": false,
	} {
		if err := f.admit(none, addr); (err == nil) != want || err != nil && !errors.Is(err, errUnauthenticated) {
			t.Errorf("%q: got %v, want admitted %v", addr, err, want)
		}
	}
	if code := explain(t.Context(), f.admit(none, "")).code; code != codes.Unauthenticated {
		t.Errorf("got %v", code)
	}
}

// Fleet is there only if there is something to lend.
func TestFleetNotServed(t *testing.T) {
	t.Parallel()
	for _, svc := range []Service{policies(t), struct{ Service }{lending(t, throttlekit.NewManualClock(0))}} {
		s, _ := serve(t, svc, local())
		for name, reserve := range reservers(t, s) {
			if code, message, _ := reserve(t, nil, ask("k", 1)); code != "unimplemented" {
				t.Errorf("%s: got %s %s", name, code, message)
			}
		}
		if got := fleetHealth(t, s); got != codes.NotFound {
			t.Errorf("health: got %v", got)
		}
	}
	s, _ := serve(t, lending(t, throttlekit.NewManualClock(0)), local())
	if got := fleetHealth(t, s); got != codes.OK {
		t.Errorf("health: got %v", got)
	}
}

func fleetHealth(tb testing.TB, s *Server) codes.Code {
	tb.Helper()
	_, err := healthpb.NewHealthClient(dial(tb, s)).Check(tb.Context(), &healthpb.HealthCheckRequest{Service: "throttlekit.v1.Fleet"})
	return status.Code(err)
}

func TestFleetWarning(t *testing.T) {
	t.Parallel()
	const warning = "without a fleet secret"
	for _, test := range []struct {
		host, secret string
		lends, want  bool
	}{
		{"127.0.0.1", "", true, false}, {"0.0.0.0", "", true, true}, {"0.0.0.0", "s", true, false}, {"0.0.0.0", "", false, false},
	} {
		var log bytes.Buffer
		cfg := Config{GRPCAddr: test.host + ":0", HTTPAddr: Off, AllowInsecure: true, FleetSecret: test.secret}
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		svc := Service(policies(t))
		if test.lends {
			svc = lending(t, throttlekit.NewManualClock(0))
		}
		s, err := New(svc, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(log.String(), warning); got != test.want || test.secret != "" && strings.Contains(log.String(), "secret="+test.secret) {
			t.Errorf("%+v: got %s", test, &log)
		}
	}
}

func TestFleetSecretMustBePresentable(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{" x", "x ", "a\nb", "ä", "\x00", "\t"} {
		_, err := New(policies(t), Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: Off, FleetSecret: secret})
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), "FleetSecret must be printable ASCII") || strings.Contains(err.Error(), secret+`"`) {
			t.Errorf("%q: got %v", secret, err)
		}
	}
}

// A coordinator that is down is an error of Reserve: nobody can lend what may not be there.
func TestReserveWithoutCoordinator(t *testing.T) {
	t.Parallel()
	down := brokenStore{must(throttlekit.NewMemoryStore(throttlekit.MemoryConfig{}))}
	s, _ := serve(t, lendingFrom(t, down, 5), local())
	for name, reserve := range reservers(t, s) {
		if code, message, _ := reserve(t, nil, ask("k", 1)); code != "unavailable" {
			t.Errorf("%s: got %s %s", name, code, message)
		}
	}
}

type brokenStore struct{ throttlekit.Store }

func (brokenStore) Apply(context.Context, string, throttlekit.Transition, float64) (throttlekit.Decision, error) {
	return throttlekit.Decision{}, fmt.Errorf("%w: connection refused", throttlekit.ErrStoreUnavailable)
}

package server

import (
	"log/slog"
	"maps"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

var discard = slog.New(slog.DiscardHandler)

func TestHealth(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), local())
	client := healthpb.NewHealthClient(dial(t, s))
	for service, want := range map[string]codes.Code{
		"":                           codes.OK,
		"throttlekit.v1.RateLimiter": codes.OK,
		"throttlekit.v1.Monitor":     codes.NotFound, // not served
		"throttlekit.v1.Fleet":       codes.NotFound,
		"ratelimiter":                codes.NotFound,
	} {
		res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if status.Code(err) != want || err == nil && res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: got %v %v, want %v", service, res, err, want)
		}
	}
	list, err := client.List(t.Context(), &healthpb.HealthListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(list.GetStatuses())); !slices.Equal(names, []string{"", "throttlekit.v1.RateLimiter"}) {
		t.Errorf("listed: %q", names)
	}

	s.health.drain() // as Serve does first; the connection is still open here
	for _, service := range []string{"", "throttlekit.v1.RateLimiter"} {
		res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("%q while draining: got %v %v, want NOT_SERVING", service, res, err)
		}
	}
}

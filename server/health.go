package server

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// health answers grpc.health.v1.Health and knows whether the server is draining. grpc-go's own health server would do
// but for one thing: its Watch streams outlive a drain, so each open one would hold the shutdown until its deadline.
type health struct {
	healthpb.UnimplementedHealthServer

	known    []string
	draining chan struct{} // closed when draining begins
	drain    func()
}

// newHealth answers for the server as a whole and for these services.
func newHealth(services ...string) *health {
	draining := make(chan struct{})
	return &health{
		known:    append([]string{""}, services...),
		draining: draining,
		drain:    sync.OnceFunc(func() { close(draining) }),
	}
}

func (h *health) isDraining() bool {
	select {
	case <-h.draining:
		return true
	default:
		return false
	}
}

func (h *health) status(service string) healthpb.HealthCheckResponse_ServingStatus {
	switch {
	case !slices.Contains(h.known, service):
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	case h.isDraining():
		return healthpb.HealthCheckResponse_NOT_SERVING
	default:
		return healthpb.HealthCheckResponse_SERVING
	}
}

// Check implements grpc.health.v1.Health.
func (h *health) Check(_ context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s := h.status(req.GetService())
	if s == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Errorf(codes.NotFound, "this server does not offer service %q", readable(req.GetService()))
	}
	return &healthpb.HealthCheckResponse{Status: s}, nil
}

// List implements grpc.health.v1.Health.
func (h *health) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	statuses := make(map[string]*healthpb.HealthCheckResponse, len(h.known))
	for _, name := range h.known {
		statuses[name] = &healthpb.HealthCheckResponse{Status: h.status(name)}
	}
	return &healthpb.HealthListResponse{Statuses: statuses}, nil
}

// Watch implements grpc.health.v1.Health. The stream ends when draining begins.
func (h *health) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	now := h.status(req.GetService())
	if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
		return status.FromContextError(stream.Context().Err()).Err()
	case <-h.draining:
	}
	if then := h.status(req.GetService()); then != now {
		if err := stream.Send(&healthpb.HealthCheckResponse{Status: then}); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the server is shutting down")
}

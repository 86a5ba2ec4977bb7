package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/service"
)

// Service is what stands behind the doors: a service.Service of this project, or anything that answers like one. It is
// called by many goroutines at once. Errors are told apart by the sentinels of package throttlekit; a cost that is not
// above 0 and at most 2^53-1, and tokens that are not from 1 to 2^53-1, must be answered by ErrInvalid, and CheckMany
// without keys must charge nothing.
type Service interface {
	Check(ctx context.Context, policy, key string, cost float64) (throttlekit.Decision, error)
	CheckMany(ctx context.Context, policy string, keys []string, cost float64) ([]throttlekit.Decision, error)
	Peek(ctx context.Context, policy, key string) (throttlekit.Decision, error)
	Forecast(ctx context.Context, policy, key string, cost float64) (throttlekit.Forecast, error)
	Debit(ctx context.Context, policy, key string, tokens int64) (throttlekit.Decision, error)
}

// rateLimiter translates between the wire and the service, for both doors: their unary signatures are the same. It
// returns the service's errors as they are; each door puts them through explain.
type rateLimiter struct {
	throttlekitv1.UnimplementedRateLimiterServer // answers methods that the contract may gain

	svc      Service
	admitter Admitter // nil if the service is none
}

func newRateLimiter(svc Service) *rateLimiter {
	r := &rateLimiter{svc: svc}
	r.admitter, _ = svc.(Admitter)
	return r
}

func (r *rateLimiter) Check(ctx context.Context, req *throttlekitv1.CheckRequest) (*throttlekitv1.CheckResponse, error) {
	d, err := r.svc.Check(ctx, req.GetPolicy(), req.GetKey(), units(req.GetCost()))
	if err != nil {
		return nil, err
	}
	return &throttlekitv1.CheckResponse{Decision: decision(d)}, nil
}

func (r *rateLimiter) CheckMany(ctx context.Context, req *throttlekitv1.CheckManyRequest) (*throttlekitv1.CheckManyResponse, error) {
	ds, err := r.svc.CheckMany(ctx, req.GetPolicy(), req.GetKeys(), units(req.GetCost()))
	if err != nil {
		return nil, err
	}
	res := &throttlekitv1.CheckManyResponse{Decisions: make([]*throttlekitv1.Decision, len(ds))}
	for i, d := range ds {
		res.Decisions[i] = decision(d)
	}
	return res, nil
}

func (r *rateLimiter) Peek(ctx context.Context, req *throttlekitv1.PeekRequest) (*throttlekitv1.PeekResponse, error) {
	d, err := r.svc.Peek(ctx, req.GetPolicy(), req.GetKey())
	if err != nil {
		return nil, err
	}
	return &throttlekitv1.PeekResponse{Decision: decision(d)}, nil
}

func (r *rateLimiter) Forecast(ctx context.Context, req *throttlekitv1.ForecastRequest) (*throttlekitv1.ForecastResponse, error) {
	f, err := r.svc.Forecast(ctx, req.GetPolicy(), req.GetKey(), units(req.GetCost()))
	if err != nil {
		return nil, err
	}
	return &throttlekitv1.ForecastResponse{Forecast: &throttlekitv1.Forecast{
		SpendableNow:    f.SpendableNow,
		NextReplenishAt: f.NextReplenishAtMillis,
		FullAt:          f.FullAtMillis,
	}}, nil
}

func (r *rateLimiter) Debit(ctx context.Context, req *throttlekitv1.DebitRequest) (*throttlekitv1.DebitResponse, error) {
	tokens := req.GetTokens()
	if tokens == 0 {
		tokens = 1
	}
	d, err := r.svc.Debit(ctx, req.GetPolicy(), req.GetKey(), tokens)
	if err != nil {
		return nil, err
	}
	return &throttlekitv1.DebitResponse{Decision: decision(d)}, nil
}

// Admitter is a [Service] that also admits requests which hold a slot, under a lease, until they are released. A Service
// that is none answers Admit, Release and Heartbeat by ErrUnsupported.
type Admitter interface {
	Admit(ctx context.Context, policy string, req service.AdmitRequest) (service.Admitted, error)
	Release(lease string, dropped bool)
	Heartbeat(leases []string) (service.Renewal, error)
}

func (r *rateLimiter) Admit(ctx context.Context, req *throttlekitv1.AdmitRequest) (*throttlekitv1.AdmitResponse, error) {
	if r.admitter == nil {
		return nil, r.cannot(ctx, req.GetPolicy(), "has no concurrency axis to admit to")
	}
	if err := errors.Join(notNegative("value", req.GetValue()), notNegative("hold", req.GetHold())); err != nil {
		return nil, err
	}
	a, err := r.admitter.Admit(ctx, req.GetPolicy(), service.AdmitRequest{
		Key: req.GetKey(), Cost: units(req.GetCost()), Value: units(req.GetValue()), Hold: float64(req.GetHold()),
	})
	if err != nil {
		return nil, err
	}
	return &throttlekitv1.AdmitResponse{
		Decision: decision(a.Decision), LeaseId: a.Lease, LeaseExpiresAt: a.ExpiresAtMillis,
		BindingAxis: a.Axis, PolicyDenied: a.PriceDenied, LeaseTtlMs: a.TTL.Milliseconds(),
	}, nil
}

func (r *rateLimiter) Release(_ context.Context, req *throttlekitv1.ReleaseRequest) (*throttlekitv1.ReleaseResponse, error) {
	if r.admitter == nil {
		return nil, fmt.Errorf("%w: no policy of this server gives out leases to release", throttlekit.ErrUnsupported)
	}
	r.admitter.Release(req.GetLeaseId(), req.GetDropped())
	return &throttlekitv1.ReleaseResponse{}, nil
}

func (r *rateLimiter) Heartbeat(_ context.Context, req *throttlekitv1.HeartbeatRequest) (*throttlekitv1.HeartbeatResponse, error) {
	if r.admitter == nil {
		return nil, fmt.Errorf("%w: no policy of this server gives out leases to keep", throttlekit.ErrUnsupported)
	}
	renewal, err := r.admitter.Heartbeat(req.GetLeaseIds())
	if err != nil {
		return nil, err
	}
	return &throttlekitv1.HeartbeatResponse{
		LiveIds: renewal.Live, ReclaimedIds: renewal.Reclaimed, NextDeadline: renewal.DeadlineMillis,
	}, nil
}

// notNegative refuses an amount that the wire allows and the contract does not.
func notNegative(field string, n int64) error {
	if n >= 0 && n <= throttlekit.MaxSafe {
		return nil
	}
	return &throttlekit.InvalidError{Field: field, Value: n, Rule: "must be an integer from 0 to 9007199254740991"}
}

// cannot is the error for a method that the service cannot answer. An unknown policy is not found all the same, in
// the words of the service, which a check of no keys brings out.
func (r *rateLimiter) cannot(ctx context.Context, policy, why string) error {
	if _, err := r.svc.CheckMany(ctx, policy, nil, 1); errors.Is(err, throttlekit.ErrPolicyNotFound) {
		return err
	}
	return fmt.Errorf("%w: policy %q %s", throttlekit.ErrUnsupported, policy, why)
}

// units is an amount of the wire as the service takes it: 0 means 1. What int64 holds beyond 2^53-1 rounds, but not to
// anything below, so the service refuses it as it refuses negative amounts.
func units(n int64) float64 {
	if n == 0 {
		return 1
	}
	return float64(n)
}

func decision(d throttlekit.Decision) *throttlekitv1.Decision {
	return &throttlekitv1.Decision{
		Allowed:      d.Allowed,
		Limit:        d.Limit,
		Remaining:    d.Remaining,
		ResetAt:      d.ResetAtMillis,
		RetryAfterMs: d.RetryAfterMillis,
	}
}

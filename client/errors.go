package client

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
)

// ErrUnavailable marks a call that no service answered: none could be reached, it is shutting down, or it did not answer
// within the client's timeout. Whether the request was charged is unknown.
var ErrUnavailable = errors.New("client: the service is unavailable")

// ErrUnauthenticated marks a call of [Fleet] or [Monitor] that the service refused for want of the right secret; see
// [WithFleetSecret] and [Client.Monitor]. Without a secret of its own, a service serves these to callers on its machine only.
var ErrUnauthenticated = errors.New("client: the secret is missing or wrong")

// callError is a failed call: what it means, and the gRPC status that it came with.
type callError struct {
	kind   error // a sentinel, or nil
	status *status.Status
}

// Error gives the status code and the service's own words.
func (e *callError) Error() string {
	return "client: " + e.status.Code().String() + ": " + e.status.Message()
}

// Unwrap makes [errors.Is] find the sentinel.
func (e *callError) Unwrap() error { return e.kind }

// GRPCStatus makes status.FromError find the status.
func (e *callError) GRPCStatus() *status.Status { return e.status }

// explain is the inverse of the mapping in package server. ctx is the caller's own context, without the client's timeout.
func (c *Client) explain(ctx context.Context, err error) error {
	s, _ := status.FromError(err)
	return &callError{kind: c.kindOf(ctx, s), status: s}
}

func (c *Client) kindOf(ctx context.Context, s *status.Status) error {
	_, bounded := ctx.Deadline()
	switch s.Code() {
	case codes.InvalidArgument:
		return throttlekit.ErrInvalid
	case codes.NotFound:
		return throttlekit.ErrPolicyNotFound
	case codes.Unimplemented:
		return throttlekit.ErrUnsupported
	case codes.Unauthenticated:
		return ErrUnauthenticated
	case codes.DeadlineExceeded:
		// The service may notice the deadline before ctx does, so a caller's deadline is known by being there.
		if bounded {
			return context.DeadlineExceeded
		}
	case codes.Unavailable:
		if storeFailed(s) {
			return throttlekit.ErrStoreUnavailable
		}
	case codes.Canceled:
	default:
		return nil
	}
	switch {
	case ctx.Err() != nil: // whatever else happened, the caller had given up
		return ctx.Err()
	case c.closed.Load():
		return throttlekit.ErrClosed
	case s.Code() == codes.Canceled:
		return nil // by someone on the way; nobody here
	}
	return ErrUnavailable
}

// storeFailed tells a service whose store is unavailable from a service that is.
func storeFailed(s *status.Status) bool {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "throttlekit.v1" {
			return info.GetReason() == "STORE_UNAVAILABLE"
		}
	}
	return false
}

package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// errorDomain goes with every reason, so that a client does not take another system's for ours.
const errorDomain = "throttlekit.v1"

// reasons maps the errors of the service, and of the doors, to the wire. Package client holds the inverse.
var reasons = []struct {
	err    error
	code   codes.Code
	reason string
}{
	{throttlekit.ErrInvalid, codes.InvalidArgument, "INVALID"},
	{throttlekit.ErrPolicyNotFound, codes.NotFound, "POLICY_NOT_FOUND"},
	{throttlekit.ErrUnsupported, codes.Unimplemented, "UNSUPPORTED"},
	// The reference answers INTERNAL when Peek or Forecast meets a broken store. UNAVAILABLE tells a caller what it is:
	// something that passes.
	{throttlekit.ErrStoreUnavailable, codes.Unavailable, "STORE_UNAVAILABLE"},
	{throttlekit.ErrClosed, codes.Unavailable, "CLOSED"},
	{errUnauthenticated, codes.Unauthenticated, ""},
	{monitor.ErrTooManyWatchers, codes.ResourceExhausted, ""},
}

// failure is an error as both doors tell it.
type failure struct {
	code    codes.Code
	reason  string // empty if the code says it all
	message string
}

// explain is the one mapping from errors of the service to the wire.
func explain(ctx context.Context, err error) failure {
	message := readable(err.Error())
	// A store that gave up because the caller did is no broken store, however it words that.
	if gone := ctx.Err(); gone != nil && (errors.Is(err, gone) || errors.Is(err, throttlekit.ErrStoreUnavailable)) {
		return failure{code: status.FromContextError(gone).Code(), message: message}
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return failure{code: r.code, reason: r.reason, message: message}
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return failure{code: codes.DeadlineExceeded, message: message}
	case errors.Is(err, context.Canceled):
		return failure{code: codes.Canceled, message: message}
	}
	return failure{code: codes.Internal, message: message}
}

// explainAndLog is explain, and tells the operator about errors that nobody foresaw.
func explainAndLog(ctx context.Context, log *slog.Logger, method string, err error) failure {
	f := explain(ctx, err)
	if f.code == codes.Internal {
		log.ErrorContext(ctx, "request failed", "method", method, "error", err)
	}
	return f
}

// readable makes a message fit for the wire: protobuf and JSON want UTF-8, and it travels in a header, which must not
// grow with a list of policy names until clients refuse it.
func readable(message string) string {
	const longest = 4096
	if len(message) > longest {
		message = message[:longest] + "…"
	}
	return strings.ToValidUTF8(message, "\uFFFD")
}

func (f failure) info() *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: f.reason, Domain: errorDomain}
}

// grpc is the failure as grpc-go wants it.
func (f failure) grpc() error {
	s := status.New(f.code, f.message)
	if f.reason == "" {
		return s.Err()
	}
	if detailed, err := s.WithDetails(f.info()); err == nil {
		s = detailed
	}
	return s.Err()
}

// connect is the failure as Connect wants it. Both number their codes alike.
func (f failure) connect() error {
	e := connect.NewError(connect.Code(f.code), f.message)
	if f.reason == "" {
		return e
	}
	if detail, err := connectproto.NewErrorDetail(f.info()); err == nil {
		e = e.WithDetail(detail)
	}
	return e
}

// panicked is what a caller learns of a panic. The value may hold anything, so it goes to the log only.
var panicked = failure{code: codes.Internal, message: "the server failed on this request; its log says more"}

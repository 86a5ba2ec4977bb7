package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

const (
	// maxMessage bounds a request on either door, in bytes. It holds 63 keys of the longest kind.
	maxMessage = 4 << 20
	// maxStreams bounds the requests that one connection may have running; more wait in the client.
	maxStreams = 4096
	// maxHeader bounds the metadata of a request, in bytes. None is needed.
	maxHeader = 64 << 10
	// handshakeTimeout is how long a new connection may take to speak HTTP/2. It is shorter than the usual drain, which
	// has to wait for handshakes.
	handshakeTimeout = 5 * time.Second
)

// newGRPC assembles the gRPC door. A watcher may be nil.
func newGRPC(d *doors, tlsConfig *tls.Config, watcher stats.Handler) *grpc.Server {
	g := &grpcDoor{log: d.log, calls: &d.calls, streams: &d.streams}
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newGRPCCodec()),
		grpc.StreamInterceptor(g.guardStream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.ConnectionTimeout(handshakeTimeout),
		// A client that vanished without a word is noticed within 80 seconds. Clients may ping every 10 seconds, idle ones
		// too; grpc-go's default would end the connections of those that ping more than once in five minutes.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
	if tlsConfig != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(tlsConfig)))
	}
	if watcher != nil {
		options = append(options, grpc.StatsHandler(watcher))
	}
	s := grpc.NewServer(options...)
	everybody := func(context.Context) error { return nil }
	s.RegisterService(g.guarded(&throttlekitv1.RateLimiter_ServiceDesc, everybody), d.limiter)
	if d.fleet != nil {
		s.RegisterService(g.guarded(&throttlekitv1.Fleet_ServiceDesc, d.fleet.admitGRPC), d.fleet)
	}
	if d.monitor != nil {
		s.RegisterService(g.guarded(&throttlekitv1.Monitor_ServiceDesc, d.monitor.admitGRPC), monitorGRPC{monitorDoor: d.monitor})
	}
	healthpb.RegisterHealthServer(s, d.health) // has no errors of the service to map, and nothing that could panic
	return s
}

// grpcDoor is what stands between grpc-go and the generated handlers.
type grpcDoor struct {
	log     *slog.Logger
	calls   *atomic.Int64 // that run, without streams
	streams *atomic.Int64 // that run
}

// guarded is desc with every method behind guard, for whom admit lets in. An interceptor could not do the same: it
// runs only after the request was decoded, and grpc-go spends allocations on one that are not needed here.
func (g *grpcDoor) guarded(desc *grpc.ServiceDesc, admit func(context.Context) error) *grpc.ServiceDesc {
	d := *desc
	d.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		d.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: g.guard(m.MethodName, admit, m.Handler)}
	}
	d.Streams = make([]grpc.StreamDesc, len(desc.Streams))
	for i, m := range desc.Streams {
		m.Handler = g.guardEvents(m.StreamName, admit, m.Handler)
		d.Streams[i] = m
	}
	return &d
}

// guard maps the errors of one method, and those of decoding its request, which it does for whom admit lets in.
func (g *grpcDoor) guard(method string, admit func(context.Context) error, handle grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (reply any, err error) {
		g.calls.Add(1)
		defer g.calls.Add(-1)
		defer g.recover(ctx, method, &err)
		if err := admit(ctx); err != nil {
			return nil, explain(ctx, err).grpc()
		}
		var e envelope
		reply, err = handle(srv, ctx, func(message any) error {
			e.message = message
			if failed := receive(&e); failed != nil {
				e.err = failed
			}
			return e.err
		}, nil)
		switch {
		case err == nil:
			return reply, nil
		case e.err != nil:
			return nil, undecodable(e.err)
		}
		return nil, explainAndLog(ctx, g.log, method, err).grpc()
	}
}

// guardEvents is guard for a method that answers with a stream.
func (g *grpcDoor) guardEvents(method string, admit func(context.Context) error, handle grpc.StreamHandler) grpc.StreamHandler {
	return func(srv any, stream grpc.ServerStream) error {
		ctx := stream.Context()
		if err := admit(ctx); err != nil {
			return explain(ctx, err).grpc()
		}
		requests := &requestStream{ServerStream: stream}
		err := handle(srv, requests)
		if err == nil {
			return nil
		}
		if requests.err != nil {
			return undecodable(requests.err)
		}
		if _, told := status.FromError(err); told { // by grpc-go, when it could not send
			return err
		}
		return explainAndLog(ctx, g.log, method, err).grpc()
	}
}

// requestStream keeps what was wrong with a request.
type requestStream struct {
	grpc.ServerStream

	err error
}

// RecvMsg implements [grpc.ServerStream].
func (s *requestStream) RecvMsg(message any) error {
	e := envelope{message: message}
	if err := s.ServerStream.RecvMsg(&e); err != nil {
		return err
	}
	s.err = e.err
	return e.err
}

// undecodable is the answer to a request that could not be received: what grpc-go says of it, or INVALID_ARGUMENT if the
// codec could not make sense of it.
func undecodable(err error) error {
	if _, told := status.FromError(err); told {
		return err
	}
	complaint := readable("the request cannot be decoded: " + err.Error())
	return failure{code: codes.InvalidArgument, reason: "INVALID", message: complaint}.grpc()
}

// guardStream keeps a panic in a streaming method from ending the process.
func (g *grpcDoor) guardStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	g.streams.Add(1)
	defer g.streams.Add(-1)
	defer g.recover(stream.Context(), info.FullMethod, &err)
	return handle(srv, stream)
}

// recover turns a panic into INTERNAL. grpc-go runs handlers in goroutines of its own without any recovery, so one bad
// request would otherwise take every other caller's limits down with the process. It must be deferred directly.
func (g *grpcDoor) recover(ctx context.Context, method string, err *error) {
	if v := recover(); v != nil {
		g.log.ErrorContext(ctx, "panic in a handler", "method", method, "panic", v, "stack", string(debug.Stack()))
		*err = panicked.grpc()
	}
}

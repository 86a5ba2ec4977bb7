package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

var (
	// ErrDrainTimeout marks a shutdown that had to cut requests off because they outlasted the drain timeout.
	ErrDrainTimeout = errors.New("server: requests outlasted the drain timeout and were cut off")
	// ErrServed marks a second Serve: a server serves once.
	ErrServed = errors.New("server: already served")
)

// lastGrace is how long handlers may take to notice that they were cut off.
const lastGrace = time.Second

// Server is the doors of one service, bound to their ports. It is safe for concurrent use.
type Server struct {
	log          *slog.Logger
	drainTimeout time.Duration
	health       *health

	grpc         *grpc.Server
	grpcListener *listener

	http         *http.Server // nil if the door is off
	httpListener *listener

	served atomic.Bool
}

// New checks cfg, binds the ports and returns a server that is ready for [Server.Serve]. What is wrong with cfg is
// reported all at once by errors that match [throttlekit.ErrInvalid], files that cannot be read apart. The service stays
// the caller's, to be closed after Serve has returned.
func New(svc Service, cfg Config) (*Server, error) {
	if svc == nil {
		return nil, &throttlekit.InvalidError{Field: "svc", Value: nil, Rule: "must be given"}
	}
	c, err := cfg.settle()
	if err != nil {
		return nil, err
	}
	limiter, fleet := &rateLimiter{svc: svc}, newFleet(svc, c.FleetSecret)
	services := []string{throttlekitv1.RateLimiter_ServiceDesc.ServiceName}
	if fleet != nil {
		services = append(services, throttlekitv1.Fleet_ServiceDesc.ServiceName)
	}
	s := &Server{log: c.Logger, drainTimeout: c.DrainTimeout, health: newHealth(services...)}

	if s.grpcListener, err = listen(c.GRPCAddr, "--port"); err != nil {
		return nil, err
	}
	s.grpc = newGRPC(limiter, fleet, s.health, c.tls, c.Logger)
	s.announce("gRPC", s.grpcListener, c)
	if fleet != nil && fleet.secret == nil && !listensLocally(s.grpcListener) {
		s.log.Warn("federated policies are served beyond loopback without a fleet secret, so only callers on this machine can lease")
	}
	if c.HTTPAddr == Off {
		return s, nil
	}
	if s.httpListener, err = listen(c.HTTPAddr, "--http-port"); err != nil {
		_ = s.grpcListener.Close()
		return nil, err
	}
	s.http = newHTTP(limiter, fleet, s.health, c.Logger)
	if c.tls != nil {
		s.http.TLSConfig = c.tls.Clone()
	}
	s.announce("HTTP", s.httpListener, c)
	return s, nil
}

func (s *Server) announce(door string, l net.Listener, c settled) {
	security := "insecure"
	switch {
	case c.TLS.CAFile != "":
		security = "mTLS"
	case c.tls != nil:
		security = "TLS"
	}
	s.log.Info("listening", "door", door, "address", l.Addr().String(), "security", security)
	if c.tls == nil && !listensLocally(l) {
		s.log.Warn("plaintext beyond loopback: whoever is on the path can read and change keys and decisions",
			"door", door, "address", l.Addr().String())
	}
}

func listensLocally(l net.Listener) bool {
	host, _, err := net.SplitHostPort(l.Addr().String())
	return err == nil && isLoopback(host)
}

// GRPCAddr is where the gRPC door listens.
func (s *Server) GRPCAddr() net.Addr { return s.grpcListener.Addr() }

// HTTPAddr is where the HTTP door listens, or nil if it is off.
func (s *Server) HTTPAddr() net.Addr {
	if s.httpListener == nil {
		return nil
	}
	return s.httpListener.Addr()
}

// Serve answers requests until ctx ends, and then drains: health turns to NOT_SERVING, no connection or request is
// accepted any more, watches end at once, and requests that run are answered. It returns nil when all of them were, and
// an error that matches [ErrDrainTimeout] when some were cut off at the drain timeout. A door that fails ends both.
func (s *Server) Serve(ctx context.Context) error {
	if s.served.Swap(true) {
		return ErrServed
	}
	var doors sync.WaitGroup
	ended := make(chan error, 2)
	doors.Go(func() { ended <- s.unlessClosing(s.grpc.Serve(s.grpcListener)) })
	if s.http != nil {
		doors.Go(func() { ended <- s.unlessClosing(s.serveHTTP()) })
	}

	var failed error
	select {
	case <-ctx.Done():
	case failed = <-ended:
	}
	failed = errors.Join(failed, s.drain(context.WithoutCancel(ctx)))

	doors.Wait()
	close(ended)
	for err := range ended {
		failed = errors.Join(failed, err)
	}
	return failed
}

func (s *Server) serveHTTP() error {
	if s.http.TLSConfig != nil {
		return s.http.ServeTLS(s.httpListener, "", "")
	}
	return s.http.Serve(s.httpListener)
}

// unlessClosing is err, unless it only says that the server was told to close.
func (s *Server) unlessClosing(err error) error {
	if !s.health.isDraining() {
		return err
	}
	for _, closing := range []error{net.ErrClosed, http.ErrServerClosed, grpc.ErrServerStopped} {
		if errors.Is(err, closing) {
			return nil
		}
	}
	return err
}

// drain ends both doors, gracefully as long as the drain timeout allows.
func (s *Server) drain(ctx context.Context) error {
	s.log.Info("draining", "timeout", s.drainTimeout)
	s.health.drain()
	ctx, cancel := context.WithTimeout(ctx, s.drainTimeout)
	defer cancel()

	var doors sync.WaitGroup
	var grpcErr, httpErr error
	doors.Go(func() { grpcErr = s.drainGRPC(ctx) })
	if s.http != nil {
		doors.Go(func() { httpErr = s.drainHTTP(ctx) })
	}
	doors.Wait()
	err := errors.Join(grpcErr, httpErr)
	if err != nil {
		s.log.Warn("drained late", "error", err)
	}
	return err
}

func (s *Server) drainGRPC(ctx context.Context) error {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	s.grpcListener.abort() // Stop alone would wait for handshakes that hang
	s.grpc.Stop()
	select {
	case <-drained:
	case <-time.After(lastGrace): // a handler ignores its context; waiting longer would only hide that
	}
	return fmt.Errorf("gRPC: %w", ErrDrainTimeout)
}

func (s *Server) drainHTTP(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err == nil {
		return nil
	}
	_ = s.http.Close() // the listener is closed already; what matters are the connections
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("HTTP: %w", ErrDrainTimeout)
	}
	return fmt.Errorf("server: HTTP: %w", err)
}

// Close gives the ports back and cuts off whatever runs. A server that has served needs no Close; it is for one that was
// made and never served, and for ending Serve without a drain.
func (s *Server) Close() error {
	s.health.drain()
	errs := []error{s.grpcListener.Close()}
	s.grpcListener.abort()
	s.grpc.Stop()
	if s.http != nil {
		errs = append(errs, s.httpListener.Close(), s.http.Close())
	}
	// What was closed before, by a door or by an earlier Close, is as it should be.
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, net.ErrClosed) })...)
}

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/dashboard"
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
	calls        *atomic.Int64 // that run over gRPC, without those that watch
	streams      *atomic.Int64 // that watch over gRPC

	web       []*webDoor // that of HTTP, unless it is off, and that of metrics, if it has a port of its own
	dashboard *dashboard.Dashboard

	served atomic.Bool
}

// webDoor is a port that speaks HTTP.
type webDoor struct {
	name     string
	server   *http.Server
	listener *listener
}

func (w *webDoor) serve() error {
	if w.server.TLSConfig != nil {
		return w.server.ServeTLS(w.listener, "", "")
	}
	return w.server.Serve(w.listener)
}

func (w *webDoor) drain(ctx context.Context) error {
	err := w.server.Shutdown(ctx)
	if err == nil {
		return nil
	}
	_ = w.server.Close() // the listener is closed already; what matters are the connections
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", w.name, ErrDrainTimeout)
	}
	return fmt.Errorf("server: %s: %w", w.name, err)
}

func (w *webDoor) close() error { return errors.Join(w.listener.Close(), w.server.Close()) }

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
	d, err := newDoors(svc, c)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log: c.Logger, drainTimeout: c.DrainTimeout, health: d.health, dashboard: d.dashboard, calls: &d.calls, streams: &d.streams,
	}
	if s.grpcListener, err = listen(c.GRPCAddr, "--port"); err != nil {
		return nil, err
	}
	s.grpc = newGRPC(d, c.tls, c.GRPCStats)
	s.announce("gRPC", s.grpcListener, c)
	if !listensLocally(s.grpcListener) {
		d.warn()
	}
	if c.HTTPAddr != Off {
		err = s.open("HTTP", c.HTTPAddr, "--http-port", d.handler, c)
	}
	if err == nil && c.MetricsAddr != "" {
		err = s.open("metrics", c.MetricsAddr, "--metrics-port", d.metricsMux, c)
	}
	if err != nil {
		_ = s.Close() // what was opened
		return nil, err
	}
	return s, nil
}

// open adds a port that speaks HTTP.
func (s *Server) open(name, addr, flag string, handler http.Handler, c settled) error {
	l, err := listen(addr, flag)
	if err != nil {
		return err
	}
	w := &webDoor{name: name, server: newHTTP(handler, c.Logger), listener: l}
	if c.tls != nil {
		w.server.TLSConfig = c.tls.Clone()
	}
	s.web = append(s.web, w)
	s.announce(name, l, c)
	return nil
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
func (s *Server) HTTPAddr() net.Addr { return s.addrOf("HTTP") }

// MetricsAddr is where metrics have a port of their own, or nil if they have none.
func (s *Server) MetricsAddr() net.Addr { return s.addrOf("metrics") }

func (s *Server) addrOf(name string) net.Addr {
	for _, w := range s.web {
		if w.name == name {
			return w.listener.Addr()
		}
	}
	return nil
}

// Serve answers requests until ctx ends, and then drains: health turns to NOT_SERVING, no connection or request is
// accepted any more, watches end at once, and requests that run are answered. It returns nil when all of them were, and
// an error that matches [ErrDrainTimeout] when some were cut off at the drain timeout. A door that fails ends both.
func (s *Server) Serve(ctx context.Context) error {
	if s.served.Swap(true) {
		return ErrServed
	}
	var doors sync.WaitGroup
	ended := make(chan error, 1+len(s.web))
	doors.Go(func() { ended <- s.unlessClosing(s.grpc.Serve(s.grpcListener)) })
	for _, w := range s.web {
		doors.Go(func() { ended <- s.unlessClosing(w.serve()) })
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
	watched := s.streams.Load() > 0 // those who watch leave now
	s.health.drain()
	ctx, cancel := context.WithTimeout(ctx, s.drainTimeout)
	defer cancel()

	if s.dashboard != nil {
		s.dashboard.Close() // pages that watch would hold the drain
	}

	var doors sync.WaitGroup
	wrong := make([]error, 1+len(s.web))
	doors.Go(func() { wrong[0] = s.drainGRPC(ctx, watched) })
	for i, w := range s.web {
		doors.Go(func() { wrong[1+i] = w.drain(ctx) })
	}
	doors.Wait()
	err := errors.Join(wrong...)
	if err != nil {
		s.log.Warn("drained late", "error", err)
	}
	return err
}

func (s *Server) drainGRPC(ctx context.Context, watched bool) error {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	if s.answered(ctx, drained, watched) {
		return nil
	}
	s.cutOff(drained)
	return fmt.Errorf("gRPC: %w", ErrDrainTimeout)
}

// watchGrace is how long those who watch may take to hear that it is over, once nobody else is served.
const watchGrace = time.Second

// answered waits for the gRPC door to drain. If somebody watched, and for a while no request runs any more, then only those are taken to
// be left who watch and do not read: nothing else ends them, so it does.
func (s *Server) answered(ctx context.Context, drained <-chan struct{}, watched bool) bool {
	const look = 50 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for idle := time.Duration(0); idle < watchGrace; {
		select {
		case <-drained:
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if idle += look; !watched || s.calls.Load() > 0 {
			idle = 0
		}
	}
	s.cutOff(drained)
	return true
}

// cutOff hangs up on everyone who is left.
func (s *Server) cutOff(drained <-chan struct{}) {
	s.grpcListener.abort() // Stop alone would wait for handshakes that hang
	s.grpc.Stop()
	select {
	case <-drained:
	case <-time.After(lastGrace): // a handler ignores its context; waiting longer would only hide that
	}
}

// Close gives the ports back and cuts off whatever runs. A server that has served needs no Close; it is for one that was
// made and never served, and for ending Serve without a drain.
func (s *Server) Close() error {
	s.health.drain()
	errs := []error{s.grpcListener.Close()}
	s.grpcListener.abort()
	s.grpc.Stop()
	if s.dashboard != nil {
		s.dashboard.Close()
	}
	for _, w := range s.web {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}

package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/server/dashboard"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

// doors is what both listeners serve.
type doors struct {
	limiter *rateLimiter
	fleet   *fleet       // nil if there is nothing to lend
	monitor *monitorDoor // nil if nobody watches
	health  *health
	log     *slog.Logger

	dashboard *dashboard.Dashboard // nil for none
	handler   http.Handler         // of the HTTP door
	host      string               // that the HTTP door is bound to
	calls     atomic.Int64         // that run over gRPC, without those that watch
	streams   atomic.Int64         // that watch over gRPC

	metrics    *monitor.Metrics // nil for none
	metricsMux http.Handler     // of a port of their own
	keeper     keeper           // of metrics that have keys in them
	ready      func(ctx context.Context) error
	failMode   service.FailMode
}

func newDoors(svc Service, c settled) (*doors, error) {
	d := &doors{
		limiter: newRateLimiter(svc), fleet: newFleet(svc, c.FleetSecret), log: c.Logger,
		metrics: c.Metrics, keeper: newKeeper("monitor", c.MonitorSecret), ready: c.Ready, failMode: c.FailMode,
	}
	services := []string{throttlekitv1.RateLimiter_ServiceDesc.ServiceName}
	if d.fleet != nil {
		services = append(services, throttlekitv1.Fleet_ServiceDesc.ServiceName)
	}
	if c.Monitor != nil {
		services = append(services, throttlekitv1.Monitor_ServiceDesc.ServiceName)
	}
	d.health = newHealth(services...)
	d.monitor = newMonitorDoor(c.Monitor, c.MonitorSecret, d.health.draining)
	var err error
	d.host, _, _ = net.SplitHostPort(c.HTTPAddr)
	if c.Dashboard && c.Monitor != nil {
		config := dashboard.Config{Source: c.Monitor, Secret: c.MonitorSecret, Host: d.host, Logger: c.Logger}
		if d.dashboard, err = dashboard.New(config); err != nil {
			return nil, err
		}
	}
	if c.MetricsAddr != "" {
		if d.metricsMux, err = c.Metrics.Mux(); err != nil {
			return nil, err
		}
	}
	d.handler, err = newHTTPHandler(d)
	return d, err
}

// warn tells the operator who cannot come in although the doors are open to them.
func (d *doors) warn() {
	if d.fleet != nil && d.fleet.secret == nil {
		d.log.Warn("federated policies are served beyond loopback without a fleet secret, so only callers on this machine can lease")
	}
	if d.monitor != nil && d.monitor.secret == nil {
		d.log.Warn("the monitor is served beyond loopback without a monitor secret, so only callers on this machine can watch")
	}
}

// meant reports why a request for a method is not one of this machine, where only those are served.
func (d *doors) meant(pattern string, r *http.Request) error {
	of := func(service string) bool { return strings.HasPrefix(pattern, "/"+service+"/") }
	switch {
	case d.fleet != nil && of(throttlekitv1.Fleet_ServiceDesc.ServiceName):
		return d.fleet.meant(r, d.host)
	case d.monitor != nil && of(throttlekitv1.Monitor_ServiceDesc.ServiceName):
		return d.monitor.meant(r, d.host)
	}
	return nil
}

// admitConnect decides whether a caller of a method may ask, by Connect's protocol.
func (d *doors) admitConnect(ctx context.Context, spec connect.Spec) error {
	of := func(service string) bool { return strings.HasPrefix(spec.Procedure, "/"+service+"/") }
	switch {
	case d.fleet != nil && of(throttlekitv1.Fleet_ServiceDesc.ServiceName):
		return d.fleet.admitConnect(ctx)
	case d.monitor != nil && of(throttlekitv1.Monitor_ServiceDesc.ServiceName):
		return d.monitor.admitConnect(ctx)
	}
	return nil
}

// readyWithin bounds the question whether the store answers.
const readyWithin = 2 * time.Second

// readiness is the body of /readyz.
type readiness struct {
	// Ready is what the status says, too.
	Ready bool `json:"ready"`
	// Store is "ok", "failing", or "none" if there is no store that could fail.
	Store string `json:"store"`
	// FailMode is what the service answers while the store fails.
	FailMode service.FailMode `json:"failMode"`
	// Draining says that the server is shutting down.
	Draining bool `json:"draining"`
}

// readinessNow asks. A server whose store fails is ready all the same if its fail mode is open: it was told to admit then, and
// nobody could ask it for that if it were taken out of service.
func (d *doors) readinessNow(ctx context.Context) readiness {
	r := readiness{Store: "none", FailMode: d.failMode, Draining: d.health.isDraining()}
	if d.ready != nil {
		ctx, cancel := context.WithTimeout(ctx, readyWithin)
		defer cancel()
		r.Store = "ok"
		if d.ready(ctx) != nil { // what the store said is in the log of the service
			r.Store = "failing"
		}
	}
	r.Ready = !r.Draining && (r.Store != "failing" || r.FailMode == service.FailOpen)
	return r
}

func (d *doors) serveReadiness(w http.ResponseWriter, r *http.Request) {
	now := d.readinessNow(r.Context())
	status := http.StatusOK
	if !now.Ready {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, now)
}

// metricsHandler answers those who may read the metrics.
func (d *doors) metricsHandler() (http.Handler, error) {
	handler, err := d.metrics.Handler()
	if err != nil || !d.metrics.HasKeys() {
		return handler, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := d.keeper.admitHTTP(r, d.host); err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeError(w, http.StatusUnauthorized, connect.CodeUnauthenticated, readable(err.Error()))
			return
		}
		handler.ServeHTTP(w, r)
	}), nil
}

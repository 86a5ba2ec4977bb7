package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/stats"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

const (
	// DefaultGRPCAddr is where the gRPC door listens if nothing else is said.
	DefaultGRPCAddr = "127.0.0.1:50051"
	// DefaultHTTPAddr is where the HTTP door listens if nothing else is said.
	DefaultHTTPAddr = "127.0.0.1:8080"
	// DefaultDrainTimeout is how long running requests may take to finish at shutdown.
	DefaultDrainTimeout = 10 * time.Second
	// Off in place of an address leaves the HTTP door out.
	Off = "off"
)

// Config says where a server listens and how it is protected. The zero value serves both doors in plaintext on loopback.
type Config struct {
	// GRPCAddr is "host:port" of the gRPC door. Port 0 picks a free one, which [Server.GRPCAddr] tells. An empty host means
	// all interfaces. Defaults to [DefaultGRPCAddr].
	GRPCAddr string
	// HTTPAddr is the same for the HTTP door; [Off] leaves the door out. Defaults to [DefaultHTTPAddr].
	HTTPAddr string
	// TLS protects both doors. Without it they speak plaintext.
	TLS TLS
	// FleetSecret is what callers of Fleet.Reserve must present. Without it only callers on this machine are served, and
	// over HTTP none that a proxy hands on, the page of another site sends, or that name a host which is neither an address nor
	// localhost nor that of HTTPAddr. It is printable ASCII text without spaces around it.
	FleetSecret string
	// Monitor adds the door Monitor, over which people watch what this hub sees. Nil leaves it out.
	Monitor *monitor.Hub
	// MonitorSecret is what callers of Monitor must present. With nil only callers on this machine are served, as without a
	// FleetSecret. It is text as that is. An empty one is one that nobody can present, and so locks the door.
	MonitorSecret *string
	// Metrics are served at /metrics of the HTTP door: to everybody who reaches it, or if they have keys in them, to whom Monitor
	// would be. Nil leaves them out.
	Metrics *monitor.Metrics
	// MetricsAddr is "host:port" of a further port for Metrics alone, which it then needs: served to everybody who reaches it,
	// keys included. Empty means none.
	MetricsAddr string
	// Dashboard adds a page for browsers at "/" of the HTTP door that shows what Monitor sees, to whom Monitor would show it. It
	// needs Monitor.
	Dashboard bool
	// Ready says whether the store answers, for /readyz of the HTTP door; [monitor.WatchedStore.Ready] does. It is given 2 s. Nil
	// means that there is none that could fail.
	Ready func(ctx context.Context) error
	// FailMode is what the service answers while the store does not, for /readyz: closed if no policy admits then. Defaults to
	// [service.FailOpen].
	FailMode service.FailMode
	// AllowInsecure permits plaintext on addresses other than loopback: whoever is on the path reads and changes keys and
	// decisions. The server logs a warning for each such door.
	AllowInsecure bool
	// GRPCStats is told of every request of the gRPC door, such as to trace it: grpc-go's own way in. It runs in the goroutine of
	// the request and must not block. Nil leaves it out.
	GRPCStats stats.Handler
	// DrainTimeout is how long running requests may take to finish once the context of [Server.Serve] has ended; after it
	// they are cut off. Must not be negative. Defaults to [DefaultDrainTimeout].
	DrainTimeout time.Duration
	// Logger is told what an operator should know: addresses, warnings, panics. Nil discards it.
	Logger *slog.Logger
}

// TLS names PEM files. They are read once, by [New]. At least TLS 1.2 is spoken.
type TLS struct {
	// CertFile holds the server's certificate, followed by intermediate ones. It comes together with KeyFile.
	CertFile string
	// KeyFile holds the private key of the certificate.
	KeyFile string
	// CAFile holds the authorities that sign client certificates. If it is set, every client must present one that
	// verifies (mutual TLS). It needs CertFile and KeyFile.
	CAFile string
}

// settled is a Config with its defaults in place, found to be right.
type settled struct {
	Config

	tls *tls.Config // nil means plaintext
}

// settle applies defaults and reports everything that is wrong at once.
func (c Config) settle() (settled, error) {
	if c.GRPCAddr == "" {
		c.GRPCAddr = DefaultGRPCAddr
	}
	if c.HTTPAddr == "" {
		c.HTTPAddr = DefaultHTTPAddr
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.FailMode == "" {
		c.FailMode = service.FailOpen
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if c.DrainTimeout < 0 {
		errs = append(errs, &throttlekit.InvalidError{Field: "DrainTimeout", Value: c.DrainTimeout, Rule: "must not be negative"})
	}
	errs = append(errs, checkSecret("FleetSecret", c.FleetSecret))
	if c.MonitorSecret != nil {
		errs = append(errs, checkSecret("MonitorSecret", *c.MonitorSecret))
	}
	if c.FailMode != service.FailOpen && c.FailMode != service.FailClosed {
		errs = append(errs, &throttlekit.InvalidError{Field: "FailMode", Value: string(c.FailMode), Rule: "must be open or closed"})
	}
	tlsConfig, err := c.TLS.load()
	if err != nil {
		errs = append(errs, err)
	}
	// A broken TLS block still says that plaintext is not meant, so that one mistake does not read as two.
	mayLeaveLoopback := c.AllowInsecure || c.TLS != (TLS{})
	errs = append(errs, checkAddr("GRPCAddr", c.GRPCAddr, mayLeaveLoopback))
	if c.Dashboard && c.Monitor == nil {
		errs = append(errs, &throttlekit.InvalidError{Field: "Dashboard", Value: true, Rule: "needs Monitor"})
	}
	if c.MetricsAddr != "" {
		errs = append(errs, checkAddr("MetricsAddr", c.MetricsAddr, mayLeaveLoopback))
		if c.Metrics == nil {
			errs = append(errs, &throttlekit.InvalidError{Field: "MetricsAddr", Value: c.MetricsAddr, Rule: "needs Metrics"})
		}
	}
	if c.HTTPAddr != Off {
		errs = append(errs, checkAddr("HTTPAddr", c.HTTPAddr, mayLeaveLoopback))
	}
	return settled{Config: c, tls: tlsConfig}, errors.Join(errs...)
}

// checkSecret requires a secret that arrives in a header as it was sent.
func checkSecret(field, secret string) error {
	if strings.Trim(secret, " ") == secret && strings.IndexFunc(secret, func(c rune) bool { return c < ' ' || c > '~' }) < 0 {
		return nil
	}
	return &throttlekit.InvalidError{
		Field: field, Value: "(not shown)",
		Rule: "must be printable ASCII text without spaces around it, or no caller could present it",
	}
}

// checkAddr requires "host:port", and a loopback host unless more is allowed.
func checkAddr(field, addr string, mayLeaveLoopback bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return &throttlekit.InvalidError{Field: field, Value: addr, Rule: "must be host:port with a port from 0 to 65535"}
	}
	if mayLeaveLoopback || isLoopback(host) {
		return nil
	}
	return &throttlekit.InvalidError{
		Field: field, Value: addr,
		Rule: "must be a loopback address such as 127.0.0.1 as long as it speaks plaintext;" +
			" give a TLS certificate and key, or set AllowInsecure to let keys and decisions travel unprotected",
	}
}

// isLoopback says whether only this machine reaches host. Names other than localhost are not resolved: what they mean
// can change between the check and the bind.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

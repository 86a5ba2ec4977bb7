package client

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/throttlekit/throttlekit-go"
)

// DefaultTimeout bounds calls whose context has no deadline.
const DefaultTimeout = time.Second

// Unavailable says what a client answers when it cannot reach the service.
type Unavailable int

const (
	// ReturnError reports an error that matches [ErrUnavailable].
	ReturnError Unavailable = iota
	// FailOpen admits: what the limit protects takes the risk.
	FailOpen
	// FailClosed denies: callers take the outage.
	FailClosed
)

// Option changes how [Dial] sets a client up.
type Option func(*options)

type options struct {
	timeout     time.Duration
	unavailable Unavailable
	degraded    func(error)
	tls         *tls.Config
	plaintext   bool
	dial        []grpc.DialOption
	conn        grpc.ClientConnInterface
	secret      string
	hasSecret   bool
	leaseTTL    time.Duration
}

// WithTLS protects the connection. An empty config trusts the authorities of the system; Certificates in it are shown to
// a service that wants to know its clients.
func WithTLS(config *tls.Config) Option { return func(o *options) { o.tls = config } }

// WithPlaintext speaks plaintext to any address. Without it only loopback addresses are spoken to so.
func WithPlaintext() Option { return func(o *options) { o.plaintext = true } }

// WithTimeout bounds every call whose context has no deadline of its own. 0 leaves such calls unbounded; negative is an
// error. Defaults to [DefaultTimeout].
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// WithUnavailable says what Check, CheckN, CheckMany, Debit and Admit answer when the service cannot be reached or does not answer
// within [WithTimeout]. A decision made up so has Allowed as the mode says, and zeros. Calls that charge nothing report
// the error in any case, and so does every call that was invalid, refused by the service, or ended by its own context.
// Defaults to [ReturnError].
func WithUnavailable(mode Unavailable) Option { return func(o *options) { o.unavailable = mode } }

// WithDegraded has f told why, each time that the mode of [WithUnavailable] answers in place of the service. It is called
// by the goroutine that asked and must return quickly. See also [Client.Degraded].
func WithDegraded(f func(err error)) Option { return func(o *options) { o.degraded = f } }

// WithDialOptions hands options to grpc-go. They come after the client's own and so win over them, transport credentials
// included.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, opts...) }
}

// WithConn uses a connection that the caller made and will close; the address is not used. It excludes options about
// making a connection. A retry policy of the connection does not apply, since a call that charges must not be made twice.
func WithConn(conn grpc.ClientConnInterface) Option { return func(o *options) { o.conn = conn } }

// settle applies the options and reports everything that is wrong at once.
func settle(addr string, opts []Option) (options, error) {
	o := options{timeout: DefaultTimeout, leaseTTL: DefaultLeaseTTL}
	for _, opt := range opts {
		opt(&o)
	}
	var errs []error
	invalid := func(field string, value any, rule string) {
		errs = append(errs, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
	}
	if o.timeout < 0 {
		invalid("timeout", o.timeout, "must not be negative")
	}
	if o.leaseTTL < time.Millisecond {
		invalid("leaseTTL", o.leaseTTL, "must be at least 1ms")
	}
	if o.unavailable < ReturnError || o.unavailable > FailClosed {
		invalid("unavailable", int(o.unavailable), "must be ReturnError, FailOpen or FailClosed")
	}
	if o.hasSecret && !validSecret(o.secret) {
		errs = append(errs, errSecret) // without its value, which is in no message
	}
	if o.tls != nil && o.plaintext {
		invalid("plaintext", "WithPlaintext", "must not be given together with WithTLS")
	}
	making := o.tls != nil || o.plaintext || len(o.dial) > 0
	switch host, ok := hostOf(addr); {
	case o.conn != nil:
		if making {
			invalid("conn", "WithConn", "must not be given together with WithTLS, WithPlaintext or WithDialOptions")
		}
	case !ok:
		invalid("addr", addr, "must be host:port or a target that grpc-go understands, such as unix:///run/throttlekit.sock")
	case !making && !isLocal(host):
		invalid("addr", addr, "must be a loopback address unless WithTLS protects the connection,"+
			" or WithPlaintext lets keys and decisions travel unprotected")
	}
	return o, errors.Join(errs...)
}

// errSecret does not tell the secret.
var errSecret error = &throttlekit.InvalidError{
	Field: "fleetSecret", Value: "(not shown)", Rule: "must be printable ASCII text without spaces around it, and not empty",
}

// validSecret reports whether a secret can travel in metadata as it is.
func validSecret(secret string) bool {
	return secret != "" && strings.TrimSpace(secret) == secret &&
		strings.IndexFunc(secret, func(c rune) bool { return c < ' ' || c > '~' }) < 0
}

// dialOptions are what grpc-go is given.
func (o *options) dialOptions() []grpc.DialOption {
	transport := insecure.NewCredentials()
	if o.tls != nil {
		transport = credentials.NewTLS(o.tls)
	}
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		// Checks and debits charge, so none is sent twice, and no service config found in DNS may say otherwise. grpc-go still
		// repeats requests that the service provably never saw.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		// With requests running and nothing heard for 30 seconds, ask whether the service is there; on Linux this also
		// ends a connection whose packets go unacknowledged for 5 seconds. Idle connections are left alone: servers may
		// take pings on them amiss.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		// grpc-go would wait up to two minutes between attempts: long after a restarted service is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, o.dial...)
}

// hostOf is the host of a target, or its scheme where that never leaves the machine.
func hostOf(target string) (host string, ok bool) {
	for _, scheme := range []string{"unix:", "unix-abstract:"} {
		if strings.HasPrefix(target, scheme) {
			return scheme, true
		}
	}
	scheme, endpoint, found := strings.Cut(target, "://")
	if !found {
		host, _, err := net.SplitHostPort(target)
		return host, err == nil
	}
	if scheme == "dns" || scheme == "passthrough" {
		if host, _, err := net.SplitHostPort(endpoint[strings.LastIndexByte(endpoint, '/')+1:]); err == nil {
			return host, true
		}
	}
	return endpoint, endpoint != "" // a resolver of the caller's, which may lead anywhere
}

// isLocal says whether host is on this machine. Names other than localhost are not resolved: what they mean can change.
func isLocal(host string) bool {
	switch host {
	case "localhost", "unix:", "unix-abstract:":
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

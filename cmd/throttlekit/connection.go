package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server"
)

// connection is how a command reaches a server, as its flags say.
type connection struct {
	addr          string
	timeout       span
	tls           bool
	ca, cert, key string
	allowInsecure bool
}

// define adds the flags.
func (c *connection) define(cmd *cobra.Command) {
	c.timeout = span(2 * time.Second)
	f := cmd.Flags()
	f.StringVar(&c.addr, "addr", server.DefaultGRPCAddr, "`host:port` of the server's gRPC door")
	f.Var(&c.timeout, "timeout", "how long to wait for an answer")
	f.BoolVar(&c.tls, "tls", false, "speak TLS, trusting the authorities of this system")
	f.Var((*path)(&c.ca), "tls-ca", "speak TLS, trusting the authorities in this PEM file only")
	f.Var((*path)(&c.cert), "tls-cert", "PEM file with the certificate to show to a server that asks for one; needs --tls-key")
	f.Var((*path)(&c.key), "tls-key", "PEM file with the private key of --tls-cert")
	f.BoolVar(&c.allowInsecure, "allow-insecure", false, "speak plaintext to an address other than loopback")
}

// dial returns a client. It does not connect yet.
func (c *connection) dial() (*client.Client, error) {
	opts := []client.Option{client.WithTimeout(time.Duration(c.timeout))}
	config, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	if config != nil {
		opts = append(opts, client.WithTLS(config))
	}
	if c.allowInsecure {
		opts = append(opts, client.WithPlaintext())
	}
	to, err := client.Dial(c.addr, opts...)
	if err != nil {
		return nil, reword(err,
			map[string]string{"addr": "--addr", "plaintext": "--allow-insecure"},
			"WithTLS protects", "--tls or --tls-ca protects",
			"given together with WithTLS", "given together with --tls, --tls-ca or --tls-cert",
			"WithPlaintext", "--allow-insecure",
		)
	}
	return to, nil
}

// tlsConfig is nil for plaintext.
func (c *connection) tlsConfig() (*tls.Config, error) {
	if !c.tls && c.ca == "" && c.cert == "" && c.key == "" {
		return nil, nil //nolint:nilnil // no configuration and no error: plaintext
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, wrong("--tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, wrong("--tls-ca must hold certificates in PEM form, and %q does not", c.ca)
		}
	}
	switch {
	case c.cert == "" && c.key == "":
		return config, nil
	case c.cert == "":
		return nil, wrong("--tls-key must be given together with --tls-cert")
	case c.key == "":
		return nil, wrong("--tls-cert must be given together with --tls-key")
	}
	own, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, wrong("--tls-cert %q with --tls-key %q: %w", c.cert, c.key, err)
	}
	config.Certificates = []tls.Certificate{own}
	return config, nil
}

// explain words the error of a call, and says whether to blame the request or the way to the server.
func (c *connection) explain(err error) error {
	said := err.Error()
	if s, ok := status.FromError(err); ok {
		said = s.Message()
	}
	switch {
	case errors.Is(err, throttlekit.ErrInvalid), errors.Is(err, throttlekit.ErrPolicyNotFound), errors.Is(err, throttlekit.ErrUnsupported):
		return wrong("%s", said)
	case !errors.Is(err, client.ErrUnavailable):
		return errors.New(said)
	}
	what, hint := c.diagnose(err)
	if hint != "" {
		what += "; " + hint
	}
	return errors.New(what)
}

// diagnose says why no server has answered, and what to do about it if that is known.
func (c *connection) diagnose(err error) (what, hint string) {
	said := err.Error()
	if s, ok := status.FromError(err); ok {
		said = s.Message()
	}
	if status.Code(err) == codes.DeadlineExceeded {
		return fmt.Sprintf("the server at %s gave no answer within %v (--timeout)", shown(c.addr), time.Duration(c.timeout)), ""
	}
	why, nobody := cause(said)
	hint = "it must speak gRPC, which the HTTP port does not, and both sides must mean TLS (--tls, --tls-ca, --tls-cert, --tls-key)"
	if nobody {
		hint = "is the address right, and the server running? Start one with: throttlekit serve"
	}
	return fmt.Sprintf("no server answers at %s: %s", shown(c.addr), why), hint
}

// wrapped is how grpc-go words a failed connection.
var wrapped = regexp.MustCompile(`connection error: desc = ("(?:[^"\\]|\\.)*")$`)

// cause is what a message of grpc-go comes down to, and whether that is that nobody is there at all.
func cause(said string) (why string, nobody bool) {
	if parts := wrapped.FindStringSubmatch(said); parts != nil {
		if inner, err := strconv.Unquote(parts[1]); err == nil {
			said = inner
		}
	}
	if name, unknown := strings.CutPrefix(said, "name resolver error: "); unknown {
		return "no such host: " + name, true
	}
	return strings.CutPrefix(strings.TrimPrefix(said, "transport: "), "Error while dialing: ")
}

// withClient runs a call within a connection.
func (c *connection) withClient(ctx context.Context, call func(context.Context, *client.Client) error) error {
	to, err := c.dial()
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }() // nothing is under way any more
	if err := call(ctx, to); err != nil {
		return c.explain(err)
	}
	return nil
}

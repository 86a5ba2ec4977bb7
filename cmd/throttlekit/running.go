package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// running is a server whose ports are open, and what there is to say about it. Where that goes is the business of
// --log-format: text for people, or records in the log.
type running struct {
	*serving

	server   *server.Server
	store    *shared // nil for memory
	policies []service.Info
	guards   []service.GuardState
	lends    string // how callers of Fleet show that they may; empty if it is not served
	out, err io.Writer
	log      *slog.Logger
}

// serve answers until signalled ends, and drains then. From the drain on a signal has its usual effect, which release
// brings back: it ends the process.
func (r *running) serve(ctx, signalled context.Context, release func()) error {
	ctx, drain := context.WithCancel(ctx)
	defer drain()
	ended := make(chan error, 1)
	go func() { ended <- r.server.Serve(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-signalled.Done():
	}
	cause, within := context.Cause(signalled), time.Duration(r.shutdownTimeout)
	release()
	if r.json() {
		r.log.Info("stopping", "cause", cause.Error(), "within", within.String())
	} else {
		sayf(r.err, "throttlekit: %v, answering what is running for at most %v; once more ends it at once\n", cause, within)
	}
	drain()
	err := <-ended
	switch {
	case errors.Is(err, server.ErrDrainTimeout):
		return fmt.Errorf("requests ran on after %v (--shutdown-timeout) and were cut off", within)
	case err != nil:
		return err
	case r.json():
		r.log.Info("stopped")
	default:
		sayf(r.err, "throttlekit: stopped, every request was answered\n")
	}
	return nil
}

// local reports whether a host is this machine only.
func local(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// coldStart is how long the start waits for a first answer of the store, to warn if there is none.
const coldStart = time.Second

// caution says what is probably not as it was meant. None of it keeps the server from serving.
func (r *running) caution(cmd *cobra.Command, file *policy.File) {
	if names := idle(cmd, backendOf(r.store)); len(names) > 0 {
		r.warnf("%s: no effect on the store %s", strings.Join(names, ", "), storeKind(r.store))
	}
	if r.fleet.secret != "" && r.lends == "" {
		r.warnf("the fleet secret has no effect: no policy is federated")
	}
	if r.monitoring.guarded && r.monitoring.on.value == off {
		r.warnf("the monitor secret has no effect with --monitor off")
	}
	if (r.monitoring.guarded || r.fleet.secret != "") && r.tls.CertFile == "" && !local(r.host) {
		r.warnf("secrets travel in plaintext beyond loopback, and whoever is on the path can use them; give --tls-cert and --tls-key")
	}
	if r.monitoring.topKeys > 0 && r.server.MetricsAddr() != nil {
		r.warnf("whoever reaches the port for metrics reads keys in them (--metrics-top-keys)")
	}
	if r.store == nil {
		return
	}
	for _, w := range file.Warnings() {
		r.warnf("%s", w)
	}
	r.cautionFleet()
	if _, _, err := r.store.ping(cmd.Context(), coldStart); err != nil {
		r.warnf("the store does not answer yet, and until it does the fail mode will: %s", message(err.Error()))
	}
}

// cautionFleet says what keeps ceilings that a fleet shares from being kept.
func (r *running) cautionFleet() {
	for _, g := range r.guards {
		if g.Fleet == nil {
			continue
		}
		if storeKind(r.store) == dynamoStore {
			r.warnf("%s: DynamoDB has no clock of its own, so the ceiling holds only while the servers' clocks agree within a fraction"+
				" of fenceSafetyMargin", shown(g.Policy))
		}
		if ttl := time.Duration(r.leaseTTL); g.Fleet.Strict && g.Fleet.Margin > 0 && ttl > g.Fleet.Margin {
			r.warnf("%s: clients of a server that is cut off may keep slots for %v (--lease-ttl), others get them after %v"+
				" (fenceSafetyMargin): give a shorter --lease-ttl, or a longer leaseTtl and fenceSafetyMargin",
				shown(g.Policy), ttl, g.Fleet.Margin)
		}
	}
}

func (r *running) warnf(format string, args ...any) {
	text := oneLine(fmt.Sprintf(format, args...))
	if r.json() {
		r.log.Warn(text)
	} else {
		sayf(r.err, "throttlekit: warning: %s\n", text)
	}
}

// announce says where the server listens and what it serves.
func (r *running) announce() {
	if r.json() {
		r.record()
		return
	}
	if r.starter() {
		sayf(r.out, "No --config was given, so a built-in starter set of policies is served:\n")
		_ = printPolicies(r.out, r.policies) // standard output may be closed; the server serves all the same
	}
	sayf(r.out, "%v\n", r.line())
	if r.starter() && len(r.policies) > 0 {
		sayf(r.out, "Try it:\n  %s\n", r.example())
	}
	if r.starter() && r.monitoring.on.value != off {
		sayf(r.out, "Watch it:\n  %s\n", r.lookout())
	}
}

// line is the start-up line, by which programs may wait for the server.
func (r *running) line() string {
	where := r.server.GRPCAddr().String() + " (gRPC)"
	if url := r.url(); url != "" {
		where += " and " + url + " (HTTP)"
	}
	if addr := r.server.MetricsAddr(); addr != nil {
		where += " and " + addr.String() + " (metrics)"
	}
	fleet := ""
	if r.lends != "" {
		fleet = ", fleet:" + r.lends
	}
	return fmt.Sprintf("throttlekit listening on %s [%s, %s, fail=%s, monitor:%s%s] (%s: %s)",
		where, storeKind(r.store), r.security(), r.fail.value, r.monitoring.state(), fleet, count(len(r.policies), "policy"), r.names())
}

// record is the start-up line as a log record.
func (r *running) record() {
	attrs := []any{
		"grpc", r.server.GRPCAddr().String(), "http", r.url(), "store", storeKind(r.store), "security", r.security(),
		"fail", r.fail.value, "monitor", r.monitoring.state(), "policies", len(r.policies), "names", r.names(),
	}
	if addr := r.server.MetricsAddr(); addr != nil {
		attrs = append(attrs, "metrics", addr.String())
	}
	if r.lends != "" {
		attrs = append(attrs, "fleet", r.lends)
	}
	if r.starter() {
		attrs = append(attrs, "config", "the built-in starter set")
	}
	r.log.Info("listening", attrs...)
}

// url is the address of the HTTP door, or empty if it is off.
func (r *running) url() string {
	addr := r.server.HTTPAddr()
	switch {
	case addr == nil:
		return ""
	case r.tls.CertFile != "":
		return "https://" + addr.String()
	}
	return "http://" + addr.String()
}

func (r *running) security() string {
	switch tls := r.tls; {
	case tls.CAFile != "":
		return "mTLS"
	case tls.CertFile != "":
		return "TLS"
	}
	return "insecure"
}

// names are those of the policies, as many as a line can bear.
func (r *running) names() string {
	const most = 20
	if len(r.policies) == 0 {
		return "none"
	}
	var names []string
	for _, p := range r.policies[:min(most, len(r.policies))] {
		names = append(names, shown(p.Name))
	}
	if more := len(r.policies) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// example is a command that gets a decision from this very server.
func (r *running) example() string {
	name := r.policies[0].Name
	if r.server.HTTPAddr() == nil || r.tls.CertFile != "" {
		flags := ""
		if to := reachable(r.server.GRPCAddr()); to != server.DefaultGRPCAddr {
			flags += " --addr " + to
		}
		if r.tls.CertFile != "" {
			flags += " --tls-ca CA.pem"
		}
		if r.tls.CAFile != "" {
			flags += " --tls-cert CLIENT.pem --tls-key CLIENT.key"
		}
		return "throttlekit check" + flags + " " + name + " me"
	}
	return fmt.Sprintf(`curl -H 'Content-Type: application/json' -d '{"policy":%q,"key":"me"}' 'http://%s%s'`,
		name, reachable(r.server.HTTPAddr()), throttlekitv1connect.RateLimiterCheckProcedure)
}

// lookout is how to watch this very server.
func (r *running) lookout() string {
	how := "throttlekit top"
	if to := reachable(r.server.GRPCAddr()); to != server.DefaultGRPCAddr {
		how += " --addr " + to
	}
	if url := r.url(); url != "" {
		how += ", or in a browser " + url
	}
	return how
}

// reachable is where this machine reaches what listens at an address.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return fmt.Sprintf("127.0.0.1:%d", tcp.Port)
}

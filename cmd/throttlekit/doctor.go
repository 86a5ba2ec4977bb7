package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/throttlekit/throttlekit-go/service/policy"
)

// examination is what the flags of doctor say, and what has been found.
type examination struct {
	config  string
	storage storage
	server  connection
	out     io.Writer
	failed  int
}

// finding is one line of the diagnosis.
type finding struct {
	outcome string
	about   string
	text    string
	fix     string // what to do, unless all is fine
}

// The outcomes of a check.
const (
	fine   = "ok"
	warned = "warn"
	failed = "FAIL"
)

const (
	// examPatience bounds each step.
	examPatience = 5 * time.Second
	// tolerableSkew is how far the clocks of store and machine may be apart without a warning.
	tolerableSkew = time.Second
)

func newDoctor() *cobra.Command {
	e := &examination{}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check a policy file, a store and a running server, and say what to fix",
		Long: `Doctor checks what a server needs, a line for each check: ok, warn or FAIL, and what to fix.

With --config it reads the policy file. With the store flags of serve it asks the store: how long an answer takes, what
version it is, whether its clock agrees with this machine's, and whether it decides, remembers and forgets, on a
throw-away key. With --addr it asks a running server whether it serves.

Exit codes: 0 nothing failed, though there may be warnings; 1 something did; 2 wrong usage.`,
		Example: `  throttlekit doctor --config policies.yaml --redis localhost:6379
  throttlekit doctor --postgres-url postgres://app@db.internal/app --addr limits.internal:50051 --tls`,
		Args:              takes(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e.out = cmd.OutOrStdout()
			return e.run(cmd)
		},
	}
	f := cmd.Flags()
	f.VarP((*path)(&e.config), "config", "c", "policy file to check, YAML or JSON; - is standard input")
	e.storage.define(cmd)
	e.server.define(cmd)
	addr := f.Lookup("addr")
	e.server.addr, addr.DefValue, addr.Usage = "", "", "`host:port` of the gRPC door of a running server to check"
	return cmd
}

func (e *examination) run(cmd *cobra.Command) error {
	store, err := e.storage.open(replaying{})
	if err != nil {
		return err
	}
	if store != nil {
		defer func() { _ = store.Close() }() // nothing is under way any more
	}
	var health healthpb.HealthClient
	if e.server.addr != "" {
		conn, err := e.server.healthConn()
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }() // nothing is under way any more
		health = healthpb.NewHealthClient(conn)
	}
	if e.config != "" {
		e.policies(cmd, store)
	}
	if names := idle(cmd, backendOf(store)); len(names) > 0 {
		e.tell(warned, "flags", fmt.Sprintf("%s: no effect on the store %s", strings.Join(names, ", "), storeKind(store)),
			"leave them out, or set --store")
	}
	e.store(cmd.Context(), store)
	if health != nil {
		e.serving(cmd.Context(), health)
	}
	if e.failed > 0 {
		return fmt.Errorf("%s failed", count(e.failed, "check"))
	}
	return nil
}

// tell prints a finding.
func (e *examination) tell(outcome, about, text, fix string) {
	if outcome == failed {
		e.failed++
	}
	sayf(e.out, "%-4s  %-9s  %s\n", outcome, about, oneLine(text))
	if fix != "" && outcome != fine {
		sayf(e.out, "%-4s  %-9s  fix: %s\n", "", "", fix)
	}
}

// policies reads the policy file.
func (e *examination) policies(cmd *cobra.Command, store *shared) {
	file, err := openPolicies(cmd, e.config)
	if problems, found := errors.AsType[*policy.Error](err); found {
		n := len(problems.Problems) + problems.Omitted
		e.tell(failed, "policies", count(n, "problem")+" in "+shown(e.config), "")
		for line := range strings.Lines(problems.Error()) {
			sayf(e.out, "%-4s  %-9s  %s\n", "", "", visible(strings.TrimRight(line, "\n")))
		}
		return
	}
	if err != nil {
		e.tell(failed, "policies", err.Error(), "name a file that can be read (--config)")
		return
	}
	e.tell(fine, "policies", count(len(file.Policies()), "policy")+" in "+shown(file.Name()), "")
	if store == nil {
		return
	}
	for _, w := range file.Warnings() {
		e.tell(warned, "policies", fmt.Sprint(w), "")
	}
}

// store asks the store. What needs its answer is left out if there is none.
func (e *examination) store(ctx context.Context, store *shared) {
	if store == nil {
		e.tell(fine, "store", "memory: every server counts for itself, and forgets when it ends", "")
		return
	}
	where := store.name + " at " + e.storage.where(store.backend)
	// The first answer takes a connection, and on some stores the creation of a table.
	if _, _, err := store.ping(ctx, examPatience); err != nil {
		e.tell(failed, "store", where+": "+message(err.Error()), e.remedy(store, err))
		return
	}
	took, ahead, err := store.ping(ctx, examPatience)
	if err != nil {
		e.tell(failed, "store", where+": "+message(err.Error()), e.remedy(store, err))
		return
	}
	text := fmt.Sprintf("%s answers in %v", where, took.Round(10*time.Microsecond))
	if limit := time.Duration(e.storage.timeout); took > limit/2 {
		e.tell(warned, "store", fmt.Sprintf("%s, and the fail mode answers after %v", text, limit),
			"raise --store-timeout, or bring the store closer")
	} else {
		e.tell(fine, "store", text, "")
	}
	e.inspect(ctx, store)
	e.clock(ahead, took)
	within, cancel := context.WithTimeout(ctx, examPatience)
	defer cancel()
	if err := tryOut(within, store); err != nil {
		e.tell(failed, "decisions", message(err.Error()), e.remedy(store, err))
		return
	}
	e.tell(fine, "decisions", "a throw-away key was charged, refused, read and removed", "")
}

func (e *examination) inspect(ctx context.Context, store *shared) {
	if store.inspect == nil {
		return // a service without versions
	}
	ctx, cancel := context.WithTimeout(ctx, examPatience)
	defer cancel()
	found, err := store.inspect(ctx, &e.storage)
	if err != nil {
		e.tell(warned, "version", "the server does not tell: "+err.Error(), "let the user ask for it, or check by hand")
		return
	}
	for _, f := range found {
		e.tell(f.outcome, f.about, f.text, f.fix)
	}
}

// clock compares the clocks. The store's own is the one that counts; but Decisions carry its times to callers.
func (e *examination) clock(ahead, took time.Duration) {
	direction := "ahead of"
	if ahead < 0 {
		direction = "behind"
	}
	text := fmt.Sprintf("the store is %v %s this machine, give or take %v",
		ahead.Abs().Round(time.Millisecond), direction, max(time.Millisecond, (took/2).Round(time.Millisecond)))
	if ahead.Abs()-took/2 > tolerableSkew {
		e.tell(warned, "clock", text,
			"synchronize both with NTP; decisions go by the store's clock, and callers read reset times by theirs")
		return
	}
	e.tell(fine, "clock", text, "")
}

// remedy is what may help against an error of the store.
func (e *examination) remedy(store *shared, err error) string {
	flag := "--" + store.connection
	if network, ok := errors.AsType[*net.OpError](err); ok && network.Op == "dial" {
		return "start the server, or correct its address (" + flag + ")"
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "see whether the server runs, is overloaded, or is behind a firewall that drops packets (" + flag + ")"
	case store.name == postgresStore:
		return "correct user, password or database (" + flag + "), or let the user create and write the table (--postgres-table)"
	}
	return "correct user, password or database (" + flag + "), or let the user write keys and run scripts there"
}

// serving asks a running server for its health.
func (e *examination) serving(ctx context.Context, health healthpb.HealthClient) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(e.server.timeout))
	defer cancel()
	res, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		what, hint := e.server.diagnose(err)
		e.tell(failed, "server", what, cmp.Or(hint, "see whether it is overloaded, or raise --timeout"))
		return
	}
	text := fmt.Sprintf("%s is %s", e.server.addr, res.GetStatus())
	if res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		e.tell(failed, "server", text, "it is shutting down; wait for the next one, or start it: throttlekit serve")
		return
	}
	e.tell(fine, "server", text, "")
}

// healthConn is a connection for what the client package does not do. It does not connect yet.
func (c *connection) healthConn() (*grpc.ClientConn, error) {
	to, err := c.dial() // it knows which addresses and flags go together
	if err != nil {
		return nil, err
	}
	_ = to.Close() // it has not been used
	config, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if config != nil {
		transport = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient(c.addr, grpc.WithTransportCredentials(transport))
	if err != nil {
		return nil, wrong("--addr: %w", err)
	}
	return conn, nil
}

func backendOf(s *shared) *backend {
	if s == nil {
		return nil
	}
	return s.backend
}

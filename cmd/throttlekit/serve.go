package main

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// serving is what the flags of serve say.
type serving struct {
	config          string
	host            string
	port            port
	httpPort        port
	fail            word
	maxKeys         uint
	storage         storage
	fleet           fleet
	monitoring      monitoring
	exporting       exporting
	tls             server.TLS
	allowInsecure   bool
	leaseTTL        span
	shutdownTimeout span
	logFormat       word
	logLevel        word
}

func newServe() *cobra.Command {
	s := &serving{
		port:            port{value: "50051"},
		httpPort:        port{value: "8080", orOff: true},
		leaseTTL:        span(service.DefaultLeaseTTL),
		shutdownTimeout: span(server.DefaultDrainTimeout),
		logLevel:        word{value: "info"},
	}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server that answers over gRPC and HTTP",
		Long: `Serve answers for the policies of a file over gRPC and, as JSON, over HTTP. Without a file it serves a built-in starter
set of policies.

Servers with the same --redis, --postgres-url or --dynamodb-table share one count. Without any of these, a server counts
for itself, in memory. A server starts while its store is down, answers as --fail says until it is there, and recovers
by itself; "throttlekit doctor" says what is wrong with a store.

Servers with federated policies share budgets in leases and lend to clients, too: to those that present --fleet-secret, or
without one to callers on this machine only.

SIGINT and SIGTERM let running requests finish, for at most --shutdown-timeout; a second one ends the process at once.

Once both ports are open, one line on standard output says where ("throttlekit listening on ..."). Logs go to standard
error; with --log-format json that line is a log record, too ("msg":"listening"), and nothing goes to standard output.

Exit codes: 0 stopped by a signal, all requests answered; 1 a port could not be opened, or requests were cut off;
2 the flags or the policy file are wrong.`,
		Example: `  throttlekit serve
  throttlekit serve --config policies.yaml --host 0.0.0.0 --tls-cert server.pem --tls-key server.key
  throttlekit serve --config policies.yaml --redis redis://limits.internal:6379 --redis-prefix prod
  throttlekit serve --config policies.yaml --postgres-url postgres://app@db.internal/app --fail closed
  throttlekit serve --port 0 --http-port off`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return wrong("serve takes no arguments, got %q; a policy file is given as --config %s", args[0], args[0])
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	s.define(cmd)
	return cmd
}

func (s *serving) define(cmd *cobra.Command) {
	f := cmd.Flags()
	f.VarP((*path)(&s.config), "config", "c", "policy file, YAML or JSON; - is standard input")
	f.StringVar(&s.host, "host", "127.0.0.1", "`address` to listen on; beyond loopback it takes TLS or --allow-insecure")
	f.VarP(&s.port, "port", "p", "port for gRPC; 0 picks a free one")
	f.Var(&s.httpPort, "http-port", "port for HTTP; 0 picks a free one, off leaves HTTP out")
	choice(cmd, &s.fail, "fail", "", "what to answer when a store cannot decide, for policies without failMode: open admits, closed denies",
		string(service.FailOpen), string(service.FailClosed))
	f.UintVar(&s.maxKeys, "max-keys", 1_000_000,
		"`records` that each policy keeps, with the store memory, before it refuses new keys to --fail; 0 sets no bound")
	s.storage.define(cmd)
	s.fleet.define(cmd)
	s.monitoring.define(cmd)
	s.exporting.define(cmd)
	f.Var((*path)(&s.tls.CertFile), "tls-cert", "PEM file with the server's certificate; needs --tls-key")
	f.Var((*path)(&s.tls.KeyFile), "tls-key", "PEM file with the private key of --tls-cert")
	f.Var((*path)(&s.tls.CAFile), "tls-ca", "PEM file with the authorities of client certificates, which every client must then show")
	f.BoolVar(&s.allowInsecure, "allow-insecure", false, "speak plaintext on addresses other than loopback")
	f.Var(&s.leaseTTL, "lease-ttl", "how long a slot is kept for a client that admit gave it to and that sends no heartbeats")
	f.Var(&s.shutdownTimeout, "shutdown-timeout", "how long running requests may take to finish after a signal")
	choice(cmd, &s.logFormat, "log-format", "", "form of the log", "text", "json")
	choice(cmd, &s.logLevel, "log-level", "", "least level that is logged", "debug", "info", "warn", "error")
}

// run serves until a signal comes. Whatever fails before the start-up line leaves nothing behind.
func (s *serving) run(cmd *cobra.Command) error {
	file, err := s.policies(cmd)
	if err != nil {
		return err
	}
	// The command tells of its start and end itself, so of what the others log it takes less.
	logger, quiet := s.loggers(cmd.ErrOrStderr())
	if err := errors.Join(s.fleet.settle(cmd), s.monitoring.settle(cmd)); err != nil {
		return err
	}
	store, err := s.storage.open(replaying{})
	if err != nil {
		return err
	}
	watch, err := s.monitoring.open(s, store)
	if err != nil {
		return err
	}
	defer watch.close()
	env := policy.Env{MaxKeys: int(s.maxKeys), Region: string(s.fleet.region), Node: string(s.fleet.node)}
	if store != nil {
		env.Store = watch.store
		defer func() { _ = store.Close() }() // whatever was asked of it has been answered
	}
	taps := []service.Tap{watch.hub}
	export, err := s.exporting.open(cmd, string(s.fleet.node), quiet)
	if err != nil {
		return err
	}
	if export != nil {
		taps = append(taps, export)
		defer s.exporting.end(export, quiet)
	}
	svc, err := newService(file, env, service.Config{
		FailMode: service.FailMode(s.fail.value), Logger: quiet, LeaseTTL: time.Duration(s.leaseTTL), Taps: taps, Clock: watch.clock,
	})
	if err != nil {
		return err
	}
	defer func() { // the store is closed after it
		if err := svc.Close(); err != nil {
			quiet.Warn("not everything was given back", "error", err)
		}
	}()
	if err := watch.hub.Attach(svc); err != nil {
		return err
	}
	// Once the ports are open, a signal must lead to a drain.
	signalled, release := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer release()
	config := s.doors(quiet)
	config.FailMode = s.ready(svc.Policies())
	if err := s.monitoring.show(watch, &config); err != nil {
		return s.explain(err)
	}
	if export != nil {
		if err := export.Attach(svc); err != nil {
			return err
		}
		config.GRPCStats = export.StatsHandler()
	}
	srv, err := server.New(svc, config)
	if err != nil {
		return s.explain(err)
	}
	r := &running{
		serving: s, server: srv, store: store, policies: svc.Policies(), guards: svc.Guards(), lends: s.fleet.lenders(svc),
		out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), log: logger,
	}
	r.caution(cmd, file)
	r.announce()
	return r.serve(cmd.Context(), signalled, release)
}

// policies are those of the file, or the starter set.
func (s *serving) policies(cmd *cobra.Command) (*policy.File, error) {
	if s.starter() {
		return policy.Starter()
	}
	return loadPolicies(cmd, s.config)
}

// starter reports whether the starter set is served.
func (s *serving) starter() bool { return s.config == "" }

func (s *serving) json() bool { return s.logFormat.value == "json" }

// loggers are one at the level that was asked for, and one that leaves out what is not worth a warning unless all is wanted.
func (s *serving) loggers(w io.Writer) (logger, quiet *slog.Logger) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel.value)); err != nil {
		panic(err) // the flag takes names of levels only
	}
	least := max(level, slog.LevelWarn)
	if level == slog.LevelDebug {
		least = level
	}
	return s.logger(w, level), s.logger(w, least)
}

func (s *serving) logger(w io.Writer, least slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: least}
	if s.json() {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// ready is the fail mode by which the server is ready while its store is away: open if any policy admits then.
func (s *serving) ready(policies []service.Info) service.FailMode {
	for _, p := range policies {
		if cmp.Or(p.FailMode, service.FailMode(s.fail.value)) == service.FailOpen {
			return service.FailOpen
		}
	}
	return service.FailClosed
}

// doors is the configuration of the server.
func (s *serving) doors(log *slog.Logger) server.Config {
	config := server.Config{
		GRPCAddr:      net.JoinHostPort(s.host, s.port.value),
		HTTPAddr:      server.Off,
		TLS:           s.tls,
		AllowInsecure: s.allowInsecure,
		FleetSecret:   string(s.fleet.secret),
		DrainTimeout:  time.Duration(s.shutdownTimeout),
		Logger:        log,
	}
	if s.httpPort.value != off {
		config.HTTPAddr = net.JoinHostPort(s.host, s.httpPort.value)
	}
	return config
}

// explain words an error of server.New in terms of the flags. What the system refuses may work another time; the rest
// is a mistake.
func (s *serving) explain(err error) error {
	if _, system := errors.AsType[*net.OpError](err); system {
		return err
	}
	return reword(err,
		map[string]string{
			"GRPCAddr": "--host", "HTTPAddr": "--host", "MetricsAddr": "--metrics-host", "TopKeys": "--metrics-top-keys",
			"TLS.CertFile": "--tls-cert", "TLS.KeyFile": "--tls-key", "TLS.CAFile": "--tls-ca",
		},
		"give a TLS certificate and key, or set AllowInsecure", "give --tls-cert and --tls-key, or --allow-insecure",
		"TLS.CertFile", "--tls-cert", "TLS.KeyFile", "--tls-key",
	)
}

// newService builds the policies of a file and returns the service that answers for them, as config says.
func newService(file *policy.File, env policy.Env, config service.Config) (*service.Service, error) {
	policies, err := file.Build(env)
	if err != nil {
		return nil, wrong("%w", err)
	}
	config.Policies = policies
	svc, err := service.New(config)
	if err != nil {
		for _, p := range policies {
			err = errors.Join(err, p.Close())
		}
		return nil, reword(err, map[string]string{"leaseTTL": "--lease-ttl"})
	}
	return svc, nil
}

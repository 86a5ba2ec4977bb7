package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/stats"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/service"
)

const (
	// DefaultPort is that of OTLP over gRPC.
	DefaultPort = "4317"
	// flushTimeout is how long [Telemetry.Shutdown] takes at most if its context has no deadline.
	flushTimeout = 5 * time.Second
	// scope is who measures.
	scope = "github.com/throttlekit/throttlekit-go/server/telemetry"
	// seriesLimit is how many combinations of attributes a metric may have, before OpenTelemetry sums up the rest: enough for the
	// lanes of 10,000 policies.
	seriesLimit = 40_000
)

// Config says what is sent where.
type Config struct {
	// Endpoint is the collector: "host:port", or a URL of scheme http or https without a path, whose port defaults to [DefaultPort].
	// http means plaintext, the others TLS.
	Endpoint string
	// Node is the server's name for itself, service.instance.id. Empty leaves it out.
	Node string
	// Version is that of the program, service.version. Empty leaves it out.
	Version string
	// Metrics and Traces are what is sent. One of them must be.
	Metrics, Traces bool
	// Interval is how often metrics are sent. Must not be negative. 0 means once a minute, or as OTEL_METRIC_EXPORT_INTERVAL says.
	Interval time.Duration
	// Logger is told when the collector does not take what it is sent, and when it does again. Nil discards it.
	Logger *slog.Logger
}

// Telemetry sends what a service decides. It is safe for concurrent use.
type Telemetry struct {
	instruments instruments
	handler     stats.Handler // nil without traces
	source      atomic.Pointer[Source]

	closers []closer
	abandon context.CancelFunc // gives up what is being sent
	once    sync.Once
	result  error
}

var (
	_ service.ContextTap = (*Telemetry)(nil)
	_ service.PolicyTap  = (*Telemetry)(nil)
)

// Source is what is read each time that metrics are sent. A [service.Service] is one.
type Source interface {
	// Guards are the guards of the policies that have one.
	Guards() []service.GuardState
}

// closer is what sends one kind of telemetry.
type closer struct {
	shutdown func(ctx context.Context) error
	lost     func() error // what the collector did not take, last
}

// Start begins to send. It does not wait for the collector, which need not be there yet. ctx is for the start only. What is wrong with
// the configuration is told all at once by errors that match [throttlekit.ErrInvalid].
func Start(ctx context.Context, config Config) (*Telemetry, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	endpoint, err := endpointURL(config.Endpoint)
	wrong := []error{err}
	if !config.Metrics && !config.Traces {
		wrong = append(wrong, &throttlekit.InvalidError{Field: "Metrics", Value: false, Rule: "must be true if Traces is not"})
	}
	if config.Interval < 0 {
		wrong = append(wrong, &throttlekit.InvalidError{Field: "Interval", Value: config.Interval, Rule: "must not be negative"})
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	life, abandon := context.WithCancel(context.WithoutCancel(ctx))
	t := &Telemetry{abandon: abandon}
	if err := t.start(ctx, life, config, endpoint); err != nil {
		abandon()
		for _, c := range t.closers {
			err = errors.Join(err, c.shutdown(ctx))
		}
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return t, nil
}

func (t *Telemetry) start(ctx, life context.Context, config Config, endpoint string) error {
	who, err := identity(ctx, config)
	if err != nil {
		return err
	}
	meter := metric.Meter(metricnoop.Meter{})
	if config.Metrics {
		exporter, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(endpoint))
		if err != nil {
			return err
		}
		watched := &watchedMetrics{Exporter: exporter, watch: watch{what: "metrics", log: config.Logger, life: life}}
		var often []sdkmetric.PeriodicReaderOption
		if config.Interval > 0 {
			often = append(often, sdkmetric.WithInterval(config.Interval))
		}
		provider := sdkmetric.NewMeterProvider(
			sdkmetric.WithResource(who), sdkmetric.WithCardinalityLimit(seriesLimit),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(watched, often...)),
		)
		t.closers = append(t.closers, closer{provider.Shutdown, watched.lost})
		meter = provider.Meter(scope, metric.WithInstrumentationVersion(label(config.Version)))
	}
	if t.instruments, err = newInstruments(meter); err != nil {
		return err
	}
	if err := t.observeGuards(meter); err != nil {
		return err
	}
	if !config.Traces {
		return nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(endpoint))
	if err != nil {
		return err
	}
	watched := &watchedSpans{SpanExporter: exporter, watch: watch{what: "traces", log: config.Logger, life: life}}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(who), sdktrace.WithBatcher(watched))
	t.closers = append(t.closers, closer{provider.Shutdown, watched.lost})
	t.handler = &rpcHandler{otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(provider),
		otelgrpc.WithMeterProvider(metricnoop.NewMeterProvider()), // the metrics are those of the service
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(rpc *stats.RPCTagInfo) bool { return !strings.HasPrefix(rpc.FullMethodName, "/grpc.health.") }),
	)}
	return nil
}

// identity is who sends. What the environment says of it wins.
func identity(ctx context.Context, config Config) (*resource.Resource, error) {
	attributes := []attribute.KeyValue{attribute.String("service.name", "throttlekit")}
	for key, value := range map[attribute.Key]string{"service.version": config.Version, "service.instance.id": config.Node} {
		if value != "" {
			attributes = append(attributes, key.String(label(value)))
		}
	}
	return resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attributes...), resource.WithFromEnv())
}

// endpointURL is an endpoint as a URL with a port.
func endpointURL(endpoint string) (string, error) {
	wrong := &throttlekit.InvalidError{
		Field: "Endpoint", Value: endpoint,
		Rule: "must be host:port, or a URL of scheme http or https with a host and without a path",
	}
	text := endpoint
	if !strings.Contains(text, "://") {
		if _, port, err := net.SplitHostPort(text); err != nil || port == "" {
			return "", wrong
		}
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", wrong
	case u.User != nil:
		wrong.Value = "(not shown)" // there may be a password in it
		return "", wrong
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", strings.Trim(u.Path, "/") != "", u.RawQuery != "", u.Fragment != "":
		return "", wrong
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", wrong
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port), nil
}

// Attach says whose guards are to be observed, from now on and in place of others. Without it there are none.
func (t *Telemetry) Attach(source Source) error {
	if source == nil {
		return &throttlekit.InvalidError{Field: "source", Value: nil, Rule: "must be given"}
	}
	t.source.Store(&source)
	return nil
}

// StatsHandler makes a span of each request of a gRPC server, within the trace of its caller, health checks excepted. It is nil if
// traces are not sent.
func (t *Telemetry) StatsHandler() stats.Handler { return t.handler }

// Shutdown sends what has not been sent and ends. It takes until ctx ends and no longer, or five seconds if it has no deadline; what has
// not arrived by then is lost, and so is what is decided later. The error says what the collector did not take. It may be called
// more than once.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.once.Do(func() { t.result = t.shutdown(ctx) })
	return t.result
}

func (t *Telemetry) shutdown(ctx context.Context) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, flushTimeout)
		defer cancel()
	}
	defer t.abandon() // what is still on its way then ends at once
	ended := make(chan error, len(t.closers))
	for _, c := range t.closers {
		go func() { ended <- errors.Join(c.shutdown(ctx), c.lost()) }()
	}
	var failed error
	for range t.closers {
		select {
		case err := <-ended:
			failed = errors.Join(failed, err)
		case <-ctx.Done():
			return fmt.Errorf("telemetry: not everything was sent: %w", errors.Join(failed, ctx.Err()))
		}
	}
	if failed = errors.Join(failed, ctx.Err()); failed != nil {
		return fmt.Errorf("telemetry: not everything was sent: %w", failed)
	}
	return nil
}

// label is text as OTLP takes it: UTF-8. Anything else would cost all that is sent with it.
func label(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

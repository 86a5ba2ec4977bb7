package telemetry

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/stats"

	"github.com/throttlekit/throttlekit-go/service"
)

// The attributes of spans (core specification §7), and the policy.
const (
	spanPolicy     attribute.Key = "throttlekit.policy"
	spanStrategy   attribute.Key = "throttlekit.strategy"
	spanAllowed    attribute.Key = "throttlekit.allowed"
	spanLimit      attribute.Key = "throttlekit.limit"
	spanRemaining  attribute.Key = "throttlekit.remaining"
	spanRetryAfter attribute.Key = "throttlekit.retry_after_ms"
	spanAxis       attribute.Key = "throttlekit.binding_axis"
)

// The attributes of metrics.
const (
	metricPolicy   attribute.Key = "policy"
	metricStrategy attribute.Key = "strategy"
	metricAllowed  attribute.Key = "allowed"
	metricLane     attribute.Key = "lane"
)

// latencyBounds are the upper bounds of the buckets of throttlekit.store.latency, in milliseconds: from a decision in memory
// to a store that times out.
var latencyBounds = []float64{
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500,
}

// instruments are what decisions are measured by.
type instruments struct {
	checks    metric.Int64Counter
	remaining metric.Int64Histogram
	latency   metric.Float64Histogram
	denies    metric.Int64Counter
}

func newInstruments(meter metric.Meter) (i instruments, err error) {
	var errs [4]error
	i.checks, errs[0] = meter.Int64Counter("throttlekit.checks", metric.WithDescription("Decisions."))
	i.remaining, errs[1] = meter.Int64Histogram("throttlekit.remaining",
		metric.WithDescription("Units that the key had left after a decision."))
	i.latency, errs[2] = meter.Float64Histogram("throttlekit.store.latency",
		metric.WithDescription("Time that a decision took."), metric.WithUnit("ms"), metric.WithExplicitBucketBoundaries(latencyBounds...))
	i.denies, errs[3] = meter.Int64Counter("throttlekit.denies_by_axis", metric.WithDescription("Admissions denied, by what denied them."))
	return i, errors.Join(errs[:]...)
}

// observeGuards has the guards read once each time that metrics are sent.
func (t *Telemetry) observeGuards(meter metric.Meter) error {
	limit, err1 := meter.Int64ObservableGauge("throttlekit.concurrency.limit", metric.WithDescription("Slots that may be held at once."))
	inFlight, err2 := meter.Int64ObservableGauge("throttlekit.concurrency.inflight", metric.WithDescription("Slots that are held."))
	noLoad, err3 := meter.Float64ObservableGauge("throttlekit.concurrency.rtt_noload",
		metric.WithDescription("Latency of the guarded work without load; 0 before it is known."), metric.WithUnit("ms"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		source := t.source.Load()
		if source == nil {
			return nil
		}
		for _, g := range (*source).Guards() {
			of := metric.WithAttributeSet(attribute.NewSet(metricPolicy.String(label(g.Policy))))
			o.ObserveInt64(limit, int64(g.Limit), of)
			o.ObserveInt64(inFlight, int64(g.InFlight), of)
			o.ObserveFloat64(noLoad, float64(g.NoLoad.Nanoseconds())/1e6, of)
		}
		return nil
	}, limit, inFlight, noLoad)
	return err
}

// policyTap tells of one policy. All that can be known before a decision is.
type policyTap struct {
	instruments

	policy, strategy attribute.KeyValue // of spans; no strategy has no key
	allowed, denied  []metric.AddOption
	lanes            map[string][]metric.AddOption
	recorded         []metric.RecordOption
}

var _ service.ContextTap = (*policyTap)(nil)

// ForPolicy implements [service.PolicyTap].
func (t *Telemetry) ForPolicy(info service.Info) service.Tap { return t.forPolicy(info) }

func (t *Telemetry) forPolicy(info service.Info) *policyTap {
	p := &policyTap{instruments: t.instruments, policy: spanPolicy.String(label(info.Name)), lanes: make(map[string][]metric.AddOption)}
	name := metricPolicy.String(label(info.Name))
	of := []attribute.KeyValue{name}
	if info.Strategy != "" {
		p.strategy = spanStrategy.String(label(info.Strategy))
		of = append(of, metricStrategy.String(label(info.Strategy)))
	}
	counted := func(attributes ...attribute.KeyValue) []metric.AddOption {
		return []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attributes...))}
	}
	p.recorded = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(of...))}
	p.allowed = counted(append(slices.Clip(of), metricAllowed.String("true"))...)
	p.denied = counted(append(slices.Clip(of), metricAllowed.String("false"))...)
	for _, lane := range []string{"rate", "concurrency", "cost", "policy"} {
		p.lanes[lane] = counted(name, metricLane.String(lane))
	}
	return p
}

// Decided implements [service.Tap]. A service asks [Telemetry.ForPolicy] once instead, which is cheaper.
func (t *Telemetry) Decided(e service.Event) { t.forPolicy(e.Policy).Decided(e) }

// DecidedIn implements [service.ContextTap].
func (t *Telemetry) DecidedIn(ctx context.Context, e service.Event) {
	t.forPolicy(e.Policy).DecidedIn(ctx, e)
}

// Decided implements [service.Tap].
func (p *policyTap) Decided(e service.Event) { p.DecidedIn(context.Background(), e) }

// DecidedIn implements [service.ContextTap].
func (p *policyTap) DecidedIn(ctx context.Context, e service.Event) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() && firstOf(ctx) {
		p.annotate(span, &e)
	}
	if e.FailMode != "" {
		return
	}
	if e.Decision.Allowed {
		p.checks.Add(ctx, 1, p.allowed...)
	} else {
		p.checks.Add(ctx, 1, p.denied...)
		if e.Admit {
			p.denies.Add(ctx, 1, p.lane(e.Axis)...)
		}
	}
	if !e.Lease {
		p.remaining.Record(ctx, e.Decision.Remaining, p.recorded...)
	}
	if e.Elapsed > 0 {
		p.latency.Record(ctx, float64(e.Elapsed.Nanoseconds())/1e6, p.recorded...)
	}
}

// lane is what an axis is counted as: what is none of the others is the policy's own pricing.
func (p *policyTap) lane(axis string) []metric.AddOption {
	if lane, ok := p.lanes[axis]; ok {
		return lane
	}
	return p.lanes["policy"]
}

// annotate puts a decision on a span.
func (p *policyTap) annotate(span trace.Span, e *service.Event) {
	attributes := make([]attribute.KeyValue, 0, 7)
	attributes = append(attributes,
		p.policy, spanAllowed.Bool(e.Decision.Allowed), spanLimit.Int64(e.Decision.Limit),
		spanRemaining.Int64(e.Decision.Remaining), spanRetryAfter.Int64(e.Decision.RetryAfterMillis))
	if p.strategy.Key != "" && !e.Admit {
		attributes = append(attributes, p.strategy)
	}
	if e.Admit && !e.Decision.Allowed && e.Axis != "" && e.Axis != "policy" {
		attributes = append(attributes, spanAxis.String(e.Axis))
	}
	span.SetAttributes(attributes...)
}

// rpcHandler is one of OpenTelemetry that also marks requests, so that only the first decision of each goes on its span: a span
// takes few attributes fast and ten thousand, of a batch, slowly.
type rpcHandler struct{ stats.Handler }

// request is the mark.
type request struct{ decided atomic.Bool }

type requestKey struct{}

// TagRPC implements [stats.Handler].
func (h *rpcHandler) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	ctx = h.Handler.TagRPC(ctx, info)
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx
	}
	return context.WithValue(ctx, requestKey{}, new(request))
}

// firstOf reports whether no decision of the request was seen before. Outside of the gRPC door each one is a first.
func firstOf(ctx context.Context) bool {
	r, ok := ctx.Value(requestKey{}).(*request)
	return !ok || !r.decided.Swap(true)
}

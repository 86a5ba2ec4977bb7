package telemetry_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector is one that speaks OTLP and keeps what it is sent.
type collector struct {
	coltrace.UnimplementedTraceServiceServer
	colmetrics.UnimplementedMetricsServiceServer

	url string

	mu      sync.Mutex
	mood    func(ctx context.Context) error // what it answers instead; nil takes everything
	spans   []*tracepb.Span
	metrics []*metricspb.Metric // the latest of each name
	who     []*resourcepb.Resource
	scopes  []string
	bytes   []byte // all that came
	asked   int
}

// startCollector serves until stop, or the end of the test.
func startCollector() (c *collector, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	c = &collector{url: "http://" + listener.Addr().String()}
	s := grpc.NewServer()
	coltrace.RegisterTraceServiceServer(s, traceDoor{c})
	colmetrics.RegisterMetricsServiceServer(s, metricDoor{c})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(listener) // ends with Stop
	}()
	return c, func() { s.Stop(); <-served }, nil
}

func newCollector(tb testing.TB) *collector {
	tb.Helper()
	c, stop, err := startCollector()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(stop)
	return c
}

// traceDoor and metricDoor keep the two methods named Export apart.
type (
	traceDoor struct {
		*collector
	}
	metricDoor struct {
		*collector
	}
)

func (c *collector) be(mood func(ctx context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mood = mood
}

// take notes a message, unless the mood is another.
func (c *collector) take(ctx context.Context, m proto.Message, note func()) error {
	c.mu.Lock()
	c.asked++
	mood := c.mood
	c.mu.Unlock()
	if mood != nil {
		if err := mood(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	text, err := proto.Marshal(m)
	c.bytes = append(c.bytes, text...)
	note()
	return err
}

func (d traceDoor) Export(ctx context.Context, r *coltrace.ExportTraceServiceRequest) (*coltrace.ExportTraceServiceResponse, error) {
	return &coltrace.ExportTraceServiceResponse{}, d.take(ctx, r, func() {
		for _, of := range r.GetResourceSpans() {
			d.who = append(d.who, of.GetResource())
			for _, scope := range of.GetScopeSpans() {
				d.spans = append(d.spans, scope.GetSpans()...)
			}
		}
	})
}

func (d metricDoor) Export(
	ctx context.Context, r *colmetrics.ExportMetricsServiceRequest,
) (*colmetrics.ExportMetricsServiceResponse, error) {
	return &colmetrics.ExportMetricsServiceResponse{}, d.take(ctx, r, func() {
		for _, of := range r.GetResourceMetrics() {
			d.who = append(d.who, of.GetResource())
			for _, scope := range of.GetScopeMetrics() {
				d.scopes = append(d.scopes, scope.GetScope().GetName())
				for _, m := range scope.GetMetrics() {
					d.metrics = slices.DeleteFunc(d.metrics, func(old *metricspb.Metric) bool { return old.GetName() == m.GetName() })
					d.metrics = append(d.metrics, m)
				}
			}
		}
	})
}

// refuse, hang and forget are moods.
func refuse(context.Context) error { return status.Error(codes.InvalidArgument, "not like this") }

func hang(ctx context.Context) error {
	<-ctx.Done()
	return errors.New("too late")
}

// attributes are these, as one line, by key.
func attributes(list []*commonpb.KeyValue) string {
	rows := make([]string, 0, len(list))
	for _, kv := range list {
		row := kv.GetKey() + "="
		switch v := kv.GetValue(); v.GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			row += v.GetStringValue()
		default:
			row += strings.Trim(v.String()[strings.IndexByte(v.String(), ':')+1:], " ")
		}
		rows = append(rows, row)
	}
	slices.Sort(rows)
	return strings.Join(rows, " ")
}

// points are the values of a metric, by attributes; of a histogram, how many there are.
func (c *collector) points(name string) map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	values := make(map[string]float64)
	numbers := func(points []*metricspb.NumberDataPoint) {
		for _, p := range points {
			values[attributes(p.GetAttributes())] = p.GetAsDouble() + float64(p.GetAsInt())
		}
	}
	for _, m := range c.metrics {
		if m.GetName() != name {
			continue
		}
		numbers(m.GetSum().GetDataPoints())
		numbers(m.GetGauge().GetDataPoints())
		for _, p := range m.GetHistogram().GetDataPoints() {
			values[attributes(p.GetAttributes())] = float64(p.GetCount())
		}
	}
	return values
}

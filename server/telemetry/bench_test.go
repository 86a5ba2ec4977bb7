package telemetry_test

import (
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/telemetry"
	"github.com/throttlekit/throttlekit-go/service"
)

// BenchmarkDecided is what one decision costs: with metrics, with nothing but a look for a span, and with a span that is recorded.
func BenchmarkDecided(b *testing.B) {
	for _, bench := range []struct {
		name            string
		metrics, traced bool
		elapsed         time.Duration
	}{
		{"metrics", true, false, time.Microsecond},
		{"metrics untimed", true, false, 0},
		{"no span", false, false, time.Microsecond},
		{"metrics and span", true, true, time.Microsecond}, // the span itself included
	} {
		b.Run(bench.name, func(b *testing.B) {
			c := newCollector(b)
			tel := start(b, telemetry.Config{Endpoint: c.url, Metrics: bench.metrics, Traces: true})
			tap, ok := tel.ForPolicy(service.Info{Name: "p", Strategy: "gcra"}).(service.ContextTap)
			if !ok {
				b.Fatal("no tap that takes a context")
			}
			ctx := b.Context()
			e := service.Event{
				Key: "user:12345", Cost: 1, Decision: throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 4}, Elapsed: bench.elapsed,
			}
			tracer := sdktrace.NewTracerProvider().Tracer("bench")
			b.ReportAllocs()
			for b.Loop() {
				if bench.traced { // a span of its own for each
					in, span := tracer.Start(ctx, "span")
					tap.DecidedIn(in, e)
					span.End()
				} else {
					tap.DecidedIn(ctx, e)
				}
			}
		})
	}
}

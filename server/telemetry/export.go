package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// watch knows how one kind of telemetry gets through. OpenTelemetry would hand errors to a handler that the whole process has in
// common, which by default writes each of them to standard error.
type watch struct {
	what string
	log  *slog.Logger
	life context.Context //nolint:containedctx // when it ends, so does all sending

	mu   sync.Mutex
	last error // of the latest attempt
}

// send makes an attempt, which ends with the watch. The log is told of the first one that fails, and of the first one that does
// not after it. One that is given up, because a shutdown makes the last one, says nothing of the collector.
func (w *watch) send(parent context.Context, attempt func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)() //nolint:contextcheck // an attempt ends with either of two contexts
	err := attempt(ctx)
	if err != nil && (w.life.Err() != nil || errors.Is(parent.Err(), context.Canceled)) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err != nil && w.last == nil:
		w.log.LogAttrs(ctx, slog.LevelWarn, "the collector does not take what it is sent",
			slog.String("what", w.what), slog.Any("error", err))
	case err == nil && w.last != nil:
		w.log.LogAttrs(ctx, slog.LevelInfo, "the collector takes again what it is sent", slog.String("what", w.what))
	}
	w.last = err
}

// lost is why the latest attempt failed, if it did.
func (w *watch) lost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// watchedMetrics sends metrics.
type watchedMetrics struct {
	sdkmetric.Exporter
	watch
}

// Export implements [sdkmetric.Exporter].
func (w *watchedMetrics) Export(ctx context.Context, metrics *metricdata.ResourceMetrics) error {
	w.send(ctx, func(ctx context.Context) error { return w.Exporter.Export(ctx, metrics) })
	return nil
}

// watchedSpans sends spans.
type watchedSpans struct {
	sdktrace.SpanExporter
	watch
}

// ExportSpans implements [sdktrace.SpanExporter].
func (w *watchedSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	w.send(ctx, func(ctx context.Context) error { return w.SpanExporter.ExportSpans(ctx, spans) })
	return nil
}

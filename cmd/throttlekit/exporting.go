package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/server/telemetry"
)

// exportVariable is the variable of OpenTelemetry that stands for --otlp-endpoint if that is not given.
const exportVariable = "OTEL_EXPORTER_OTLP_ENDPOINT"

// exporting is what the flags of serve say about OpenTelemetry.
type exporting struct {
	endpoint        string
	metrics, traces bool
}

func (e *exporting) define(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&needed{&e.endpoint, "URL"}, "otlp-endpoint",
		"collector of OpenTelemetry, by OTLP over gRPC: http://host:port, or https:// for TLS; also $"+exportVariable)
	f.BoolVar(&e.metrics, "otlp-metrics", true, "send metrics to --otlp-endpoint")
	f.BoolVar(&e.traces, "otlp-traces", true, "send traces to --otlp-endpoint")
}

// goodbye is how long what was measured last may take to be sent at shutdown.
const goodbye = 2 * time.Second

// open begins to export, if that is wanted: otherwise there is nothing, and no error.
func (e *exporting) open(cmd *cobra.Command, node string, log *slog.Logger) (*telemetry.Telemetry, error) {
	if text := os.Getenv(exportVariable); text != "" && !cmd.Flags().Changed("otlp-endpoint") {
		e.endpoint = text
	}
	if e.endpoint == "" || !e.metrics && !e.traces {
		return nil, nil //nolint:nilnil // nothing is exported, as documented
	}
	t, err := telemetry.Start(cmd.Context(), telemetry.Config{
		Endpoint: e.endpoint, Node: node, Version: Version, Metrics: e.metrics, Traces: e.traces, Logger: log,
	})
	if err != nil {
		return nil, reword(err, map[string]string{"Endpoint": "--otlp-endpoint"})
	}
	return t, nil
}

// end sends what was measured last.
func (e *exporting) end(t *telemetry.Telemetry, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if err := t.Shutdown(ctx); err != nil {
		log.Warn("the last metrics and traces were not sent", "error", err)
	}
}

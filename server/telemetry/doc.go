// Package telemetry tells an OpenTelemetry collector what a service decides, over OTLP/gRPC: metrics of all decisions, and a trace
// of each request of the gRPC door, with its decision on the span.
//
//	t, err := telemetry.Start(ctx, telemetry.Config{Endpoint: "http://127.0.0.1:4317", Metrics: true, Traces: true})
//	...
//	svc, err := service.New(service.Config{Policies: policies, Taps: []service.Tap{t}})
//	...
//	t.Attach(svc)
//	srv, err := server.New(svc, server.Config{GRPCStats: t.StatsHandler()})
//	...
//	err = t.Shutdown(ctx) // after the server has drained
//
// # Names
//
// These are the names of the core specification, §7, each with the policy beside what stands there:
//
//	throttlekit.checks                   counter    policy, strategy, allowed ("true" or "false")
//	throttlekit.remaining                histogram  policy, strategy
//	throttlekit.store.latency            histogram  policy, strategy; milliseconds
//	throttlekit.denies_by_axis           counter    policy, lane (rate, concurrency, cost, policy); of admissions
//	throttlekit.concurrency.limit        gauge      policy
//	throttlekit.concurrency.inflight     gauge      policy
//	throttlekit.concurrency.rtt_noload   gauge      policy; milliseconds
//
// A span gets throttlekit.policy, .strategy (but not for an admission), .allowed, .limit, .remaining, .retry_after_ms, and if an
// axis denied an admission, .binding_axis. The span of a batch has the decision of its first key.
//
// A policy without a strategy leaves that attribute out. What the fail mode decided is on the span, but in no metric: a store that
// fails has measured nothing. What was lent is a check, but says nothing of what remains. Decisions that were not timed, see
// [service.Config.Clock], have no latency.
//
// # What it does not do
//
// Keys and tenants are never sent. A collector that is slow, wrong or gone holds up nothing: spans that find no room in a queue
// of 2,048 are dropped, metrics are sums and lose nothing but detail in time, and the log says so when it begins and when it ends.
// Requests over HTTP have no spans. OpenTelemetry's global state is neither read nor changed.
//
// The environment variables of the OpenTelemetry specification hold for what [Config] does not say, such as
// OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_TRACES_SAMPLER and OTEL_RESOURCE_ATTRIBUTES. By default every
// request is traced, unless its caller decided not to.
package telemetry

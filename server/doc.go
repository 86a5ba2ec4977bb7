// Package server puts doors on a service: gRPC, HTTP/JSON and health.
//
// A [Server] speaks package throttlekit.v1 of the module's api folder on two listeners: gRPC, with
// grpc.health.v1.Health beside it, and HTTP with JSON or binary bodies, as in
//
//	curl -H 'Content-Type: application/json' -d '{"policy":"default","key":"me"}' \
//	    http://127.0.0.1:8080/throttlekit.v1.RateLimiter/Check
//
// A door translates and maps errors, and does nothing else: what is decided is decided by the [Service] behind it, and
// both doors share one translation and one table of errors.
//
// # Requests
//
// A cost of 0 means 1, and so does a debit of 0 tokens. Keys are bytes, up to 64 KiB of them, although the contract calls
// them text: binary protobuf with a key that is not UTF-8 is understood, on both doors. JSON can only carry text. A message
// is at most 4 MiB, or the answer is RESOURCE_EXHAUSTED.
//
// # Fleet
//
// A service with federated policies has a second door beside RateLimiter, Fleet.Reserve, which lends parts of their
// budgets. With a [Config.FleetSecret] every caller presents it, in x-fleet-secret or as a bearer token in authorization;
// without one, callers on loopback are served. How long a lease lasts is told by the clock of the store.
//
// # Monitor
//
// With a [Config.Monitor] there is a third door, Monitor, which shows what the service decides: GetSnapshot, and Watch, a stream
// of denials, which is a sample and never holds a decision up. Over HTTP it is a Connect stream. Who may ask is ruled as for Fleet,
// by [Config.MonitorSecret] in x-monitor-secret. Streams end when the server drains. The HTTP door has metrics for
// Prometheus at /metrics, whether the process lives at /healthz, and whether it should get requests at /readyz, which knows the
// store and the fail mode.
//
// # Errors
//
// A denial is an answer. Errors of the service carry one of these codes, and a google.rpc.ErrorInfo of the domain
// "throttlekit.v1" whose reason says which error it was.
//
//	INVALID_ARGUMENT   INVALID             a value out of range, or a request that cannot be decoded
//	NOT_FOUND          POLICY_NOT_FOUND    no policy has this name
//	UNIMPLEMENTED      UNSUPPORTED         the policy, or this server, cannot do that
//	UNAVAILABLE        STORE_UNAVAILABLE   the store failed, and no fail mode answers this method: Peek and Forecast
//	UNAVAILABLE        CLOSED              the service is closed
//	UNAUTHENTICATED    –                   Fleet, Monitor: no secret or a wrong one, or a caller who is not on loopback
//	RESOURCE_EXHAUSTED –                   Monitor only: 1,024 readers watch already
//	DEADLINE_EXCEEDED  –                   the caller's time ran out
//	CANCELLED          –                   the caller went away
//	INTERNAL           –                   anything else; the log says more
//
// # Safety
//
// Without TLS a server binds loopback addresses only, unless [Config] allows more in so many words. A handler that
// panics answers INTERNAL and leaves the process alive.
package server

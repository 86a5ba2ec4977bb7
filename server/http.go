package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
)

// newHTTP assembles the HTTP door. Its listener adds TLS.
func newHTTP(limiter *rateLimiter, fleet *fleet, health *health, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           newHTTPHandler(limiter, fleet, health, log),
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 5 * time.Second,
		// Every method is unary and small, so a whole exchange fits.
		ReadTimeout:  30 * time.Second,
		WriteTimeout: 30 * time.Second,
		IdleTimeout:  2 * time.Minute,
	}
}

func newHTTPHandler(limiter *rateLimiter, fleet *fleet, health *health, log *slog.Logger) http.Handler {
	server := connect.NewServer(guardConnect(fleet, log))
	throttlekitv1connect.RegisterRateLimiterHandler(server, limiter)
	if fleet != nil {
		throttlekitv1connect.RegisterFleetHandler(server, fleet)
	}

	jsonCodec := connectproto.NewJSONCodec()
	// protojson leaves fields with a zero value out, and then a denial shows no "allowed" and an empty limit no
	// "remaining", which is what a reader looks for.
	jsonCodec.MarshalOptions.EmitDefaultValues = true

	mux := http.NewServeMux()
	connecthttp.Mount(procedures{mux}, server,
		connecthttp.WithCodecs(connectCodec{connectproto.NewBinaryCodec()}, jsonCodec),
		connecthttp.WithReadMaxBytes(maxMessage),
		connecthttp.WithCompressMinBytes(1024), // below it, compressing costs more than it saves
	)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		body := "ok"
		if health.isDraining() {
			w.WriteHeader(http.StatusServiceUnavailable)
			body = "draining"
		}
		_, _ = w.Write([]byte(body)) // a caller that went away needs no answer
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, connect.CodeUnimplemented, "there is no "+readable(r.URL.Path)+
			" here: a method is called by POST to /<package>.<service>/<method>, as in "+throttlekitv1connect.RateLimiterCheckProcedure)
	})
	return mux
}

// procedures hands Connect's handlers to a mux, but not its catch-all for unknown methods, which answers in plain text.
type procedures struct{ mux *http.ServeMux }

// Handle implements [connecthttp.ServeMux].
func (p procedures) Handle(pattern string, handler http.Handler) {
	if strings.HasSuffix(pattern, "/") {
		return
	}
	p.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // a decision is stale at once, and Peek may come as a GET
		if kind := r.Header.Get("Content-Type"); r.Method == http.MethodPost &&
			(kind == "" || strings.HasPrefix(kind, "application/x-www-form-urlencoded")) {
			// What curl -d sends unless told otherwise. Connect's own answer has no body.
			writeError(w, http.StatusUnsupportedMediaType, connect.CodeInvalidArgument,
				"the Content-Type must be application/json or application/proto")
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// writeError answers in the form of Connect's errors.
func writeError(w http.ResponseWriter, httpStatus int, code connect.Code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	body, err := json.Marshal(map[string]string{"code": code.String(), "message": message})
	if err == nil {
		_, _ = w.Write(body) // a caller that went away needs no answer
	}
}

// guardConnect maps the errors of every method, keeps strangers from Fleet, and turns panics into INTERNAL, where net/http would hang up.
func guardConnect(fleet *fleet, log *slog.Logger) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
			defer func() {
				if v := recover(); v != nil {
					log.ErrorContext(ctx, "panic in a handler", "method", spec.Procedure, "panic", v, "stack", string(debug.Stack()))
					err = panicked.connect()
				}
			}()
			if err = fleet.admitConnect(ctx, spec); err == nil {
				err = next(ctx, spec, stream)
			}
			if err == nil {
				return nil
			}
			//nolint:errorlint // bare, it is Connect's, about a request that it could not read; inside another it is the service's
			if _, told := err.(*connect.Error); told {
				return err
			}
			return explainAndLog(ctx, log, spec.Procedure, err).connect()
		}
	}
}

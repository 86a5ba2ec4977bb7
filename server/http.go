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
	"github.com/throttlekit/throttlekit-go/server/internal/lasting"
)

// newHTTP is a server that speaks HTTP. Its door adds TLS.
func newHTTP(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 5 * time.Second,
		// Every method but those that watch is unary and small, so a whole exchange fits.
		ReadTimeout:  30 * time.Second,
		WriteTimeout: 30 * time.Second,
		IdleTimeout:  2 * time.Minute,
		// The deadlines of an answer do not reach a connection whose reader has stopped, as all answers on it wait for one another.
		HTTP2: &http.HTTP2Config{WriteByteTimeout: 5 * time.Second},
	}
}

func newHTTPHandler(d *doors) (http.Handler, error) {
	server := connect.NewServer(guardConnect(d))
	throttlekitv1connect.RegisterRateLimiterHandler(server, d.limiter)
	if d.fleet != nil {
		throttlekitv1connect.RegisterFleetHandler(server, d.fleet)
	}
	if d.monitor != nil {
		throttlekitv1connect.RegisterMonitorHandler(server, monitorConnect{d.monitor})
	}

	jsonCodec := connectproto.NewJSONCodec()
	// protojson leaves fields with a zero value out, and then a denial shows no "allowed" and an empty limit no
	// "remaining", which is what a reader looks for.
	jsonCodec.MarshalOptions.EmitDefaultValues = true

	mux := http.NewServeMux()
	connecthttp.Mount(procedures{mux, d}, server,
		connecthttp.WithCodecs(connectCodec{connectproto.NewBinaryCodec()}, jsonCodec),
		connecthttp.WithReadMaxBytes(maxMessage),
		connecthttp.WithCompressMinBytes(1024), // below it, compressing costs more than it saves
	)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		body := "ok"
		if d.health.isDraining() {
			w.WriteHeader(http.StatusServiceUnavailable)
			body = "draining"
		}
		_, _ = w.Write([]byte(body)) // a caller that went away needs no answer
	})
	mux.HandleFunc("GET /readyz", d.serveReadiness)
	if d.metrics != nil {
		metrics, err := d.metricsHandler()
		if err != nil {
			return nil, err
		}
		mux.Handle("/metrics", metrics)
	}
	if d.dashboard != nil {
		mux.Handle("/{$}", d.dashboard)
		mux.Handle("/dashboard/", d.dashboard)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, connect.CodeUnimplemented, "there is no "+readable(r.URL.Path)+
			" here: a method is called by POST to /<package>.<service>/<method>, as in "+throttlekitv1connect.RateLimiterCheckProcedure)
	})
	return mux, nil
}

// procedures hands Connect's handlers to a mux, but not its catch-all for unknown methods, which answers in plain text.
type procedures struct {
	mux   *http.ServeMux
	doors *doors
}

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
		if err := p.doors.meant(pattern, r); err != nil {
			writeError(w, http.StatusUnauthorized, connect.CodeUnauthenticated, readable(err.Error()))
			return
		}
		if pattern == throttlekitv1connect.MonitorWatchProcedure {
			l := lasting.New(w, pieceTimeout, p.doors.health.draining)
			defer l.Close()
			w, r = l, r.WithContext(context.WithValue(r.Context(), answering{}, l))
		}
		handler.ServeHTTP(w, r)
	})
}

// answering is the key of what answers a request, in its context, if the answer may last.
type answering struct{}

// pieceTimeout is how long a reader may keep a piece of a lasting answer waiting.
const pieceTimeout = 30 * time.Second

// last makes the answer in ctx last. Its caller was let in, and its request was read.
func last(ctx context.Context) {
	if w, ok := ctx.Value(answering{}).(*lasting.Writer); ok {
		w.Last()
	}
}

// writeError answers in the form of Connect's errors.
func writeError(w http.ResponseWriter, httpStatus int, code connect.Code, message string) {
	writeJSON(w, httpStatus, map[string]string{"code": code.String(), "message": message})
}

func writeJSON(w http.ResponseWriter, httpStatus int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	if body, err := json.Marshal(answer); err == nil {
		_, _ = w.Write(body) // a caller that went away needs no answer
	}
}

// guardConnect maps the errors of every method, keeps strangers from Fleet and Monitor, and turns panics into INTERNAL, where
// net/http would hang up.
func guardConnect(d *doors) connect.ServerInterceptor {
	log := d.log
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
			defer func() {
				if v := recover(); v != nil {
					log.ErrorContext(ctx, "panic in a handler", "method", spec.Procedure, "panic", v, "stack", string(debug.Stack()))
					err = panicked.connect()
				}
			}()
			if err = d.admitConnect(ctx, spec); err == nil {
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

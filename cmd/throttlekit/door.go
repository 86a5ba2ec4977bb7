package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// The doors that a replay can go through.
const (
	memoryDoor = "memory"
	grpcDoor   = "grpc"
	httpDoor   = "http"
)

var targets = map[string]vectors.Target{
	memoryDoor: vectors.Memory(),
	grpcDoor:   door{config: server.Config{GRPCAddr: anyPort, HTTPAddr: server.Off}, enter: enterGRPC},
	httpDoor:   door{config: server.Config{GRPCAddr: anyPort, HTTPAddr: anyPort}, enter: enterHTTP},
}

const (
	anyPort = "127.0.0.1:0"
	// onlyPolicy is the name of a suite's policy.
	onlyPolicy = "suite"
	// patience is ample for one answer from this machine.
	patience = 30 * time.Second
)

// door is the target that asks a real server, a new one for each suite, with the suite's strategy in a policy file.
type door struct {
	config server.Config
	enter  func(*server.Server) (asker, error)
	state  *stateful // nil for memory
}

// asker asks a server for decisions of onlyPolicy.
type asker interface {
	ask(ctx context.Context, key string, cost int64) (throttlekit.Decision, error)
	io.Closer
}

// Open implements [vectors.Target].
func (d door) Open(suite vectors.Suite) (vectors.Session, error) {
	clock := throttlekit.NewManualClock(0)
	if d.state != nil {
		clock = d.state.clock
	}
	svc, err := suiteService(suite, clock, d.state)
	if err != nil {
		return nil, err
	}
	srv, err := server.New(svc, d.config)
	if err != nil {
		return nil, errors.Join(err, svc.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ctx) // it ends when every check has been answered, so how it does says nothing about them
	}()
	s := &session{clock: clock, close: func() error {
		stop()
		<-served
		return svc.Close()
	}}
	if s.asker, err = d.enter(srv); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// suiteService serves one strategy, by way of a policy file: the options of a suite are the fields of a policy.
func suiteService(suite vectors.Suite, clock throttlekit.Clock, state *stateful) (*service.Service, error) {
	limiter := map[string]any{"strategy": suite.Strategy.Kind}
	maps.Copy(limiter, suite.Strategy.Options)
	env := policy.Env{Clock: clock}
	if state != nil {
		env.Store, limiter["prefix"] = state, state.within(suite.Name)
	}
	text, err := json.Marshal(map[string]any{"limiters": map[string]any{onlyPolicy: limiter}})
	if err != nil {
		return nil, err
	}
	file, err := policy.Parse("suite.json", text)
	if err != nil {
		return nil, err
	}
	return newService(file, env, service.Config{FailMode: service.FailClosed})
}

// session is a suite under way.
type session struct {
	asker

	clock *throttlekit.ManualClock
	close func() error
}

// Check implements [vectors.Session].
func (s *session) Check(ctx context.Context, nowMillis int64, key string, cost float64) (throttlekit.Decision, error) {
	cannot := func(format string, args ...any) (throttlekit.Decision, error) {
		return throttlekit.Decision{}, fmt.Errorf("%w: "+format, append([]any{throttlekit.ErrUnsupported}, args...)...)
	}
	switch {
	case cost != math.Trunc(cost):
		return cannot("the wire carries whole costs only, got %v", cost)
	case len(key) > service.MaxKeyBytes:
		return cannot("a server takes keys of at most %d bytes", service.MaxKeyBytes)
	}
	s.clock.Set(nowMillis)
	return s.ask(ctx, key, int64(cost))
}

// Close implements [vectors.Session].
func (s *session) Close() error { return errors.Join(s.asker.Close(), s.close()) }

// grpcAsker asks as a program with the Go client does.
type grpcAsker struct{ *client.Client }

func enterGRPC(srv *server.Server) (asker, error) {
	c, err := client.Dial(srv.GRPCAddr().String(), client.WithTimeout(patience))
	return grpcAsker{c}, err
}

func (a grpcAsker) ask(ctx context.Context, key string, cost int64) (throttlekit.Decision, error) {
	return a.CheckN(ctx, onlyPolicy, key, cost)
}

// httpAsker asks as curl does: it posts JSON and reads JSON.
type httpAsker struct {
	http *http.Client
	url  string
}

func enterHTTP(srv *server.Server) (asker, error) {
	return newHTTPAsker("http://" + srv.HTTPAddr().String()), nil
}

func newHTTPAsker(server string) httpAsker {
	return httpAsker{
		http: &http.Client{Transport: &http.Transport{}, Timeout: patience},
		url:  server + throttlekitv1connect.RateLimiterCheckProcedure,
	}
}

func (a httpAsker) ask(ctx context.Context, key string, cost int64) (throttlekit.Decision, error) {
	body, err := json.Marshal(map[string]any{"policy": onlyPolicy, "key": key, "cost": cost})
	if err != nil {
		return throttlekit.Decision{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return throttlekit.Decision{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.http.Do(req)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	defer func() { _ = res.Body.Close() }() // it has been read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	if res.StatusCode != http.StatusOK {
		return throttlekit.Decision{}, fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(text))
	}
	return readDecision(text)
}

// Close ends the connections.
func (a httpAsker) Close() error {
	a.http.CloseIdleConnections()
	return nil
}

// readDecision reads the answer of the HTTP door, where 64-bit integers are texts, as protobuf wants it in JSON. A field
// that is missing is an error: read as zero it could agree by accident.
func readDecision(text []byte) (throttlekit.Decision, error) {
	var answer struct {
		Decision struct {
			Allowed      *bool  `json:"allowed"`
			Limit        *int64 `json:"limit,string"`
			Remaining    *int64 `json:"remaining,string"`
			ResetAt      *int64 `json:"resetAt,string"`
			RetryAfterMS *int64 `json:"retryAfterMs,string"`
		} `json:"decision"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return throttlekit.Decision{}, err
	}
	d := answer.Decision
	if d.Allowed == nil || d.Limit == nil || d.Remaining == nil || d.ResetAt == nil || d.RetryAfterMS == nil {
		return throttlekit.Decision{}, fmt.Errorf("the answer lacks a field of a decision: %s", text)
	}
	return throttlekit.Decision{
		Allowed: *d.Allowed, Limit: *d.Limit, Remaining: *d.Remaining, ResetAtMillis: *d.ResetAt, RetryAfterMillis: *d.RetryAfterMS,
	}, nil
}

package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// fakeMonitor is a service that shows what it is told to.
type fakeMonitor struct {
	throttlekitv1.UnimplementedMonitorServer

	snapshot func(ctx context.Context) (*throttlekitv1.GetSnapshotResponse, error)
	watch    func(req *throttlekitv1.WatchRequest, stream grpc.ServerStreamingServer[throttlekitv1.WatchResponse]) error
}

func (f *fakeMonitor) GetSnapshot(ctx context.Context, _ *throttlekitv1.GetSnapshotRequest) (*throttlekitv1.GetSnapshotResponse, error) {
	return f.snapshot(ctx)
}

func (f *fakeMonitor) Watch(req *throttlekitv1.WatchRequest, stream grpc.ServerStreamingServer[throttlekitv1.WatchResponse]) error {
	return f.watch(req, stream)
}

func serveMonitor(tb testing.TB, f *fakeMonitor) string {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := grpc.NewServer()
	throttlekitv1.RegisterMonitorServer(s, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	tb.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

func monitorAt(tb testing.TB, addr, secret string) *Monitor {
	tb.Helper()
	m, err := dial(tb, addr).Monitor(secret)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// presented is the secret that came with a call.
func presented(ctx context.Context) string {
	headers, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(headers.Get("x-monitor-secret"), ",")
}

func TestMonitorSnapshot(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 8<<20) // more than grpc-go takes by itself
	f := &fakeMonitor{snapshot: func(ctx context.Context) (*throttlekitv1.GetSnapshotResponse, error) {
		switch presented(ctx) {
		case "right":
			return &throttlekitv1.GetSnapshotResponse{Snapshot: &throttlekitv1.Snapshot{RawJson: large}}, nil
		case "empty":
			return &throttlekitv1.GetSnapshotResponse{}, nil
		case "hang":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, status.Error(codes.Unauthenticated, "no")
	}}
	addr := serveMonitor(t, f)
	if got, err := monitorAt(t, addr, "right").Snapshot(t.Context()); err != nil || got.GetRawJson() != large {
		t.Errorf("got %d bytes, %v", len(got.GetRawJson()), err)
	}
	for _, secret := range []string{"", "wrong"} {
		if got, err := monitorAt(t, addr, secret).Snapshot(t.Context()); !errors.Is(err, ErrUnauthenticated) || got != nil {
			t.Errorf("%q: got %v, %v", secret, got, err)
		}
	}
	if _, err := monitorAt(t, addr, "empty").Snapshot(t.Context()); !errors.Is(err, errNoSnapshot) {
		t.Errorf("got %v", err)
	}
	slow, err := Dial(addr, WithTimeout(1))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	m, err := slow.Monitor("hang")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Snapshot(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := monitorAt(t, serveFleet(t, nil), "").Snapshot(t.Context()); !errors.Is(err, throttlekit.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if err := m.client.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.Snapshot(t.Context()); !errors.Is(err, throttlekit.ErrClosed) {
		t.Errorf("got %v", err)
	}
	for _, err := range m.Watch(t.Context(), "") {
		if !errors.Is(err, throttlekit.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	for _, secret := range []string{" x", "a\nb", "ä"} {
		if _, err := slow.Monitor(secret); !errors.Is(err, throttlekit.ErrInvalid) || strings.Contains(err.Error(), secret+`"`) {
			t.Errorf("%q: got %v", secret, err)
		}
	}
}

func TestMonitorWatch(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 1)
	f := &fakeMonitor{watch: func(req *throttlekitv1.WatchRequest, stream grpc.ServerStreamingServer[throttlekitv1.WatchResponse]) error {
		if presented(stream.Context()) != "right" {
			return status.Error(codes.Unauthenticated, "no")
		}
		if req.GetPolicy() == "none" {
			<-stream.Context().Done()
			ended <- struct{}{}
			return nil
		}
		for _, key := range []string{"a", "b"} {
			if err := stream.Send(&throttlekitv1.WatchResponse{Denial: &throttlekitv1.DenialEvent{Policy: req.GetPolicy(), Key: key}}); err != nil {
				return err
			}
		}
		if req.GetPolicy() == "quiet" {
			return nil
		}
		return status.Error(codes.Unavailable, "the server is shutting down")
	}}
	m := monitorAt(t, serveMonitor(t, f), "right")
	for _, policy := range []string{"p", "quiet"} {
		var got []string
		var last error
		for d, err := range m.Watch(t.Context(), policy) {
			if last = err; err == nil {
				got = append(got, d.GetPolicy()+d.GetKey())
			}
		}
		if strings.Join(got, ",") != policy+"a,"+policy+"b" || !errors.Is(last, ErrUnavailable) {
			t.Errorf("%s: got %v, %v", policy, got, last)
		}
	}
	for d, err := range m.Watch(t.Context(), "p") { // a loop that ends early ends the stream
		if err != nil || d.GetKey() != "a" {
			t.Errorf("got %v, %v", d, err)
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for d, err := range m.Watch(ctx, "none") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", d, err)
		}
	}
	stranger, err := m.client.Monitor("wrong")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for d, err := range stranger.Watch(t.Context(), "") {
		if n++; !errors.Is(err, ErrUnauthenticated) || n > 1 {
			t.Errorf("got %v, %v", d, err)
		}
	}
}

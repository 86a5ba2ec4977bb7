package server

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/api/throttlekit/v1/throttlekitv1connect"
	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// monitorDoor translates between the wire and a hub, for both doors, and knows who may ask.
type monitorDoor struct {
	keeper

	hub      *monitor.Hub
	draining <-chan struct{} // closed when streams have to end
}

// newMonitorDoor is nil without a hub.
func newMonitorDoor(hub *monitor.Hub, secret *string, draining <-chan struct{}) *monitorDoor {
	if hub == nil {
		return nil
	}
	return &monitorDoor{keeper: newKeeper("monitor", secret), hub: hub, draining: draining}
}

// GetSnapshot implements throttlekit.v1.Monitor.
func (m *monitorDoor) GetSnapshot(ctx context.Context, _ *throttlekitv1.GetSnapshotRequest) (*throttlekitv1.GetSnapshotResponse, error) {
	s := m.hub.Snapshot(ctx)
	document, err := s.JSON()
	if err != nil {
		return nil, fmt.Errorf("server: the snapshot is no JSON: %w", err)
	}
	return &throttlekitv1.GetSnapshotResponse{Snapshot: snapshotOf(s, document)}, nil
}

// watch sends denials until the caller leaves or the server drains. open says that they come from now on.
func (m *monitorDoor) watch(ctx context.Context, policy string, open func() error, send func(*throttlekitv1.WatchResponse) error) error {
	subscription, err := m.hub.Watch(policy)
	if err != nil {
		return err
	}
	defer subscription.Close()
	if err := open(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.draining:
			return fmt.Errorf("%w: the server is shutting down", throttlekit.ErrClosed)
		case d := <-subscription.Events():
			if err := send(&throttlekitv1.WatchResponse{Denial: denialOf(d)}); err != nil {
				return err
			}
		}
	}
}

// monitorGRPC is the door as grpc-go wants it.
type monitorGRPC struct {
	throttlekitv1.UnimplementedMonitorServer // answers methods that the contract may gain

	*monitorDoor
}

// GetSnapshot implements [throttlekitv1.MonitorServer].
func (m monitorGRPC) GetSnapshot(ctx context.Context, req *throttlekitv1.GetSnapshotRequest) (*throttlekitv1.GetSnapshotResponse, error) {
	return m.monitorDoor.GetSnapshot(ctx, req)
}

// Watch implements [throttlekitv1.MonitorServer].
func (m monitorGRPC) Watch(req *throttlekitv1.WatchRequest, stream grpc.ServerStreamingServer[throttlekitv1.WatchResponse]) error {
	return m.watch(stream.Context(), req.GetPolicy(), func() error { return stream.SendHeader(metadata.MD{}) }, stream.Send)
}

// monitorConnect is the door as Connect wants it.
type monitorConnect struct{ *monitorDoor }

// Watch implements [throttlekitv1connect.MonitorHandler].
func (m monitorConnect) Watch(
	ctx context.Context, req *throttlekitv1.WatchRequest, stream throttlekitv1connect.MonitorWatchServerStream,
) error {
	return m.watch(ctx, req.GetPolicy(), func() error {
		last(ctx)
		return stream.SendHeaders()
	}, stream.Send)
}

// snapshotOf is a snapshot on the wire.
func snapshotOf(s monitor.Snapshot, document json.RawMessage) *throttlekitv1.Snapshot {
	wire := &throttlekitv1.Snapshot{
		Meta: &throttlekitv1.MonitorMeta{
			GeneratedAt: s.Meta.GeneratedAt, WindowMs: s.Meta.WindowMs, Mode: s.Meta.Mode, LensVersion: s.Meta.LensVersion,
			NodeId: utf8Text(s.Meta.NodeID),
		},
		RawJson: string(document),
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		row := &throttlekitv1.PolicySummary{
			Name: utf8Text(p.Name), Kind: p.Kind, Strategy: p.Strategy, Limit: p.Limit, Latency: &throttlekitv1.LatencySummary{},
			Allowed: p.Analytics.Allowed, Denied: p.Analytics.Denied,
			TopDenied: rankingOf(p.Analytics.TopDenied), TopRequested: rankingOf(p.Analytics.TopRequested),
		}
		if l := p.Latency; l != nil {
			row.Latency = &throttlekitv1.LatencySummary{AvgMs: l.AvgMs, P50Ms: l.P50Ms, P99Ms: l.P99Ms, MaxMs: l.MaxMs, N: l.N}
		}
		wire.Policies = append(wire.Policies, row)
	}
	for _, g := range s.Guards {
		row := &throttlekitv1.GuardSummary{Name: utf8Text(g.Name), Limit: int64(g.Limit), Inflight: int64(g.InFlight)}
		if g.Share != nil {
			row.Share, row.LGlobal, row.Nodes, row.Fenced = float64(*g.Share), int64(*g.LGlobal), int64(*g.Nodes), *g.Fenced
		}
		wire.Guards = append(wire.Guards, row)
	}
	for _, d := range s.RecentDenials {
		wire.RecentDenials = append(wire.RecentDenials, denialOf(d))
	}
	return wire
}

func rankingOf(rows []monitor.KeyCount) []*throttlekitv1.KeyCount {
	wire := make([]*throttlekitv1.KeyCount, len(rows))
	for i, row := range rows {
		wire[i] = &throttlekitv1.KeyCount{Key: row.Key, Count: row.Count}
	}
	return wire
}

func denialOf(d monitor.Denial) *throttlekitv1.DenialEvent {
	return &throttlekitv1.DenialEvent{
		At: d.At, Policy: utf8Text(d.Policy), Key: d.Key, Axis: d.Lane,
		Limit: d.Decision.Limit, Remaining: d.Decision.Remaining, RetryAfterMs: d.Decision.RetryAfterMs,
	}
}

// utf8Text is a name as protobuf takes it. Names come from configurations, which need not be text.
func utf8Text(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

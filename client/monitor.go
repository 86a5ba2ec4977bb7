package client

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// maxSnapshot bounds a snapshot, in bytes: its document alone has some 5 KB for each policy.
const maxSnapshot = 64 << 20

// Monitor shows what a service has decided of late. It only watches. It is safe for concurrent use.
type Monitor struct {
	client *Client
	secret string
}

// Monitor is the part of the service that shows what it decides, over the same connection. The secret is the service's
// monitor secret; it travels with calls of Monitor only, and is empty for services that show it to callers on their machine. The
// error matches [throttlekit.ErrInvalid].
func (c *Client) Monitor(secret string) (*Monitor, error) {
	if secret != "" && !validSecret(secret) {
		return nil, &throttlekit.InvalidError{
			Field: "monitorSecret", Value: "(not shown)", Rule: "must be printable ASCII text without spaces around it",
		}
	}
	return &Monitor{client: c, secret: secret}, nil
}

// errNoSnapshot is a breach of the contract.
var errNoSnapshot = errors.New("client: the service answered without a snapshot")

// Snapshot is what the service saw in the current window. Its RawJson is a JSON document with everything in it, for those who
// need more than the fields. The error matches [ErrUnauthenticated] if the secret is missing or wrong, and
// [throttlekit.ErrUnsupported] if the service does not offer this.
func (m *Monitor) Snapshot(ctx context.Context) (*throttlekitv1.Snapshot, error) {
	c, bounded := m.client, m.present(ctx)
	if _, has := ctx.Deadline(); !has && c.timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(bounded, c.timeout)
		defer cancel()
	}
	if c.closed.Load() {
		return nil, throttlekit.ErrClosed
	}
	var res throttlekitv1.GetSnapshotResponse
	options := append([]grpc.CallOption{grpc.MaxCallRecvMsgSize(maxSnapshot)}, c.options...)
	req := &throttlekitv1.GetSnapshotRequest{}
	err := c.conn.Invoke(bounded, throttlekitv1.Monitor_GetSnapshot_FullMethodName, req, &res, options...)
	switch {
	case err != nil:
		return nil, c.explain(ctx, err)
	case res.GetSnapshot() == nil:
		return nil, errNoSnapshot
	}
	return res.GetSnapshot(), nil
}

// Watch are denials as they happen, those of the policy of this name, or of all if it is empty. They come from now on until the
// loop or ctx ends, or the service does, whose error comes last then. It is a sample: the service passes on at most 500 a
// second, and fewer to a reader that is slow. Errors are those of [Monitor.Snapshot]; the client's timeout does not apply.
func (m *Monitor) Watch(ctx context.Context, policy string) iter.Seq2[*throttlekitv1.DenialEvent, error] {
	return func(yield func(*throttlekitv1.DenialEvent, error) bool) {
		c := m.client
		stream, stop, err := m.open(ctx, policy)
		defer stop()
		for err == nil {
			var res throttlekitv1.WatchResponse
			if err = stream.RecvMsg(&res); err == nil && !yield(res.GetDenial(), nil) {
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			err = ErrUnavailable // a service ends a stream with a reason, but something on the way may not
		case !errors.Is(err, throttlekit.ErrClosed):
			err = c.explain(ctx, err)
		}
		yield(nil, err)
	}
}

// open begins a stream, which stop ends.
func (m *Monitor) open(ctx context.Context, policy string) (stream grpc.ClientStream, stop context.CancelFunc, err error) {
	ctx, stop = context.WithCancel(m.present(ctx))
	c := m.client
	if c.closed.Load() {
		return nil, stop, throttlekit.ErrClosed
	}
	watch := &throttlekitv1.Monitor_ServiceDesc.Streams[0]
	stream, err = c.conn.NewStream(ctx, watch, throttlekitv1.Monitor_Watch_FullMethodName, c.options...)
	if err == nil {
		err = stream.SendMsg(&throttlekitv1.WatchRequest{Policy: policy})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if errors.Is(err, io.EOF) {
		err = stream.RecvMsg(new(throttlekitv1.WatchResponse)) // the service has ended it, and this says why
	}
	return stream, stop, err
}

// present adds the secret to a call.
func (m *Monitor) present(ctx context.Context) context.Context {
	if m.secret == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "x-monitor-secret", m.secret)
}

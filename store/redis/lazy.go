package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go/store/redis/internal/engine"
)

// lazy is a client of the store's own, which connects when it is first used and tries again
// with each use until it has. From then on rueidis renews its connections itself.
type lazy struct {
	option rueidis.ClientOption
	ctx    context.Context //nolint:containedctx // ends with the store, not with a call
	stop   context.CancelFunc
	ready  atomic.Pointer[client]

	mu      sync.Mutex
	attempt *attempt // under way
	closed  bool
}

// attempt is one attempt to connect, which any number of callers wait for.
type attempt struct {
	done   chan struct{} // closed at the end
	client *client
	err    error
}

func newLazy(option rueidis.ClientOption, timeout time.Duration) *lazy {
	// Scripts are all that is sent: nothing is cached here, and nothing may be sent twice.
	option.DisableCache, option.DisableRetry = true, true
	// One connection batches best, and a server runs one script at a time whatever there are of them.
	if option.PipelineMultiplex == 0 {
		option.PipelineMultiplex = -1
	}
	// A connection that stays silent is given up early enough for callers to have a new one soon.
	if option.Dialer.Timeout == 0 {
		option.Dialer.Timeout = max(time.Second, 4*timeout)
	}
	if option.ConnWriteTimeout == 0 {
		option.ConnWriteTimeout = max(2*time.Second, 10*timeout)
	}
	// A change of primary that Sentinel's message did not tell is noticed all the same.
	if option.Sentinel.MasterSet != "" && option.Sentinel.TopologyRefreshInterval == 0 {
		option.Sentinel.TopologyRefreshInterval = 5 * time.Second
	}
	l := &lazy{}
	l.ctx, l.stop = context.WithCancel(context.Background())
	if option.DialFn == nil {
		option.DialCtxFn = l.dialer(option.DialCtxFn)
	}
	l.option = option
	return l
}

type dialFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dialer makes connections end with the store, whether they are being made, wait for a silent
// server or have calls under way.
func (l *lazy) dialer(dial dialFunc) dialFunc {
	if dial == nil {
		dial = func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			if config != nil {
				return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", address)
			}
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	return func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(l.ctx, cancel)() //nolint:contextcheck // the store's end, beside the caller's
		conn, err := dial(ctx, address, dialer, config)
		if err != nil {
			return nil, err
		}
		forget := context.AfterFunc(l.ctx, func() { _ = conn.Close() }) //nolint:contextcheck // it outlives the call
		return &mortal{Conn: conn, forget: forget, crowded: l.crowded}, nil
	}
}

// crowd is from how many calls under way on a connection waits for company before it writes.
const crowd = 16

func (l *lazy) crowded() bool {
	c := l.ready.Load()
	return c != nil && c.gate.busy.Load() >= crowd
}

// mortal is a connection that ends with its store.
type mortal struct {
	net.Conn

	forget  func() bool
	crowded func() bool
}

// Write implements [net.Conn]. In a crowd, whoever is ready to make a call does so first: batches grow, and
// each system call here and at the server serves more calls. No clock is waited for, so that nobody is delayed
// for longer than the others need to run.
func (m *mortal) Write(p []byte) (int, error) {
	if m.crowded() {
		runtime.Gosched()
	}
	return m.Conn.Write(p)
}

// Close implements [net.Conn].
func (m *mortal) Close() error {
	m.forget()
	return m.Conn.Close()
}

// get is the client, connected.
func (l *lazy) get(ctx context.Context) (*client, error) {
	if c := l.ready.Load(); c != nil {
		return c, nil
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, engine.ErrClientClosed
	}
	a := l.attempt
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		l.attempt = a
		go l.connect(a)
	}
	l.mu.Unlock()
	select {
	case <-a.done:
		return a.client, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect runs an attempt.
func (l *lazy) connect(a *attempt) {
	inner, err := rueidis.NewClient(l.option)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempt = nil
	switch {
	case err != nil:
		a.err = translate(err)
	case l.closed:
		a.err = engine.ErrClientClosed
	default:
		a.client = newClient(inner)
		l.ready.Store(a.client)
	}
	if a.client == nil && inner != nil {
		inner.Close()
	}
	close(a.done)
}

// Eval implements [engine.Client].
func (l *lazy) Eval(ctx context.Context, call engine.Call) (engine.Reply, error) {
	c, err := l.get(ctx)
	if err != nil {
		return engine.Reply{}, err
	}
	return c.Eval(ctx, call)
}

// EvalEach implements [engine.Client].
func (l *lazy) EvalEach(ctx context.Context, calls []engine.Call) []engine.Outcome {
	c, err := l.get(ctx)
	if err == nil {
		return c.EvalEach(ctx, calls)
	}
	outcomes := make([]engine.Outcome, len(calls))
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// Unlink implements [engine.Client].
func (l *lazy) Unlink(ctx context.Context, key string) error {
	c, err := l.get(ctx)
	if err != nil {
		return err
	}
	return c.Unlink(ctx, key)
}

// Sharding implements [engine.Client].
func (l *lazy) Sharding(ctx context.Context) (engine.Sharding, error) {
	c, err := l.get(ctx)
	if err != nil {
		return engine.Whole, err
	}
	return c.Sharding(ctx)
}

// Close implements [engine.Client]. Calls under way fail, so that a silent server cannot hold it.
func (l *lazy) Close() {
	l.mu.Lock()
	l.closed = true
	c := l.ready.Load()
	l.mu.Unlock()
	l.stop()
	if c != nil {
		c.inner.Close()
	}
}

package redistest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Proxy stands between clients and a server and breaks connections when told to.
type Proxy struct {
	// Addr is where clients connect.
	Addr string

	target   string
	listener net.Listener
	replies  atomic.Int64 // replies to drop connections instead of
	turns    atomic.Int64
	answered atomic.Bool // the last thing that passed was a reply
	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	frozen   chan struct{} // closed when what is held back may pass; nil if nothing is
	closed   bool
	done     sync.WaitGroup
}

// StartProxy listens on a free port and forwards to a server. The caller must Close it.
func StartProxy(ctx context.Context, target string) (*Proxy, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, listener: l, conns: make(map[net.Conn]struct{})}
	p.answered.Store(true)
	p.done.Go(p.accept)
	return p, nil
}

func (p *Proxy) accept() {
	for {
		down, err := p.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		up, err := d.DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			_ = down.Close()
			continue
		}
		if !p.add(down, up) {
			return
		}
		p.done.Go(func() { p.forward(up, down, true) })
		p.done.Go(func() { p.forward(down, up, false) })
	}
}

func (p *Proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
		if p.closed {
			_ = c.Close()
		}
	}
	return !p.closed
}

// forward copies one direction until either side ends, then ends both.
func (p *Proxy) forward(to, from net.Conn, requests bool) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		p.hold()
		if n > 0 && p.answered.Swap(!requests) && requests {
			p.turns.Add(1)
		}
		if n > 0 && !requests && p.replies.Load() > 0 && p.replies.Add(-1) >= 0 {
			err = io.EOF // the server has run the request; its reply is lost
		} else if n > 0 {
			_, writeErr := to.Write(buffer[:n])
			err = errors.Join(err, writeErr)
		}
		if err != nil {
			p.cut(to, from)
			return
		}
	}
}

// cut resets connections instead of closing them in order.
func (p *Proxy) cut(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
		delete(p.conns, c)
	}
}

// Freeze holds back whatever comes from either side, as a network does that is cut in two:
// connections stay open, and new ones are taken.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil && !p.closed {
		p.frozen = make(chan struct{})
	}
}

// Thaw lets everything pass that was held back, however old it is.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thaw()
}

func (p *Proxy) thaw() {
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

// hold waits while the proxy is frozen.
func (p *Proxy) hold() {
	p.mu.Lock()
	frozen := p.frozen
	p.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

// LoseReplies makes the proxy reset a connection when its server answers, n times: the request has
// run, and the client cannot know.
func (p *Proxy) LoseReplies(n int) { p.replies.Store(int64(n)) }

// Turns is how many round trips there were: how often a request followed a reply. It
// makes sense while one client waits for each reply.
func (p *Proxy) Turns() int { return int(p.turns.Load()) }

// Cut resets all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	conns := make([]net.Conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	p.cut(conns...)
}

// Close stops the proxy and resets all connections.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.Cut()
	p.Thaw() // what was held back is lost
	p.done.Wait()
	return err
}

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// listener knows its connections. Closing it also hangs up on those that have not sent a byte yet: both grpc-go and
// net/http would wait seconds for them at shutdown, although nobody waits for an answer there.
type listener struct {
	net.Listener

	close func() error

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
}

// listen binds addr. flag is what the command line calls the port, for the message when it is taken.
func listen(addr, flag string) (*listener, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err == nil {
		return &listener{Listener: l, close: sync.OnceValue(l.Close), conns: make(map[*conn]struct{})}, nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		host, port, _ := net.SplitHostPort(addr)
		return nil, fmt.Errorf("server: port %s on %q is already in use:"+
			" stop what listens there, or choose another port (%s; 0 picks a free one): %w", port, host, flag, err)
	}
	return nil, fmt.Errorf("server: %w", err)
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = raw.Close() // it slipped in while the listener closed
		return nil, net.ErrClosed
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// Close stops accepting and hangs up on silent connections. Doors close it as well as their server, at the same time or one after
// the other, so a second call does no harm.
func (l *listener) Close() error {
	err := l.close()
	l.hangUp(func(c *conn) bool { return !c.heard.Load() })
	return err
}

// abort hangs up on everyone.
func (l *listener) abort() {
	l.hangUp(func(*conn) bool { return true })
}

func (l *listener) hangUp(on func(*conn) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.conns {
		if on(c) {
			_ = c.Conn.Close() // whoever reads from it closes it again and takes it off the list
		}
	}
}

// conn is one connection of a listener.
type conn struct {
	net.Conn

	listener *listener
	heard    atomic.Bool // a byte has arrived
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
	}
	return n, err
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Error is an error that a server answered with.
type Error string

func (e Error) Error() string { return string(e) }

// Conn is a plain connection, for tests that look at keys or write them as another
// implementation would. It is not safe for concurrent use.
type Conn struct {
	conn net.Conn
	r    *bufio.Reader
}

// Dial connects to a server.
func Dial(ctx context.Context, addr string) (*Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{conn, bufio.NewReader(conn)}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Do sends a command and returns its reply: a string, an int64, nil or a slice of these.
func (c *Conn) Do(ctx context.Context, args ...string) (any, error) {
	replies, err := c.Pipeline(ctx, args)
	if err != nil {
		return nil, err
	}
	if e, ok := replies[0].(Error); ok {
		return nil, e
	}
	return replies[0], nil
}

// Pipeline sends commands at once and returns their replies; one of type [Error] stands where a command failed.
func (c *Conn) Pipeline(ctx context.Context, commands ...[]string) ([]any, error) {
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })()
	var b []byte
	for _, args := range commands {
		b = append(strconv.AppendInt(append(b, '*'), int64(len(args)), 10), "\r\n"...)
		for _, arg := range args {
			b = append(strconv.AppendInt(append(b, '$'), int64(len(arg)), 10), "\r\n"...)
			b = append(append(b, arg...), "\r\n"...)
		}
	}
	failed := make(chan error, 1) // a long pipeline must be read while it is written
	go func() {
		_, err := c.conn.Write(b)
		failed <- err
	}()
	replies := make([]any, len(commands))
	for i := range replies {
		var err error
		if replies[i], err = c.read(); err != nil {
			_ = c.conn.Close()
			return nil, errors.Join(err, <-failed)
		}
	}
	return replies, <-failed
}

func (c *Conn) read() (any, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 {
		return nil, fmt.Errorf("reply %q", line)
	}
	kind, text := line[0], line[1:len(line)-2]
	switch kind {
	case '+':
		return text, nil
	case '-':
		return Error(text), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, err
	}
	switch {
	case kind == ':':
		return n, nil
	case n < 0:
		return nil, nil //nolint:nilnil // Redis answers nil
	case kind == '$':
		bulk := make([]byte, n+2)
		_, err := io.ReadFull(c.r, bulk)
		return string(bulk[:n]), err
	case kind == '*':
		list := make([]any, n)
		for i := range list {
			if list[i], err = c.read(); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("reply %q", line)
}

package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options says what a server is like. The zero value is a plain one.
type Options struct {
	// Password is what clients must give.
	Password string
	// Persist keeps the data over a restart, whatever ends the server.
	Persist bool
	// Settings are further lines of the configuration, such as "maxmemory 1mb".
	Settings []string
	// Program is the server's program. Defaults to redis-server.
	Program string
}

// Server is a running redis-server.
type Server struct {
	// Addr is its address, host:port.
	Addr string
	// Dir is the folder that it keeps its files in.
	Dir string

	options Options
	port    int
	mode    []string // arguments beside the configuration

	mu      sync.Mutex
	process *exec.Cmd
	exited  chan struct{} // closed when process has ended
}

const startTimeout = 10 * time.Second

// Start runs a server and waits until it answers. The caller must Close it.
func Start(ctx context.Context, options Options) (*Server, error) { return start(ctx, options, nil) }

func start(ctx context.Context, options Options, mode []string) (*Server, error) {
	if options.Program == "" {
		options.Program = "redis-server"
	}
	program, err := exec.LookPath(options.Program)
	if err != nil {
		return nil, fmt.Errorf("redistest: %s is not installed; apt-get install redis-server: %w", options.Program, err)
	}
	options.Program = program
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, options: options, mode: mode}
	const attempts = 5 // another process may take the port first
	for range attempts {
		if s.port, err = freePort(ctx); err != nil {
			break
		}
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
		if err = s.run(ctx); err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(err, s.Close())
}

func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	addr, _ := l.Addr().(*net.TCPAddr)
	return addr.Port, nil
}

func (s *Server) configuration() string {
	lines := []string{
		"bind 127.0.0.1", "port " + strconv.Itoa(s.port), "dir " + s.Dir, "daemonize no",
		"logfile " + filepath.Join(s.Dir, "log"), `enable-debug-command yes`,
	}
	if len(s.mode) == 0 {
		lines = append(lines, `save ""`)
	}
	if s.options.Persist {
		lines = append(lines, "appendonly yes", "appendfsync always")
	}
	if s.options.Password != "" {
		lines = append(lines, "requirepass "+s.options.Password, "masterauth "+s.options.Password)
	}
	return strings.Join(append(lines, s.options.Settings...), "\n") + "\n"
}

// run starts the process and waits until it is the one that answers.
func (s *Server) run(ctx context.Context) error {
	path := filepath.Join(s.Dir, "redis.conf")
	if err := os.WriteFile(path, []byte(s.configuration()), 0o600); err != nil {
		return err
	}
	//nolint:gosec,noctx // the program is the caller's choice, and the server outlives the call that starts it
	process := exec.Command(s.options.Program, append([]string{path}, s.mode...)...)
	process.SysProcAttr = attributes()
	if err := process.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = process.Wait()
		close(exited)
	}()
	s.mu.Lock()
	s.process, s.exited = process, exited
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		select {
		case <-exited:
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			return false, fmt.Errorf("redistest: redis-server ended: %s", log)
		default:
			return s.answers(ctx, process.Process.Pid), nil
		}
	})
}

// answers reports whether the process, and no other, answers at the address, and has loaded its data.
func (s *Server) answers(ctx context.Context, pid int) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	info, err := s.Do(ctx, "INFO")
	text, _ := info.(string)
	return err == nil && strings.Contains(text, fmt.Sprintf("process_id:%d\r", pid)) && !strings.Contains(text, "loading:1\r")
}

// poll waits until a condition holds.
func poll(ctx context.Context, holds func() (bool, error)) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("redistest: gave up waiting for a server: %w", ctx.Err())
		}
	}
}

// URL is the server's address as Redis clients take it.
func (s *Server) URL() string {
	if s.options.Password != "" {
		return "redis://:" + s.options.Password + "@" + s.Addr
	}
	return "redis://" + s.Addr
}

// Dial connects to the server and authenticates.
func (s *Server) Dial(ctx context.Context) (*Conn, error) {
	c, err := Dial(ctx, s.Addr)
	if err != nil || s.options.Password == "" {
		return c, err
	}
	if _, err := c.Do(ctx, "AUTH", s.options.Password); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Do sends one command on a connection of its own.
func (s *Server) Do(ctx context.Context, args ...string) (any, error) {
	c, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.Do(ctx, args...)
}

// FlushScripts makes the server forget all scripts.
func (s *Server) FlushScripts(ctx context.Context) error {
	_, err := s.Do(ctx, "SCRIPT", "FLUSH")
	return err
}

// signal sends a signal to the process, and reports whether there is one.
func (s *Server) signal(sig syscall.Signal) (exited chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil, errors.New("redistest: the server does not run")
	}
	return s.exited, s.process.Process.Signal(sig)
}

// Freeze stops the process without ending it: connections stay open, and nothing is answered.
func (s *Server) Freeze() error {
	_, err := s.signal(freeze)
	return err
}

// Thaw lets a frozen process go on.
func (s *Server) Thaw() error {
	_, err := s.signal(thaw)
	return err
}

// Kill ends the process at once, frozen or not.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Stop lets the process end in order.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

func (s *Server) end(sig syscall.Signal) error {
	exited, err := s.signal(sig)
	if err != nil {
		return err
	}
	<-exited
	s.mu.Lock()
	s.process = nil
	s.mu.Unlock()
	return nil
}

// Restart starts a server that was ended again, on the same port: with the data that it has
// saved, which takes Options.Persist, or empty.
func (s *Server) Restart(ctx context.Context, empty bool) error {
	if empty {
		for _, name := range []string{"appendonlydir", "dump.rdb"} {
			if err := os.RemoveAll(filepath.Join(s.Dir, name)); err != nil {
				return err
			}
		}
	}
	return s.run(ctx)
}

// Close ends the server, in whatever state it is, and removes its folder. It may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	running := s.process != nil
	s.mu.Unlock()
	if running {
		_ = s.Kill() // it may have ended by itself
	}
	return os.RemoveAll(s.Dir)
}

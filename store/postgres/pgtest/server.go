//go:build unix

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
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

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
	pollEvery    = 10 * time.Millisecond
	portAttempts = 5
)

// Locked is a role that has to log in with a password, once a test has created it.
const Locked = "locked"

// Server is one private PostgreSQL. Its superuser is "postgres", who needs no password,
// like all other roles but [Locked].
type Server struct {
	programs string // folder of initdb and postgres
	dir      string
	owner    *syscall.Credential // nil unless this process is root
	settings []string

	mu       sync.Mutex
	port     int
	process  *process
	watchdog io.Closer
}

// process is a postmaster that has been started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
}

// Start creates a cluster and starts it. Settings are further lines of configuration,
// such as "max_connections=20".
func Start(settings ...string) (*Server, error) {
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	owner, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		return nil, err
	}
	s := &Server{programs: programs, dir: dir, owner: owner, settings: settings}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *Server) create() (err error) {
	if s.owner != nil {
		if err := os.Chown(s.dir, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	initdb := s.command(ctx, "initdb", "--pgdata", s.data(), "--username=postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("pgtest: initdb: %w\n%s", err, out)
	}
	if err := s.lock(); err != nil {
		return err
	}
	if s.watchdog, err = watch(s.dir, s.data()); err != nil {
		return err
	}
	if err := s.Restart(); err != nil {
		return errors.Join(err, s.watchdog.Close())
	}
	return nil
}

// lock makes the role Locked show a password. The first line that fits counts.
func (s *Server) lock() error {
	path := filepath.Join(s.data(), "pg_hba.conf")
	rules, err := os.ReadFile(path) //nolint:gosec // our own file
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte("host all "+Locked+" all scram-sha-256\n"), rules...), 0o600) //nolint:gosec // our own file
}

// command runs one of PostgreSQL's programs, as an unprivileged user if need be.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, name), args...) //nolint:gosec // names from this file
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+s.dir)
	// A group of its own keeps the terminal's interrupt away from the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setpgid: true}
	return cmd
}

func (s *Server) data() string    { return filepath.Join(s.dir, "data") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// URL connects to the database "postgres" as the superuser.
func (s *Server) URL() string { return "postgres://postgres@" + s.Addr() + "/postgres" }

// Addr is the host and port that the server listens on. It stays the same over a Restart.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// Log is what the server has written to its log.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Restart starts the server again with the data that it has, after Kill or Shutdown. A
// server that runs keeps running.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	if s.port != 0 {
		return s.start()
	}
	// Somebody else may take a free port before the server does.
	var err error
	for range portAttempts {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.start(); err == nil {
			return nil
		}
	}
	return err
}

// start starts the postmaster and waits until it is the one that accepts connections.
func (s *Server) start() (err error) {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir}
	settings := []string{
		"listen_addresses=127.0.0.1", "fsync=off", "synchronous_commit=on", "max_connections=200", "shared_buffers=32MB",
	}
	for _, setting := range append(settings, s.settings...) {
		args = append(args, "-c", setting)
	}
	cmd := s.command(context.Background(), "postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("pgtest: postgres: %w", err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is told by its log
		close(p.done)
	}()
	if err := s.awaitReady(p); err != nil {
		_ = p.signal(syscall.SIGKILL)
		<-p.done
		return err
	}
	s.process = p
	return nil
}

// awaitReady waits for the line of the pid file in which our own postmaster says that it is ready.
func (s *Server) awaitReady(p *process) error {
	const pidLine, statusLine = 0, 7
	ready := func() bool {
		text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
		lines := strings.Split(string(text), "\n")
		return err == nil && len(lines) > statusLine && lines[pidLine] == strconv.Itoa(p.cmd.Process.Pid) &&
			strings.TrimSpace(lines[statusLine]) == "ready"
	}
	if err := poll(startTimeout, p.done, ready); err != nil {
		return fmt.Errorf("pgtest: postgres did not get ready: %w\n%s", err, s.Log())
	}
	return nil
}

var errEnded = errors.New("the process has ended")

// poll waits until ok holds. It fails at the timeout, or when done is closed first.
func poll(timeout time.Duration, done <-chan struct{}, ok func() bool) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-done:
			return errEnded
		case <-deadline.C:
			return fmt.Errorf("waited for %s", timeout)
		}
	}
	return nil
}

// Stop ends the server and removes all it kept. It may be called more than once.
func (s *Server) Stop() error {
	err := s.Shutdown()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchdog != nil {
		err = errors.Join(err, s.watchdog.Close())
		s.watchdog = nil
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func freePort() (int, error) {
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	if err := l.Close(); err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("pgtest: %v is no TCP address", l.Addr())
	}
	return addr.Port, nil
}

// watchScript waits until its standard input ends, then ends the server and removes its folder.
const watchScript = `read _
[ -s "$2/postmaster.pid" ] && pid=$(head -n 1 "$2/postmaster.pid") && kill -QUIT "$pid" && kill -CONT "$pid"
rm -rf "$1"`

// watchdog is a shell that outlives this process if it dies.
type watchdog struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

func watch(dir, data string) (io.Closer, error) {
	cmd := exec.CommandContext(context.Background(), "sh", "-c", watchScript, "sh", dir, data) //nolint:gosec // our own folders
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("pgtest: watchdog: %w", err)
	}
	return &watchdog{cmd, input}, nil
}

// Close ends the watchdog without letting it act.
func (w *watchdog) Close() error {
	err := w.cmd.Process.Kill()
	_ = w.cmd.Wait() // it was killed
	return errors.Join(err, closePipe(w.input))
}

func closePipe(c io.Closer) error {
	if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

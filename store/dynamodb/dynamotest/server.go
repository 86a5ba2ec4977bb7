//go:build unix

package dynamotest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const startTimeout = 30 * time.Second

// Server is one private stand-in for DynamoDB.
type Server struct {
	node, module, dir string

	mu      sync.Mutex
	port    int
	process *process
}

// process is a Node.js that has been started.
type process struct {
	cmd   *exec.Cmd
	input io.WriteCloser // ends the process when it is closed
	done  chan struct{}  // closed once it has ended
}

// script runs dynalite; when its standard input ends, so does it, and takes its data with
// it. Tables are ready at once.
// Dynalite does not expect its clients to vanish; once it listens, that does not end it.
const script = `
const [module, path, port] = process.argv.slice(1);
const server = require(module)({ path, createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
server.on('error', (err) => { console.error(err.message); process.exit(1); });
server.listen(Number(port), '127.0.0.1', () => {
  console.log('port ' + server.address().port);
  process.on('uncaughtException', (err) => console.error(err.stack));
});
process.stdin.on('end', () => {
  require('fs').rmSync(path, { recursive: true, force: true });
  process.exit(0);
}).resume();
`

// Start installs dynalite if need be and starts it without any tables.
func Start() (*Server, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, ErrMissing
	}
	module, err := install()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "dynamotest-")
	if err != nil {
		return nil, fmt.Errorf("dynamotest: %w", err)
	}
	s := &Server{node: node, module: module, dir: dir}
	if err := s.Restart(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// URL is the server's endpoint.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Addr is the host and port that the server listens on. It stays the same over a Restart.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "127.0.0.1:" + strconv.Itoa(s.port)
}

// Restart starts the server again with the data that it has, after Kill. A server that
// runs keeps running.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	// The script is handed over as it is; what follows is what it calls its arguments.
	//nolint:gosec // the program was found on the PATH, and the arguments are ours
	cmd := exec.CommandContext(context.Background(), s.node, "-e", script, s.module, s.dir, strconv.Itoa(s.port))
	// The terminal's interrupt is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	input, inErr := cmd.StdinPipe()
	output, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return fmt.Errorf("dynamotest: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("dynamotest: %w", err)
	}
	p := &process{cmd: cmd, input: input, done: make(chan struct{})}
	port, err := readPort(p, output)
	if err != nil {
		return fmt.Errorf("dynamotest: dynalite did not start: %w\n%s", err, complaints.String())
	}
	s.port, s.process = port, p
	return nil
}

// readPort waits for the line in which the process tells its port. It ends the process
// if there is none.
func readPort(p *process, output io.Reader) (int, error) {
	lines := make(chan string, 1)
	go func() {
		r := bufio.NewReader(output)
		line, _ := r.ReadString('\n') // an empty line tells of the error
		lines <- line
		_, _ = io.Copy(io.Discard, r)
		_ = p.cmd.Wait()
		close(p.done)
	}()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	err := fmt.Errorf("waited for %s", startTimeout)
	select {
	case line := <-lines:
		text, _ := strings.CutPrefix(strings.TrimSpace(line), "port ")
		var port int
		if port, err = strconv.Atoi(text); err == nil {
			return port, nil
		}
	case <-timeout.C:
	}
	return 0, errors.Join(err, p.kill())
}

// kill ends the process and waits for it.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.done
	_ = p.input.Close() // the other end is gone
	return err
}

// Kill ends the server at once and keeps what it has written.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	err := s.process.kill()
	s.process = nil
	return err
}

// Stop ends the server and removes all it kept. It may be called more than once.
func (s *Server) Stop() error { return errors.Join(s.Kill(), os.RemoveAll(s.dir)) }

// Freeze stops the server in its tracks: connections stay open and nothing answers. Thaw
// lets it go on.
func (s *Server) Freeze() error { return s.signal(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (s *Server) Thaw() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return os.ErrProcessDone
	}
	return s.process.cmd.Process.Signal(sig)
}

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// atMost bounds every wait of the tests. It is generous, as machines are shared.
const atMost = 30 * time.Second

// process is a running "throttlekit serve".
type process struct {
	cmd            *exec.Cmd
	grpc, http     string // addresses; http is empty if the door is off
	stdout, stderr *transcript
	drained        sync.WaitGroup // both outputs
	once           sync.Once
	code           int
}

var listening = regexp.MustCompile(`throttlekit listening on (\S+) \(gRPC\)(?: and https?://(\S+) \(HTTP\))?`)

// start runs throttlekit serve in a folder and waits until it listens.
func start(dir string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command("throttlekit", append([]string{"serve"}, args...)...), stdout: newTranscript(), stderr: newTranscript()}
	p.cmd.Dir = dir
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.drained.Go(func() { p.stdout.copy(out) })
	p.drained.Go(func() { p.stderr.copy(errs) })
	addresses, err := p.stdout.await(listening)
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("%w; standard error:\n%s", err, p.stderr)
	}
	p.grpc, p.http = addresses[1], addresses[2]
	return p, nil
}

// serve is start for Go tests.
func serve(t *testing.T, args ...string) *process {
	t.Helper()
	p, err := start(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *process) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// wait returns the exit code once the process has ended, -1 if a signal did it or it had to be killed.
func (p *process) wait() int {
	p.once.Do(func() {
		kill := time.AfterFunc(atMost, func() { _ = p.cmd.Process.Kill() })
		defer kill.Stop()
		p.drained.Wait()
		_ = p.cmd.Wait() // the exit code says it all
		p.code = p.cmd.ProcessState.ExitCode()
	})
	return p.code
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	p.wait()
}

// transcript is what a process has printed so far, for readers who wait for a line of it.
type transcript struct {
	mu    sync.Mutex
	text  strings.Builder
	grown chan struct{} // closed when text grows; nil after the end
}

func newTranscript() *transcript { return &transcript{grown: make(chan struct{})} }

func (t *transcript) copy(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		t.mu.Lock()
		t.text.WriteString(lines.Text() + "\n")
		close(t.grown)
		t.grown = make(chan struct{})
		t.mu.Unlock()
	}
	t.mu.Lock()
	close(t.grown)
	t.grown = nil
	t.mu.Unlock()
}

// String is everything so far.
func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// await returns the first match and its groups, once there is one.
func (t *transcript) await(pattern *regexp.Regexp) ([]string, error) {
	deadline := time.After(atMost)
	for {
		t.mu.Lock()
		text, grown := t.text.String(), t.grown
		t.mu.Unlock()
		if found := pattern.FindStringSubmatch(text); found != nil {
			return found, nil
		}
		if grown == nil {
			return nil, errors.New("the process has ended")
		}
		select {
		case <-grown:
		case <-deadline:
			return nil, fmt.Errorf("nothing matches %v in\n%s", pattern, text)
		}
	}
}

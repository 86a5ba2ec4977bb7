package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// The line under "Try it:" works as it is printed, in a shell that knows nothing of the test.
func TestStarterExampleWorks(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("curl is not installed: apt-get install curl")
		}
		t.Skip("curl is not installed: apt-get install curl")
	}
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			p := serve(t, "--port", "0", "--http-port", "0", "--host", host, "--allow-insecure")
			example, err := p.stdout.await(regexp.MustCompile(`(?m)^Try it:\n  (.+)\n`))
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "sh", "-c", example[1]).Output()
			if err != nil {
				t.Fatal(err)
			}
			d, err := readDecision(out)
			if err != nil || !d.Allowed || d.Remaining != d.Limit-1 {
				t.Errorf("got %+v %v from %s", d, err, out)
			}
		})
	}
}

// With --log-format json there is nothing but records, on standard error.
func TestServeLogsRecords(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "throttlekit", "serve", "--port", "0", "--http-port", "0", "--log-format", "json")
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var messages []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		var record struct {
			Msg, GRPC, HTTP, Names string
			Policies               int
		}
		if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
			t.Fatalf("%v in %s", err, lines.Text())
		}
		messages = append(messages, record.Msg)
		if record.Msg != "listening" {
			continue
		}
		if record.Policies != 4 || !strings.HasPrefix(record.Names, "default, ") {
			t.Errorf("got %s", lines.Text())
		}
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", record.GRPC)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		res, err := http.Get(record.HTTP + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(messages, ", "); got != "listening, stopping, stopped" {
		t.Errorf("records: %s", got)
	}
	if stdout.Len() > 0 {
		t.Errorf("standard output: %s", &stdout)
	}
}

// hang makes a request that the server waits for: its handler runs, but the body never comes.
func hang(t *testing.T, p *process) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.http)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "POST /throttlekit.v1.RateLimiter/Check HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n", p.http)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(answer, "100 Continue") {
		t.Fatalf("got %q %v", answer, err)
	}
}

func TestShutdownTimeoutCutsOff(t *testing.T) {
	t.Parallel()
	p := serve(t, "--port", "0", "--http-port", "0", "--shutdown-timeout", "100ms")
	hang(t, p)
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != codeFailed {
		t.Errorf("exit code %d, want %d", code, codeFailed)
	}
	if got := p.stderr.String(); !strings.Contains(got, "requests ran on after 100ms (--shutdown-timeout) and were cut off") {
		t.Errorf("standard error: %s", got)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := serve(t, "--port", "0", "--http-port", "0", "--shutdown-timeout", "1h")
	hang(t, p)
	if err := p.signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := p.stderr.await(regexp.MustCompile(`interrupt signal received, answering`)); err != nil {
		t.Fatal(err)
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.wait()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v", p.cmd.ProcessState)
	}
}

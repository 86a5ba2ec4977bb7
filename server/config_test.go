package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		cfg   Config
		wants []string // all in one error; none means that the configuration is right
	}{
		{"loopback", local(), nil},
		{"the other loopback", Config{GRPCAddr: "[::1]:0", HTTPAddr: Off}, nil},
		{"by name", Config{GRPCAddr: "localhost:0", HTTPAddr: "localhost:0"}, nil},
		{"anywhere in 127/8", Config{GRPCAddr: "127.9.9.9:0", HTTPAddr: Off}, nil},
		{"all interfaces", Config{GRPCAddr: ":0", HTTPAddr: Off}, []string{"GRPCAddr", "AllowInsecure", "TLS"}},
		{"all interfaces in words", Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: "0.0.0.0:0"}, []string{"HTTPAddr", "AllowInsecure"}},
		{"all interfaces of IPv6", Config{GRPCAddr: "[::]:0", HTTPAddr: Off}, []string{"GRPCAddr"}},
		{"a name that may mean anything", Config{GRPCAddr: "limits.example:0", HTTPAddr: Off}, []string{"GRPCAddr"}},
		{"allowed", Config{GRPCAddr: ":0", HTTPAddr: "0.0.0.0:0", AllowInsecure: true}, nil},
		{"no port", Config{GRPCAddr: "127.0.0.1", HTTPAddr: "localhost"}, []string{"GRPCAddr", "HTTPAddr", "host:port"}},
		{"ports out of range", Config{GRPCAddr: "127.0.0.1:65536", HTTPAddr: "127.0.0.1:-1"}, []string{"GRPCAddr", "HTTPAddr"}},
		{"a port by name", Config{GRPCAddr: "127.0.0.1:http", HTTPAddr: Off}, []string{"GRPCAddr"}},
		{"gRPC is not optional", Config{GRPCAddr: Off, HTTPAddr: Off}, []string{"GRPCAddr"}},
		{
			"everything at once",
			Config{GRPCAddr: ":0", HTTPAddr: "x", DrainTimeout: -1, TLS: TLS{CAFile: "ca.pem"}},
			[]string{"HTTPAddr", "DrainTimeout", "TLS.CAFile"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, err := New(policies(t), test.cfg)
			if err == nil {
				defer s.Close()
			}
			if len(test.wants) == 0 {
				if err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) { // a machine without IPv6
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, throttlekit.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			for _, want := range test.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not mention %q", err, want)
				}
			}
		})
	}
	if _, err := New(nil, local()); !errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("without a service: got %v, want ErrInvalid", err)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := Config{}.settle()
	if err != nil {
		t.Fatal(err)
	}
	if c.GRPCAddr != "127.0.0.1:50051" || c.HTTPAddr != "127.0.0.1:8080" || c.DrainTimeout != 10*time.Second || c.tls != nil {
		t.Errorf("got %+v", c)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, test := range []struct {
		cfg  Config
		flag string
	}{
		{Config{GRPCAddr: taken.Addr().String(), HTTPAddr: Off}, "--port"},
		{Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: taken.Addr().String()}, "--http-port"},
	} {
		_, err := New(policies(t), test.cfg)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "port "+port) || !strings.Contains(err.Error(), test.flag) {
			t.Errorf("got %v, want an error about port %s and %s", err, port, test.flag)
		}
	}
}

func TestPlaintextBeyondLoopbackIsLogged(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cfg   Config
		warns int
	}{
		{Config{GRPCAddr: "0.0.0.0:0", HTTPAddr: ":0", AllowInsecure: true}, 2},
		{Config{GRPCAddr: "0.0.0.0:0", HTTPAddr: "127.0.0.1:0", AllowInsecure: true}, 1},
		{Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", AllowInsecure: true}, 0},
	} {
		var log bytes.Buffer
		test.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s, err := New(policies(t), test.cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		if got := strings.Count(log.String(), "level=WARN"); got != test.warns || !strings.Contains(log.String(), "security=insecure") {
			t.Errorf("%d warnings, want %d:\n%s", got, test.warns, &log)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t), Config{GRPCAddr: "127.0.0.1:0", HTTPAddr: Off})
	if s.HTTPAddr() != nil {
		t.Errorf("the HTTP door is off, but listens at %v", s.HTTPAddr())
	}
	if port := s.GRPCAddr().(*net.TCPAddr).Port; port == 0 {
		t.Error("port 0 is no address")
	}
}

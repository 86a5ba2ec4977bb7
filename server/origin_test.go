package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

// Without a secret, what comes from this machine is served only if it was meant for it: not what a proxy hands on, what the
// page of another site sends, or what names a host that is somebody else's.
func TestMonitorIsForThisMachineOnly(t *testing.T) {
	t.Parallel()
	secret := "s3cret"
	for _, with := range []*string{nil, &secret} {
		config := local()
		config.Monitor, config.MonitorSecret = must(monitor.New(monitor.Config{})), with
		s, _ := serve(t, policies(t), config)
		url := "http://" + s.HTTPAddr().String() + "/throttlekit.v1.Monitor/GetSnapshot"
		for name, tt := range map[string]struct {
			get    bool
			host   string
			header http.Header
			served bool
		}{
			"here":            {served: true},
			"here, localhost": {host: "localhost:1234", served: true},
			"the same origin": {header: http.Header{"Sec-Fetch-Site": {"same-origin"}}, served: true},
			"a name":          {host: "evil.example:8080"},
			"another site":    {header: http.Header{"Sec-Fetch-Site": {"cross-site"}}},
			"another site, GET": {
				get: true, header: http.Header{"Sec-Fetch-Site": {"cross-site"}},
			},
			"a proxy":       {header: http.Header{"X-Forwarded-For": {"203.0.113.9"}}},
			"another proxy": {header: http.Header{"Forwarded": {"for=203.0.113.9"}}},
			"a proxy that leaves alone what the caller sent": {header: http.Header{"X-Forwarded-For": {"", "203.0.113.9"}}},
			"a proxy that tells the port only":               {header: http.Header{"X-Forwarded-Port": {"443"}}},
			"no address":                                     {host: "0.0.0.0:8080"},
			"no address, IPv6":                               {host: "[::]:8080"},
			"a link on another site": {
				get: true, served: true,
				header: http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}},
			},
			"a frame on another site": {
				get: true, header: http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}},
			},
		} {
			req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}")))
			req.Header.Set("Content-Type", "application/json")
			if tt.get {
				req = must(http.NewRequestWithContext(t.Context(), http.MethodGet, url+"?message={}&encoding=json&connect=v1", nil))
			}
			if tt.host != "" {
				req.Host = tt.host
			}
			maps.Copy(req.Header, tt.header)
			want := http.StatusUnauthorized
			if with != nil {
				req.Header.Set("X-Monitor-Secret", secret)
			}
			if with != nil || tt.served {
				want = http.StatusOK
			}
			res, err := httpClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s, secret %v: got %s, want %d", name, with != nil, res.Status, want)
			}
		}
	}
}

// Readers that watch and do not read hold no shutdown up, and are no requests that were cut off.
func TestShutdownIsNotHeldByReadersThatStop(t *testing.T) {
	t.Parallel()
	for door, watch := range map[string]func(t *testing.T, s *Server){
		"gRPC": func(t *testing.T, s *Server) {
			t.Helper()
			conn := dial(t, s, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
			stream := must(throttlekitv1.NewMonitorClient(conn).Watch(t.Context(), &throttlekitv1.WatchRequest{}))
			must(stream.Header()) // it watches
		},
		"HTTP": func(t *testing.T, s *Server) {
			t.Helper()
			req := must(http.NewRequestWithContext(t.Context(), http.MethodPost,
				"http://"+s.HTTPAddr().String()+"/throttlekit.v1.Monitor/Watch", strings.NewReader("\x00\x00\x00\x00\x02{}")))
			req.Header.Set("Content-Type", "application/connect+json")
			res, err := httpClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = res.Body.Close() })
		},
		"HTTP/2": watchAndStop,
	} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			hub := must(monitor.New(monitor.Config{}))
			config := local()
			config.Monitor, config.DrainTimeout = hub, 5*time.Minute
			if door == "HTTP/2" {
				us := newAuthority(t)
				us.sign(t, "server")
				config.TLS = TLS{CertFile: us.path("server.pem"), KeyFile: us.path("server.key")}
			}
			s, stop := serve(t, policies(t), config)
			watch(t, s)
			until(t, "it watches", func() bool { return hub.Watchers() == 1 })
			e := service.Event{Policy: service.Info{Name: "p"}, Key: strings.Repeat("k", 100), At: time.UnixMilli(epoch)}
			const many, rounds, room = 400, 100, 1280 // room is what may wait on its way to the reader
			offered, round, before := int64(0), 0, int64(0)
			until(t, "it reads no more", func() bool { // then all that comes is dropped
				for range many {
					e.At = e.At.Add(3 * time.Millisecond) // no second has too many
					hub.Decided(e)
				}
				offered += many
				if round++; round%rounds > 0 {
					return false
				}
				taken := offered - hub.Snapshot(t.Context()).Watch.Dropped
				stopped := taken-before < room
				before = taken
				return stopped
			})
			began := time.Now()
			if err := stop(); err != nil {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 2*soon {
				t.Errorf("the drain took %v", took)
			}
		})
	}
}

// watchAndStop watches over a connection that nobody reads from. Clients of HTTP/2 would go on reading from theirs.
func watchAndStop(t *testing.T, s *Server) {
	t.Helper()
	raw := must(new(net.Dialer).DialContext(t.Context(), "tcp", s.HTTPAddr().String()))
	t.Cleanup(func() { _ = raw.Close() })
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	must(conn.Write([]byte(http2.ClientPreface)))
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":authority", "localhost"},
		{":path", "/throttlekit.v1.Monitor/Watch"},
		{"content-type", "application/connect+json"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	const window = 1<<31 - 1
	frames := http2.NewFramer(conn, nil)
	if err := errors.Join(
		frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		frames.WriteWindowUpdate(0, window-65535),
		frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header.Bytes(), EndHeaders: true}),
		frames.WriteData(1, true, []byte("\x00\x00\x00\x00\x02{}")),
	); err != nil {
		t.Fatal(err)
	}
}

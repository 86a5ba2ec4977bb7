package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

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
			header map[string]string
			served bool
		}{
			"here":            {served: true},
			"here, localhost": {host: "localhost:1234", served: true},
			"the same origin": {header: map[string]string{"Sec-Fetch-Site": "same-origin"}, served: true},
			"a name":          {host: "evil.example:8080"},
			"another site":    {header: map[string]string{"Sec-Fetch-Site": "cross-site"}},
			"another site, GET": {
				get: true, header: map[string]string{"Sec-Fetch-Site": "cross-site"},
			},
			"a proxy":       {header: map[string]string{"X-Forwarded-For": "203.0.113.9"}},
			"another proxy": {header: map[string]string{"Forwarded": "for=203.0.113.9"}},
		} {
			req := must(http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}")))
			req.Header.Set("Content-Type", "application/json")
			if tt.get {
				req = must(http.NewRequestWithContext(t.Context(), http.MethodGet, url+"?message={}&encoding=json&connect=v1", nil))
			}
			if tt.host != "" {
				req.Host = tt.host
			}
			for k, v := range tt.header {
				req.Header.Set(k, v)
			}
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
	hub := must(monitor.New(monitor.Config{}))
	config := local()
	config.Monitor, config.DrainTimeout = hub, 5*time.Minute
	s, stop := serve(t, policies(t), config)
	stream := must(throttlekitv1.NewMonitorClient(dial(t, s)).Watch(t.Context(), &throttlekitv1.WatchRequest{}))
	must(stream.Header()) // it watches
	req := must(http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+s.HTTPAddr().String()+"/throttlekit.v1.Monitor/Watch", strings.NewReader("\x00\x00\x00\x00\x02{}")))
	req.Header.Set("Content-Type", "application/connect+json")
	res, err := httpClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	until(t, "both watch", func() bool { return hub.Watchers() == 2 })
	e := service.Event{Policy: service.Info{Name: "p"}, Key: strings.Repeat("k", 100), At: time.UnixMilli(epoch)}
	dropped := hub.Snapshot(t.Context()).Watch.Dropped
	until(t, "neither reads any more", func() bool { // each second of theirs has room for some more
		for range 400 {
			e.At = e.At.Add(3 * time.Millisecond)
			hub.Decided(e)
		}
		return hub.Snapshot(t.Context()).Watch.Dropped > dropped+20_000
	})
	if err := stop(); err != nil {
		t.Errorf("got %v", err)
	}
}

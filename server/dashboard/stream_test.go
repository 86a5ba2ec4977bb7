package dashboard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// deadline bounds what should happen at once.
const deadline = 20 * time.Second

// serve runs a dashboard behind a server with timeouts like those of the HTTP door, only shorter. Over TLS it speaks HTTP/2.
func serve(tb testing.TB, d *Dashboard, overTLS bool) *httptest.Server {
	tb.Helper()
	server := httptest.NewUnstartedServer(d)
	server.Config.ReadTimeout, server.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	server.Config.RegisterOnShutdown(d.Close)
	if overTLS {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	tb.Cleanup(func() {
		d.Close()
		server.Close()
	})
	return server
}

// reader reads a stream of events.
type reader struct {
	tb     testing.TB
	answer *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

func read(tb testing.TB, server *httptest.Server, change ...func(*http.Request)) *reader {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), deadline)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/dashboard/events", http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	for _, c := range change {
		c(request)
	}
	answer, err := server.Client().Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		cancel()
		answer.Body.Close()
	})
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	return &reader{tb: tb, answer: answer, lines: lines, cancel: cancel}
}

// next is the next event, or false at the end of the stream.
func (r *reader) next() (event, data string, ok bool) {
	for r.lines.Scan() {
		line := r.lines.Text()
		if line == "" {
			return event, data, true
		}
		if v, is := strings.CutPrefix(line, "event: "); is {
			event = v
		} else if v, is := strings.CutPrefix(line, "data: "); is {
			data = v
		} else {
			r.tb.Errorf("got line %q", line)
		}
	}
	return "", "", false
}

// until reads up to the next event of a name.
func (r *reader) until(name string) (data string) {
	r.tb.Helper()
	for {
		event, data, ok := r.next()
		if !ok {
			r.tb.Fatalf("the stream ended before %q: %v", name, r.lines.Err())
		}
		if event == name {
			return data
		}
	}
}

// ended waits for the end.
func (r *reader) ended() {
	r.tb.Helper()
	for {
		if _, _, ok := r.next(); !ok {
			break
		}
	}
	if err := r.lines.Err(); err != nil {
		r.tb.Errorf("the stream did not end, it broke: %v", err)
	}
}

func denialsIn(tb testing.TB, data string) (d denials) {
	tb.Helper()
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestStream(t *testing.T) {
	t.Parallel()
	hub := hubOf(t)
	hub.Decided(denial("earlier"))
	s := serve(t, boardOf(t, Config{Source: hub, Interval: 100 * time.Millisecond}), false)
	r := read(t, s)
	if r.answer.StatusCode != http.StatusOK || r.answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %d, %v", r.answer.StatusCode, r.answer.Header)
	}
	if hello := r.until("hello"); hello != `{"intervalMs":100,"login":false}` {
		t.Errorf("got %s", hello)
	}
	if event, data, _ := r.next(); event != "snapshot" || !strings.Contains(data, `"recentDenials":[]`) ||
		!strings.Contains(data, `"name":"login"`) {
		t.Errorf("got %s %s", event, data)
	}
	if recent := denialsIn(t, r.until("recent")); len(recent.Events) != 1 || recent.Events[0].Key != "earlier" {
		t.Errorf("got %+v", recent)
	}
	hub.Decided(denial("line\nbreak: <b>"))
	if got := denialsIn(t, r.until("denials")); len(got.Events) != 1 || got.Events[0].Key != "line\nbreak: <b>" || got.Skipped != 0 {
		t.Errorf("got %+v", got)
	}
	for range 10 { // for longer than the server's timeouts
		r.until("snapshot")
	}
}

func TestGathered(t *testing.T) {
	t.Parallel()
	var g gathered
	for i := range 100 {
		g.take(monitor.Denial{At: int64(i)})
	}
	got := g.hand(7)
	if len(got.Events) != maxGathered || got.Events[0].At != 80 || got.Events[maxGathered-1].At != 99 || got.Skipped != 80+7 {
		t.Errorf("got %+v", got)
	}
	g.take(monitor.Denial{At: 100})
	if got := g.hand(9); len(got.Events) != 1 || got.Skipped != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, boardOf(t, Config{MaxStreams: 2}), false)
	first, second := read(t, s), read(t, s)
	first.until("recent")
	second.until("recent")
	third := read(t, s)
	if third.answer.StatusCode != http.StatusServiceUnavailable || third.answer.Header.Get("Retry-After") == "" {
		t.Fatalf("got %d", third.answer.StatusCode)
	}
	if text, err := io.ReadAll(third.answer.Body); !strings.Contains(string(text), "2 pages watch already") {
		t.Errorf("got %s, %v", text, err)
	}
	first.cancel()
	for ends := time.Now().Add(deadline); ; { // the place is free once the server has noticed
		if r := read(t, s); r.answer.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(ends) {
			t.Fatal("the place of a page that left is not free")
		}
	}
}

// A body that never comes would be waited for.
func TestStreamHasNoBody(t *testing.T) {
	t.Parallel()
	d := boardOf(t, Config{})
	for _, length := range []int64{10, -1} {
		r := request(http.MethodGet, "/dashboard/events")
		r.ContentLength = length
		if got := answer(d, r).status; got != http.StatusBadRequest {
			t.Errorf("length %d: got %d", length, got)
		}
	}
}

func TestStreamEndsWithItsRequest(t *testing.T) {
	t.Parallel()
	d := boardOf(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.ServeHTTP(httptest.NewRecorder(), request(http.MethodGet, "/dashboard/events").WithContext(ctx))
	}()
	cancel()
	select {
	case <-ended:
	case <-time.After(deadline):
		t.Fatal("the stream goes on")
	}
	if len(d.streams) != 0 {
		t.Error("its place is taken")
	}
}

func TestStreamsEndAtShutdown(t *testing.T) {
	t.Parallel()
	for name, overTLS := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := boardOf(t, Config{Interval: 100 * time.Millisecond})
			s := serve(t, d, overTLS)
			readers := []*reader{read(t, s), read(t, s), read(t, s)}
			for _, r := range readers {
				for range 6 { // for longer than the server's timeouts
					r.until("snapshot")
				}
				if r.answer.Proto != name {
					t.Errorf("over %s", r.answer.Proto)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			if err := s.Config.Shutdown(ctx); err != nil {
				t.Errorf("streams held the shutdown: %v", err)
			}
			for _, r := range readers {
				r.ended()
			}
			d.Close() // again
			if got := answer(d, request(http.MethodGet, "/dashboard/events")).status; got != 503 {
				t.Errorf("after the end: got %d", got)
			}
		})
	}
}

func TestStreamEndsWithItsSession(t *testing.T) {
	t.Parallel()
	key := secret
	d := boardOf(t, Config{Secret: &key, Interval: 100 * time.Millisecond})
	s := serve(t, d, false)
	token := d.sessions.open()
	r := read(t, s, func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: cookieName(request(http.MethodGet, "/", under(r.URL.Host))), Value: token})
	})
	if hello := r.until("hello"); hello != `{"intervalMs":100,"login":true}` {
		t.Errorf("got %s", hello)
	}
	r.until("recent")
	d.sessions.end(token)
	r.ended()
}

func TestManyReadAtOnce(t *testing.T) {
	t.Parallel()
	hub := hubOf(t)
	s := serve(t, boardOf(t, Config{Source: hub, Interval: 100 * time.Millisecond}), false)
	ctx, cancel := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	for i := range 2 {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				hub.Decided(denial(fmt.Sprintf("%d-%d", i, n%100)))
			}
		})
	}
	for range 8 {
		readers.Go(func() {
			r := read(t, s)
			for range 3 {
				if got := denialsIn(t, r.until("denials")); len(got.Events) == 0 || len(got.Events) > maxGathered {
					t.Errorf("%d denials at once", len(got.Events))
				}
			}
			r.until("snapshot")
		})
	}
	readers.Wait()
	cancel()
	writers.Wait()
}

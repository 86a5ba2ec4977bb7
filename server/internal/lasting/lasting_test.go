package lasting

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// soon bounds what should happen at once.
const soon = 20 * time.Second

// serve runs a handler behind a server whose own deadlines are short, and closes ending when the server shuts down.
func serve(t *testing.T, http2 bool, patience time.Duration, handler func(w *Writer, ending <-chan struct{})) *httptest.Server {
	t.Helper()
	ending := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		l := New(w, patience, ending)
		defer l.Close()
		handler(l, ending)
	}))
	s.Config.ReadTimeout, s.Config.WriteTimeout = time.Second, time.Second
	s.Config.RegisterOnShutdown(sync.OnceFunc(func() { close(ending) }))
	if http2 {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// get is the body of an answer that has begun.
func get(t *testing.T, s *httptest.Server) io.Reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		answer.Body.Close()
	})
	return answer.Body
}

func shutDown(t *testing.T, s *httptest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := s.Config.Shutdown(ctx); err != nil {
		t.Errorf("an answer held the shutdown: %v", err)
	}
}

// versions of HTTP, and whether each is the second.
var versions = map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true}

// An answer may pause for longer than the server's deadlines and its own patience.
func TestLasts(t *testing.T) {
	t.Parallel()
	for name, http2 := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, http2, time.Second, func(w *Writer, _ <-chan struct{}) {
				w.Last()
				w.Last()
				for range 3 {
					if _, err := io.WriteString(w, "x"); err != nil {
						t.Error(err)
					}
					if err := w.FlushError(); err != nil {
						t.Error(err)
					}
					<-time.After(1500 * time.Millisecond)
				}
			})
			if got, err := io.ReadAll(get(t, s)); string(got) != strings.Repeat("x", 3) || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// One that was not told to last ends as the server says.
func TestKeepsTheServersDeadline(t *testing.T) {
	t.Parallel()
	for name, http2 := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, http2, soon, func(w *Writer, _ <-chan struct{}) {
				_, _ = io.WriteString(w, "first")
				w.Flush()
				<-time.After(1500 * time.Millisecond)
				_, _ = io.WriteString(w, "second")
				w.Flush()
			})
			if got, err := io.ReadAll(get(t, s)); string(got) != "first" || err == nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// Answers that end at the moment at which they should leave nothing behind that touches their writers.
func TestEndsWithItsHandler(t *testing.T) {
	t.Parallel()
	for name, http2 := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, http2, soon, func(w *Writer, ending <-chan struct{}) {
				w.Last()
				w.Flush()
				<-ending
				_, _ = io.WriteString(w, "the end")
			})
			answers := make([]io.Reader, 20)
			for i := range answers {
				answers[i] = get(t, s)
			}
			shutDown(t, s)
			for _, a := range answers {
				if got, err := io.ReadAll(a); string(got) != "the end" || err != nil {
					t.Fatalf("got %q, %v", got, err)
				}
			}
		})
	}
}

// A reader that does not read is cut off: after patience at the latest, and soon if the answer should end.
func TestCutsReadersThatDoNotRead(t *testing.T) {
	t.Parallel()
	for name, http2 := range versions {
		for cause, patience := range map[string]time.Duration{"patience": 100 * time.Millisecond, "ending": time.Hour} {
			t.Run(name+" "+cause, func(t *testing.T) {
				t.Parallel()
				began, failed := make(chan struct{}), make(chan error, 1)
				s := serve(t, http2, patience, func(w *Writer, _ <-chan struct{}) {
					w.Last()
					w.Flush()
					close(began)
					piece := strings.Repeat("x", 1<<20)
					for {
						if _, err := io.WriteString(w, piece); err != nil {
							failed <- err
							return
						}
					}
				})
				get(t, s)
				<-began
				if patience == time.Hour {
					shutDown(t, s)
				}
				select {
				case <-failed:
				case <-time.After(soon):
					t.Error("it is not cut off")
				}
			})
		}
	}
}

// deadlines remembers the latest deadline that was set.
type deadlines struct {
	http.ResponseWriter

	latest time.Time
}

func (d *deadlines) SetReadDeadline(time.Time) error { return nil }

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.latest = t
	return nil
}

// What the server sends after the handler is the last piece, and has a deadline like the others.
func TestBoundsTheLastPiece(t *testing.T) {
	t.Parallel()
	for _, ends := range []bool{false, true} {
		d := &deadlines{ResponseWriter: httptest.NewRecorder()}
		ending := make(chan struct{})
		w := New(d, time.Hour, ending)
		w.Last()
		w.Flush()
		if ends {
			close(ending)
		}
		w.Close()
		if left := time.Until(d.latest); d.latest.IsZero() || (left < time.Minute) != ends {
			t.Errorf("ending %v: %v left", ends, left)
		}
	}
}

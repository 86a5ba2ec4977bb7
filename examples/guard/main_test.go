package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

// The example says who was let through, and which limit denied the others.
func Example() {
	main()
	// Output:
	// ann, while two are under way: 503 denied by concurrency
	// ann: 200
	// ann: 200
	// ann: 429 denied by rate
	// bob: 200
}

// However a request ends, its slot comes back, and only an overload lowers the limit.
func TestEndings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		next  http.HandlerFunc
		lower bool
	}{
		"done":     {next: func(http.ResponseWriter, *http.Request) {}},
		"overload": {next: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, lower: true},
		"panic":    {next: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: 2, InitialLimit: 50})
			if err != nil {
				t.Fatal(err)
			}
			admitter, err := admission.New(admission.Config{Guard: guard})
			if err != nil {
				t.Fatal(err)
			}
			func() {
				defer func() { _ = recover() }()
				protect(admitter, test.next).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			}()
			if s := guard.Stats(); s.InFlight != 0 || (s.Limit < 50) != test.lower {
				t.Errorf("%d in flight, the limit is %d", s.InFlight, s.Limit)
			}
		})
	}
}

// Command guard protects a handler within its own process, without a server of ThrottleKit: by how many requests are under
// way, which the guard learns from their latency, and by how many each user sends.
//
//	go run ./examples/guard
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/admission"
	"github.com/throttlekit/throttlekit-go/concurrency"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// limits are a guard, and a rate for each user. The window is long, so that none ends while the example runs.
func limits() (a *admission.Admitter, release func() error, err error) {
	guard, err := concurrency.NewGuard(concurrency.Config{MinLimit: 2, MaxLimit: 100})
	if err != nil {
		return nil, nil, err
	}
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{})
	if err != nil {
		return nil, nil, err
	}
	a, err = admission.New(admission.Config{
		Guard: guard,
		Rate:  &admission.Limit{Strategy: throttlekit.FixedWindow{Limit: 3, Window: 10_000 * 24 * time.Hour}},
		Store: store,
	})
	return a, func() error { return errors.Join(guard.Close(), store.Close()) }, err
}

// protect lets requests through that the limits admit, and tells them how each one ended.
func protect(limits *admission.Admitter, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := limits.Admit(r.Context(), admission.Request{Key: r.Header.Get("User")})
		switch {
		case err != nil:
			http.Error(w, "no decision", http.StatusInternalServerError)
			return
		case !a.Allowed:
			status := http.StatusTooManyRequests
			if a.Binding == admission.Concurrency {
				status = http.StatusServiceUnavailable // it is not the user's fault
			}
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(a.RetryAfter().Seconds()))))
			http.Error(w, "denied by "+string(a.Binding), status)
			return
		}
		defer a.Cancel() // if next panics; otherwise the permit has ended by then
		answer := &answering{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(answer, r)
		switch {
		case answer.status == http.StatusServiceUnavailable || answer.status == http.StatusGatewayTimeout:
			a.Drop() // what next stands for is overloaded: let fewer through
		case r.Context().Err() != nil:
			a.Cancel() // the user has left, so how long it took says nothing
		default:
			a.Release()
		}
	})
}

// answering remembers the status of an answer.
type answering struct {
	http.ResponseWriter

	status int
}

// WriteHeader implements [http.ResponseWriter].
func (a *answering) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func run(ctx context.Context) (err error) {
	admitter, release, err := limits()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	begun, finish := make(chan struct{}), make(chan struct{})
	handler := protect(admitter, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-finish
		}
		w.WriteHeader(http.StatusOK)
	}))
	ask := func(user, path string) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		req.Header.Set("User", user)
		res := httptest.NewRecorder()
		handler.ServeHTTP(res, req)
		return res
	}

	// Two slow requests take all there is at the beginning. Whoever comes then is not charged for having come.
	var slow sync.WaitGroup
	for _, user := range []string{"ann", "bob"} {
		slow.Go(func() { ask(user, "/slow") })
		<-begun
	}
	fmt.Println("ann, while two are under way:", told(ask("ann", "/")))
	close(finish)
	slow.Wait()

	for range 3 {
		fmt.Println("ann:", told(ask("ann", "/")))
	}
	fmt.Println("bob:", told(ask("bob", "/")))
	return nil
}

// told is an answer in words.
func told(res *httptest.ResponseRecorder) string {
	if res.Code == http.StatusOK {
		return "200"
	}
	return fmt.Sprintf("%d %s", res.Code, res.Body.String()[:res.Body.Len()-1])
}

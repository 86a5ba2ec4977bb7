package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// What someone sees who tries the HTTP door by hand.
func TestHTTPByHand(t *testing.T) {
	t.Parallel()
	s, _ := serve(t, policies(t, meter{"tokens", newMeter(t)}), local())
	client := httpClient(t)
	const (
		check = "/throttlekit.v1.RateLimiter/Check"
		debit = "/throttlekit.v1.RateLimiter/Debit"
	)
	for _, test := range []struct {
		name              string
		method, path      string
		contentType, body string
		status            int
		wants             []string
	}{
		{
			"check", http.MethodPost, check, "application/json", `{"policy":"five","key":"me"}`, 200,
			[]string{`"allowed":true`, `"limit":"5"`, `"remaining":"4"`, `"resetAt":"17`, `"retryAfterMs":"0"`},
		},
		{
			"a denial says so", http.MethodPost, check, "application/json; charset=utf-8", `{"policy":"five","key":"you","cost":6}`, 200,
			[]string{`"allowed":false`, `"remaining":"5"`},
		},
		{"cost as text", http.MethodPost, check, "application/json", `{"policy":"five","key":"text","cost":"2"}`, 200, []string{`"remaining":"3"`}},
		{
			"peek by GET", http.MethodGet,
			"/throttlekit.v1.RateLimiter/Peek?connect=v1&encoding=json&message=" + url.QueryEscape(`{"policy":"five","key":"peeked"}`),
			"", "", 200,
			[]string{`"remaining":"5"`},
		},
		{"unknown policy", http.MethodPost, check, "application/json", `{"policy":"nine"}`, 404, []string{`"code":"not_found"`, `\"five\"`}},
		{"negative cost", http.MethodPost, check, "application/json", `{"policy":"five","cost":-1}`, 400, []string{`"code":"invalid_argument"`, "cost"}},
		{"debit of no meter", http.MethodPost, debit, "application/json", `{"policy":"five"}`, 501, []string{`"code":"unimplemented"`}},
		{
			"debit", http.MethodPost, debit, "application/json", `{"policy":"tokens","key":"me","tokens":12}`, 200,
			[]string{`"allowed":true`, `"limit":"10"`, `"remaining":"0"`, `"resetAt":"17`, `"retryAfterMs":"0"`},
		},
		{"debit of 0 tokens", http.MethodPost, debit, "application/json", `{"policy":"tokens","key":"you","tokens":"0"}`, 200, []string{`"remaining":"9"`}},
		{"debit without tokens", http.MethodPost, debit, "application/json", `{"policy":"tokens","key":"they"}`, 200, []string{`"remaining":"9"`}},
		{
			"negative debit", http.MethodPost, debit, "application/json", `{"policy":"tokens","tokens":-1}`, 400,
			[]string{`"code":"invalid_argument"`, "tokens must be an integer from 1"},
		},
		{"debit of an unknown policy", http.MethodPost, debit, "application/json", `{"policy":"nine"}`, 404, []string{`"code":"not_found"`}},
		{"debit by GET", http.MethodGet, debit, "", "", 405, nil},
		{"no JSON", http.MethodPost, check, "application/json", `policy=five`, 400, []string{`"code":"invalid_argument"`}},
		{"no body", http.MethodPost, check, "application/json", ``, 400, []string{`"code":"invalid_argument"`}},
		{"a key of another type", http.MethodPost, check, "application/json", `{"policy":"five","key":7}`, 400, []string{`"code":"invalid_argument"`}},
		{"a fractional cost", http.MethodPost, check, "application/json", `{"policy":"five","cost":1.5}`, 400, []string{`"code":"invalid_argument"`}},
		{"a cost beyond int64", http.MethodPost, check, "application/json", `{"policy":"five","cost":1e300}`, 400, []string{`"code":"invalid_argument"`}},
		{"JSON of no text", http.MethodPost, check, "application/json", "{\"policy\":\"five\",\"key\":\"\xff\"}", 400, []string{`"code":"invalid_argument"`}},
		{"half a surrogate", http.MethodPost, check, "application/json", `{"policy":"five","key":"\ud800"}`, 400, []string{`"code":"invalid_argument"`}},
		{"NUL and emoji", http.MethodPost, check, "application/json", `{"policy":"five","key":"\u0000🚦"}`, 200, []string{`"allowed":true`}},
		{"the type that curl sends", http.MethodPost, check, "application/x-www-form-urlencoded", `{}`, 415, []string{"application/json"}},
		{"no type", http.MethodPost, check, "", `{}`, 415, []string{"application/json"}},
		{"an odd type", http.MethodPost, check, "text/csv", `{}`, 415, nil},
		{"check by GET", http.MethodGet, check, "", "", 405, nil},
		{"unknown path", http.MethodGet, "/check", "", "", 404, []string{`"code":"unimplemented"`, "/check", check}},
		{"unknown method", http.MethodPost, "/throttlekit.v1.RateLimiter/Guess", "application/json", `{}`, 404, []string{`"code":"unimplemented"`, "Guess"}},
		{"unknown service", http.MethodPost, "/throttlekit.v1.Monitor/GetSnapshot", "application/json", `{}`, 404, []string{"POST"}},
		{"root", http.MethodGet, "/", "", "", 404, []string{check}},
		{"health", http.MethodGet, "/healthz", "", "", 200, []string{"ok"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := send(t, client, test.method, "http://"+s.HTTPAddr().String()+test.path, test.contentType, test.body)
			if got.status != test.status {
				t.Errorf("got %d, want %d: %s", got.status, test.status, got.body)
			}
			flat := strings.ReplaceAll(strings.ReplaceAll(got.body, `": `, `":`), `, "`, `,"`) // protojson varies its spaces
			for _, want := range test.wants {
				if !strings.Contains(flat, want) {
					t.Errorf("%q does not contain %q", flat, want)
				}
			}
			if strings.HasPrefix(test.path, "/throttlekit.v1.RateLimiter/") && test.status == http.StatusOK && got.header.Get("Cache-Control") != "no-store" {
				t.Error("an answer may be cached")
			}
		})
	}
}

func TestHTTPHealthWhileDraining(t *testing.T) {
	t.Parallel()
	health := newHealth()
	handler := must(newHTTPHandler(&doors{limiter: newRateLimiter(policies(t)), health: health, log: discard}))
	for _, want := range []struct {
		status int
		body   string
	}{{200, "ok"}, {503, "draining"}} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		if body, _ := io.ReadAll(w.Body); w.Code != want.status || string(body) != want.body {
			t.Errorf("got %d %q, want %d %q", w.Code, body, want.status, want.body)
		}
		health.drain()
	}
}

package dashboard

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "correct horse"

// hubOf is a hub without a service, to which tests tell decisions.
func hubOf(tb testing.TB) *monitor.Hub {
	tb.Helper()
	hub, err := monitor.New(monitor.Config{Node: "node-1", Backend: "memory"})
	if err != nil {
		tb.Fatal(err)
	}
	return hub
}

func boardOf(tb testing.TB, config Config) *Dashboard {
	tb.Helper()
	if config.Source == nil {
		config.Source = hubOf(tb)
	}
	d, err := New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// denial is a decision that denied a key.
func denial(key string) service.Event {
	return service.Event{
		Policy: service.Info{Name: "login", Kind: "plain", Strategy: "gcra", Limit: 5}, Key: key, Cost: 1, At: time.Now(),
		Decision: throttlekit.Decision{Limit: 5, RetryAfterMillis: 7},
	}
}

// request is one from this machine, unless changed.
func request(method, target string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:40000", "localhost:8080"
	for _, c := range change {
		c(r)
	}
	return r
}

func from(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
func under(host string) func(*http.Request) {
	return func(r *http.Request) { r.Host = host }
}

func with(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func overTLS(r *http.Request) { r.TLS = &tls.ConnectionState{} }

// form makes a request carry a form.
func form(values url.Values) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Body = io.NopCloser(strings.NewReader(values.Encode()))
	}
}

func presents(s string) func(*http.Request) { return form(url.Values{"secret": {s}}) }

// reply is what came back.
type reply struct {
	status  int
	header  http.Header
	cookies []*http.Cookie
	text    string
}

func answer(d http.Handler, r *http.Request) reply {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	result := w.Result()
	defer result.Body.Close()
	return reply{w.Code, w.Header(), result.Cookies(), w.Body.String()}
}

// login logs in, and makes requests carry the session.
func login(tb testing.TB, d http.Handler, change ...func(*http.Request)) func(*http.Request) {
	tb.Helper()
	got := answer(d, request(http.MethodPost, "/dashboard/login", append(change, presents(secret))...))
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/" || len(got.cookies) != 1 {
		tb.Fatalf("login: %d, %v", got.status, got.header)
	}
	return func(r *http.Request) { r.AddCookie(got.cookies[0]) }
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Interval: time.Millisecond, MaxStreams: -1})
	for _, field := range []string{"Source", "Interval", "MaxStreams"} {
		if !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named: %v", field, err)
		}
	}
	for _, config := range []Config{{Interval: 11 * time.Second}, {Interval: -1}, {MaxStreams: 1001}} {
		config.Source = hubOf(t)
		if _, err := New(config); !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%+v: got %v", config, err)
		}
	}
}

func TestWithoutSecret(t *testing.T) {
	t.Parallel()
	d := boardOf(t, Config{Host: "Throttle.internal"})
	for _, test := range []struct {
		name   string
		change []func(*http.Request)
		want   int
	}{
		{"localhost", nil, 200},
		{"IPv4", []func(*http.Request){under("127.0.0.1:8080")}, 200},
		{"IPv6", []func(*http.Request){from("[::1]:40000"), under("[::1]:8080")}, 200},
		{"IPv6 without a port", []func(*http.Request){from("[::1]:40000"), under("[::1]")}, 200},
		{"IPv4 in IPv6", []func(*http.Request){from("[::ffff:127.0.0.1]:40000")}, 200},
		{"another loopback address", []func(*http.Request){from("127.9.9.9:1")}, 200},
		{"the bound name", []func(*http.Request){under("throttle.internal:8080")}, 200},
		{"another machine", []func(*http.Request){from("10.0.0.9:40000")}, 403},
		{"another machine, IPv6", []func(*http.Request){from("[2001:db8::1]:40000")}, 403},
		{"no address", []func(*http.Request){from("@")}, 403},
		{"a name that leads here", []func(*http.Request){under("evil.example:8080")}, 403},
		{"a name that begins like an address", []func(*http.Request){under("127.0.0.1.evil.example")}, 403},
		{"a name that begins like ours", []func(*http.Request){under("localhost.evil.example")}, 403},
		{"no name", []func(*http.Request){under("")}, 403},
		{"a proxy", []func(*http.Request){with("X-Forwarded-For", "203.0.113.9")}, 403},
		{"a modern proxy", []func(*http.Request){with("Forwarded", "for=203.0.113.9")}, 403},
	} {
		for _, path := range []string{"/", "/dashboard/snapshot", "/dashboard/app.js"} {
			if got := answer(d, request(http.MethodGet, path, test.change...)).status; got != test.want {
				t.Errorf("%s, %s: got %d, want %d", test.name, path, got, test.want)
			}
		}
	}
	for site, want := range map[string]int{"same-origin": 200, "none": 200, "same-site": 403, "cross-site": 403} {
		if got := answer(d, request(http.MethodGet, "/dashboard/snapshot", with("Sec-Fetch-Site", site))).status; got != want {
			t.Errorf("%s: got %d, want %d", site, got, want)
		}
	}
	link := func(r *http.Request) {
		r.Header = http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	}
	for path, want := range map[string]int{"/": 200, "/dashboard/snapshot": 403, "/dashboard/events": 403} {
		if got := answer(d, request(http.MethodGet, path, link)).status; got != want {
			t.Errorf("a link on another site to %s: got %d, want %d", path, got, want)
		}
	}
	if got := answer(d, request(http.MethodPost, "/dashboard/login", presents("x"))); got.status != 303 || len(got.cookies) != 0 {
		t.Errorf("there is nothing to log in to: got %d, %v", got.status, got.cookies)
	}
}

func TestWithSecret(t *testing.T) {
	t.Parallel()
	s := secret
	d := boardOf(t, Config{Secret: &s})
	data := []string{"/dashboard/snapshot", "/dashboard/events"}
	for _, change := range []func(*http.Request){
		from("127.0.0.1:1"), from("10.0.0.9:1"), with("Cookie", "throttlekit-8080=nonsense"), with("Cookie", "throttlekit-8080="),
		with("X-Monitor-Secret", secret), with("Authorization", "Bearer "+secret), // the form is the only way in
	} {
		for _, path := range data {
			if got := answer(d, request(http.MethodGet, path, change)).status; got != 401 {
				t.Errorf("%s: got %d", path, got)
			}
			if got := answer(d, request(http.MethodGet, path+"?secret="+url.QueryEscape(secret), change)).status; got != 401 {
				t.Errorf("%s with the secret in its URL: got %d", path, got)
			}
		}
		page := answer(d, request(http.MethodGet, "/", change))
		if text := page.text; page.status != 200 || !strings.Contains(text, `name="secret"`) || strings.Contains(text, "app.js") {
			t.Errorf("not the form: %d %s", page.status, text)
		}
	}
	// Whoever has logged in may come from anywhere, under any name.
	for _, change := range []func(*http.Request){from("10.0.0.9:1"), under("throttle.example"), from("127.0.0.1:2")} {
		session := login(t, d, change)
		if got := answer(d, request(http.MethodGet, "/dashboard/snapshot", change, session)); got.status != 200 {
			t.Errorf("got %d", got.status)
		}
		if text := answer(d, request(http.MethodGet, "/", change, session)).text; !strings.Contains(text, "app.js") {
			t.Errorf("not the page: %s", text)
		}
		if got := answer(d, request(http.MethodPost, "/dashboard/logout", change, session)); got.status != 303 || got.cookies[0].MaxAge >= 0 {
			t.Errorf("logout: got %d, %v", got.status, got.cookies)
		}
		if got := answer(d, request(http.MethodGet, "/dashboard/snapshot", change, session)).status; got != 401 {
			t.Errorf("after the logout: got %d", got)
		}
	}
}

func TestLoginRefuses(t *testing.T) {
	t.Parallel()
	s := secret
	d := boardOf(t, Config{Secret: &s})
	try := func(change ...func(*http.Request)) int {
		return answer(d, request(http.MethodPost, "/dashboard/login", change...)).status
	}
	for i, test := range []struct {
		name   string
		change []func(*http.Request)
		want   int
	}{
		{"a wrong secret", []func(*http.Request){presents("Correct horse")}, 401},
		{"a prefix", []func(*http.Request){presents("correct hors")}, 401},
		{"nothing", []func(*http.Request){presents("")}, 401},
		{"no form", nil, 401},
		{"a secret in the URL", []func(*http.Request){func(r *http.Request) { r.URL.RawQuery = "secret=correct+horse" }, presents("")}, 401},
		{"a form too large", []func(*http.Request){presents(strings.Repeat("x", maxForm))}, 400},
		{"another origin", []func(*http.Request){with("Origin", "https://evil.example"), presents(secret)}, 403},
		{"another site", []func(*http.Request){with("Sec-Fetch-Site", "cross-site"), presents(secret)}, 403},
		{"a sibling site", []func(*http.Request){with("Sec-Fetch-Site", "same-site"), presents(secret)}, 403},
		{"no origin at all", []func(*http.Request){with("Origin", "null"), presents(secret)}, 403},
		{"no address", []func(*http.Request){func(r *http.Request) { r.RemoteAddr = "@" }, presents(secret)}, 403},
		{"the same origin", []func(*http.Request){with("Origin", "http://localhost:8080"), presents(secret)}, 303},
	} {
		peer := from("10.0.1." + strconv.Itoa(i) + ":1") // each with attempts of its own
		if got := try(append([]func(*http.Request){peer}, test.change...)...); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
	if got := answer(d, request(http.MethodGet, "/dashboard/login")).status; got != 405 {
		t.Errorf("GET: got %d", got)
	}
}

func TestAttemptsAreLimited(t *testing.T) {
	t.Parallel()
	s := secret
	d := boardOf(t, Config{Secret: &s})
	clock := throttlekit.NewManualClock(1_795_000_000_000)
	var err error
	if d.attempts, err = newAttempts(clock); err != nil {
		t.Fatal(err)
	}
	try := func(addr, secret string) reply {
		return answer(d, request(http.MethodPost, "/dashboard/login", from(addr), presents(secret)))
	}
	for range 5 {
		if got := try("10.0.0.9:1", "wrong").status; got != 401 {
			t.Fatalf("got %d", got)
		}
	}
	// Neither another port nor the right secret helps now: a guesser learns nothing more.
	got := try("10.0.0.9:2", secret)
	if got.status != 429 || got.header.Get("Retry-After") != "12" || len(got.cookies) != 0 {
		t.Errorf("got %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
	if text := got.text; !strings.Contains(text, "Wait 12 s") {
		t.Errorf("got %s", text)
	}
	if got := try("10.0.0.8:1", secret).status; got != 303 {
		t.Errorf("another address: got %d", got)
	}
	clock.Set(1_795_000_000_000 + 12_000)
	if got := try("10.0.0.9:1", secret).status; got != 303 {
		t.Errorf("12 s later: got %d", got)
	}
	for i := range 5 {
		try("[2001:db8::"+strconv.Itoa(i)+"]:1", "wrong")
	}
	if got := try("[2001:db8::ffff]:1", secret).status; got != 429 {
		t.Errorf("the same network: got %d", got)
	}
	if got := try("[2001:db8:0:1::1]:1", secret).status; got != 303 {
		t.Errorf("another network: got %d", got)
	}
}

func TestEmptySecretLocks(t *testing.T) {
	t.Parallel()
	empty := ""
	d := boardOf(t, Config{Secret: &empty})
	for _, s := range []string{"", "x", "\x00"} {
		got := answer(d, request(http.MethodPost, "/dashboard/login", presents(s)))
		if got.status != 401 || len(got.cookies) != 0 || !strings.Contains(got.text, "locked") {
			t.Errorf("%q: got %d", s, got.status)
		}
	}
	if got := answer(d, request(http.MethodGet, "/dashboard/snapshot")).status; got != 401 {
		t.Errorf("got %d", got)
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	s := secret
	d := boardOf(t, Config{Secret: &s})
	cookie := func(change ...func(*http.Request)) *http.Cookie {
		return answer(d, request(http.MethodPost, "/dashboard/login", append(change, presents(secret))...)).cookies[0]
	}
	plain, safe := cookie(), cookie(overTLS)
	for _, c := range []*http.Cookie{plain, safe} {
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 12*3600 || len(c.Value) < 26 {
			t.Errorf("got %+v", c)
		}
	}
	if plain.Secure || plain.Name != "throttlekit-8080" || !safe.Secure || safe.Name != "__Host-throttlekit-8080" ||
		plain.Value == safe.Value {
		t.Errorf("got %+v and %+v", plain, safe)
	}
	for host, want := range map[string]string{"dash.example": "throttlekit", "[::1]:9": "throttlekit-9", "a:b;c": "throttlekit"} {
		if got := cookieName(request(http.MethodGet, "/", under(host))); got != want {
			t.Errorf("%s: got %s, want %s", host, got, want)
		}
	}
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_795_000_000_000)
	s := newSessions(func() time.Time { return now })
	tokens := make([]string, 0, maxSessions+2)
	for range maxSessions + 2 {
		tokens = append(tokens, s.open())
		now = now.Add(time.Second)
	}
	if len(s.ends) != maxSessions {
		t.Errorf("%d sessions", len(s.ends))
	}
	for i, token := range tokens {
		if got, want := s.has(token), i >= 2; got != want {
			t.Errorf("session %d: got %v, want %v", i, got, want)
		}
	}
	last := tokens[len(tokens)-1]
	now = now.Add(sessionLife - time.Second - time.Millisecond)
	if !s.has(last) {
		t.Error("a session ends before its time")
	}
	now = now.Add(time.Millisecond)
	if s.has(last) || s.has("") || s.has("x") {
		t.Error("a session lasts beyond its time, or one was never opened")
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := secret
	d := boardOf(t, Config{Secret: &s})
	for _, r := range []*http.Request{
		request(http.MethodGet, "/"), request(http.MethodGet, "/dashboard/app.js"), request(http.MethodGet, "/dashboard/app.css"),
		request(http.MethodGet, "/dashboard/snapshot"), request(http.MethodGet, "/dashboard/nothing"),
		request(http.MethodPost, "/dashboard/login"), request(http.MethodDelete, "/"),
		request(http.MethodPost, "/dashboard/login", with("Origin", "http://evil.example")),
	} {
		h := answer(d, r).header
		if h.Get("Content-Security-Policy") != contentSecurityPolicy || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("Cache-Control") != "no-store" || !slices.Contains([]string{"no-referrer", "same-origin"}, h.Get("Referrer-Policy")) ||
			h.Get("X-Frame-Options") != "DENY" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: %v", r.Method, r.URL, h)
		}
	}
	session := login(t, d)
	if got := answer(d, request(http.MethodGet, "/", session)).header.Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("the page refers: %s", got)
	}
	if strings.Contains(contentSecurityPolicy, "unsafe") {
		t.Error("the policy has unsafe parts")
	}
}

// What the policy of the page forbids must not be in its files.
func TestFilesKeepTheirPolicy(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+="|<style|<script>|javascript:|@import|url\(|https?://` +
		`|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	namespace := regexp.MustCompile(`http://www\.w3\.org/2000/svg`)
	err := fs.WalkDir(pages, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := pages.ReadFile(path)
		if found := forbidden.FindString(namespace.ReplaceAllString(string(content), "")); found != "" {
			t.Errorf("%s has %q", path, found)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	hub := hubOf(t)
	d := boardOf(t, Config{Source: hub})
	hub.Decided(denial("<script>"))
	got := answer(d, request(http.MethodGet, "/dashboard/snapshot"))
	text := got.text
	if got.header.Get("Content-Type") != "application/json" || strings.Contains(text, "<script>") {
		t.Errorf("got %v %s", got.header, text)
	}
	var document struct {
		Meta          struct{ NodeID string }
		RecentDenials []struct{ Policy, Key string }
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	if document.Meta.NodeID != "node-1" || len(document.RecentDenials) != 1 || document.RecentDenials[0].Key != "<script>" {
		t.Errorf("got %+v", document)
	}
}

// counting counts the snapshots that are made.
type counting struct {
	*monitor.Hub

	n atomic.Int64
}

func (c *counting) Snapshot(ctx context.Context) monitor.Snapshot {
	c.n.Add(1)
	return c.Hub.Snapshot(ctx)
}

func TestSnapshotsAreShared(t *testing.T) {
	t.Parallel()
	source := &counting{Hub: hubOf(t)}
	d := boardOf(t, Config{Source: source, Interval: 10 * time.Second})
	var readers sync.WaitGroup
	for range 50 {
		readers.Go(func() {
			if got := answer(d, request(http.MethodGet, "/dashboard/snapshot")).status; got != 200 {
				t.Errorf("got %d", got)
			}
		})
	}
	readers.Wait()
	if n := source.n.Load(); n != 1 {
		t.Errorf("%d snapshots were made", n)
	}
	// Whoever waits for one can leave.
	d.making <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := d.look(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-d.making
}

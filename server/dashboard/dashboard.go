package dashboard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/monitor"
)

const (
	// DefaultInterval is how often a page gets a snapshot if nothing else is said.
	DefaultInterval = time.Second
	// DefaultMaxStreams is how many pages may watch at once if nothing else is said.
	DefaultMaxStreams = 32
)

// snapshotTimeout bounds the making of one snapshot.
const snapshotTimeout = 5 * time.Second

// policy of the page: its own files, no inline code, no frame around it, and no string that becomes markup.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed page
var pages embed.FS

// Source is what a dashboard shows. A [monitor.Hub] is one.
type Source interface {
	// Snapshot tells what is known now.
	Snapshot(ctx context.Context) monitor.Snapshot
	// Watch subscribes to the denials of a policy, or of all if its name is empty.
	Watch(policy string) (*monitor.Subscription, error)
}

// Config says what a dashboard shows, and to whom.
type Config struct {
	// Source must be given.
	Source Source
	// Secret is what everybody must log in with. Nil means that there is none, and then only callers on this machine may
	// look. An empty one lets nobody in.
	Secret *string
	// Host is the name that the HTTP door is bound to, if it is neither an address nor localhost. Without a secret, requests
	// under any other name are refused.
	Host string
	// Interval is how often a page gets a snapshot, from 100 ms to 10 s. Defaults to DefaultInterval.
	Interval time.Duration
	// MaxStreams is how many pages may watch at once, from 1 to 1000; those beyond are told so, and ask for a snapshot every few
	// seconds instead. Defaults to DefaultMaxStreams.
	MaxStreams int
	// Logger is told of logins, refused ones included, and never of secrets. Nil discards it.
	Logger *slog.Logger
}

// Dashboard is the handler for "/" and for everything below "/dashboard/". It is safe for concurrent use.
type Dashboard struct {
	config   Config
	log      *slog.Logger
	mux      *http.ServeMux
	form     *template.Template
	origins  *http.CrossOriginProtection
	secret   *[sha256.Size]byte // digest of the secret; nil means none
	attempts *throttlekit.Limiter
	sessions sessions

	complained, unheard atomic.Int64 // when the next failed login is logged, in nanoseconds; those not logged since

	streams chan struct{} // holds a token for each open stream
	closing sync.Once
	closed  chan struct{}

	making chan struct{} // holds a token while a snapshot is made or looked at
	made   time.Time
	latest monitor.Snapshot
	live   []byte // latest, without what a stream brings by itself
}

// New returns a dashboard. The error matches [throttlekit.ErrInvalid] and names everything that is wrong.
func New(config Config) (*Dashboard, error) {
	config.Interval = cmp.Or(config.Interval, DefaultInterval)
	config.MaxStreams = cmp.Or(config.MaxStreams, DefaultMaxStreams)
	var wrong []error
	require := func(ok bool, field string, value any, rule string) {
		if !ok {
			wrong = append(wrong, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
		}
	}
	require(config.Source != nil, "Source", nil, "must be given")
	require(config.Interval >= 100*time.Millisecond && config.Interval <= 10*time.Second,
		"Interval", config.Interval, "must be from 100ms to 10s")
	require(config.MaxStreams >= 1 && config.MaxStreams <= 1000, "MaxStreams", config.MaxStreams, "must be from 1 to 1000")
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	form, err := template.ParseFS(pages, "page/login.html")
	if err != nil {
		return nil, err
	}
	d := &Dashboard{
		config: config, log: config.Logger, mux: http.NewServeMux(), form: form, origins: http.NewCrossOriginProtection(),
		sessions: newSessions(time.Now), streams: make(chan struct{}, config.MaxStreams),
		closed: make(chan struct{}), making: make(chan struct{}, 1),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if config.Secret != nil {
		digest := sha256.Sum256([]byte(*config.Secret))
		d.secret = &digest
		if d.attempts, err = newAttempts(throttlekit.SystemClock{}); err != nil {
			return nil, err
		}
	}
	d.route()
	return d, nil
}

func (d *Dashboard) route() {
	d.mux.HandleFunc("GET /{$}", d.page)
	for name, contentType := range map[string]string{
		"app.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		d.mux.HandleFunc("GET /dashboard/"+name, func(w http.ResponseWriter, _ *http.Request) { d.file(w, name, contentType) })
	}
	d.mux.HandleFunc("GET /dashboard/events", d.guarded(d.events))
	d.mux.HandleFunc("GET /dashboard/snapshot", d.guarded(d.snapshot))
	d.mux.HandleFunc("POST /dashboard/login", d.login)
	d.mux.HandleFunc("POST /dashboard/logout", d.logout)
}

// ServeHTTP implements [http.Handler].
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	if d.secret == nil && !d.local(r) {
		http.Error(w, "Without a monitor secret, the dashboard is for callers on its own machine, under its address or as localhost.",
			http.StatusForbidden)
		return
	}
	if err := d.origins.Check(r); err != nil {
		http.Error(w, "This request comes from another site.", http.StatusForbidden)
		return
	}
	d.mux.ServeHTTP(w, r)
}

// Close ends all streams, and refuses new ones. [http.Server.Shutdown] waits for handlers and tells them nothing, so it should be
// registered there. It may be called more than once.
func (d *Dashboard) Close() { d.closing.Do(func() { close(d.closed) }) }

// page is the page, or the form for whoever has not logged in.
func (d *Dashboard) page(w http.ResponseWriter, r *http.Request) {
	if !d.loggedIn(r) {
		d.ask(w, r, http.StatusOK, "")
		return
	}
	d.file(w, "index.html", "text/html; charset=utf-8")
}

func (d *Dashboard) file(w http.ResponseWriter, name, contentType string) {
	content, err := pages.ReadFile("page/" + name)
	if err != nil {
		http.Error(w, "There is no such file.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(content) // a caller that went away needs no answer
}

// snapshot is the document, whole.
func (d *Dashboard) snapshot(w http.ResponseWriter, r *http.Request) {
	s, _, err := d.look(r.Context())
	var document []byte
	if err == nil {
		document, err = s.JSON()
	}
	if err != nil {
		http.Error(w, "There is no snapshot now.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(document) // a caller that went away needs no answer
}

// look is the latest snapshot, and its document for streams. All who look share one for half of an interval.
func (d *Dashboard) look(ctx context.Context) (s monitor.Snapshot, live []byte, err error) {
	select {
	case d.making <- struct{}{}:
	case <-ctx.Done():
		return s, nil, ctx.Err()
	}
	defer func() { <-d.making }()
	if d.live != nil && time.Since(d.made) < d.config.Interval/2 {
		return d.latest, d.live, nil
	}
	s = d.fresh(ctx)
	if live, err = document(s); err != nil {
		return s, nil, err
	}
	d.made, d.latest, d.live = time.Now(), s, live
	return s, live, nil
}

// fresh is a snapshot of now.
func (d *Dashboard) fresh(ctx context.Context) monitor.Snapshot {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	return d.config.Source.Snapshot(ctx)
}

// document is a snapshot without its denials, of which a stream tells by itself.
func document(s monitor.Snapshot) ([]byte, error) {
	s.RecentDenials = []monitor.Denial{}
	return json.Marshal(s)
}

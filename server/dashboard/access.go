package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server/internal/origin"
)

const (
	// sessionLife is how long a login lasts.
	sessionLife = 12 * time.Hour
	// maxSessions is how many logins last at once. The oldest one ends when another is made.
	maxSessions = 1000
	// maxPeers bounds the addresses whose attempts are counted. When all of them have tried lately, no other one may.
	maxPeers = 10_000
	// maxForm is the size of the largest login form, in bytes.
	maxForm = 16 << 10
)

// newAttempts allows each address five attempts to log in, and one more every 12 s.
func newAttempts(clock throttlekit.Clock) (*throttlekit.Limiter, error) {
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock, MaxKeys: maxPeers})
	if err != nil {
		return nil, err
	}
	return throttlekit.NewLimiter(throttlekit.GCRA{Limit: 5, Period: time.Minute}, throttlekit.WithStore(store))
}

// local reports whether a request comes from this machine, and was meant for it.
func (d *Dashboard) local(r *http.Request) bool {
	return peerOf(r).IsLoopback() && origin.Meant(r, d.config.Host)
}

// peerOf is the address of the caller, or invalid.
func peerOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// guarded lets pass who has logged in, from the page itself. Another site could not read the answer, but could hold streams open.
func (d *Dashboard) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case origin.FromOtherSite(r):
			http.Error(w, "This request comes from another site.", http.StatusForbidden)
		case !d.loggedIn(r):
			http.Error(w, "Log in at / first.", http.StatusUnauthorized)
		default:
			next(w, r)
		}
	}
}

// loggedIn reports whether the caller may look, who has passed as local if there is no secret.
func (d *Dashboard) loggedIn(r *http.Request) bool {
	if d.secret == nil {
		return true
	}
	cookie, err := r.Cookie(cookieName(r))
	return err == nil && d.sessions.has(cookie.Value)
}

// cookieName tells servers on one host apart by their ports, for which cookies do not care.
func cookieName(r *http.Request) string {
	name := "throttlekit"
	if r.TLS != nil {
		name = "__Host-throttlekit" // browsers take it over TLS only, for this very host
	}
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		return name
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return name
	}
	return name + "-" + port
}

// login exchanges the secret for a session.
func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) {
	if d.secret == nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	peer := peerOf(r)
	// Whoever has an IPv6 address has 2^64 of them.
	network, err := peer.Prefix(min(peer.BitLen(), 64))
	if err != nil || !peer.IsValid() {
		d.ask(w, r, http.StatusForbidden, "This server cannot tell where you are.")
		return
	}
	decision, err := d.attempts.Check(r.Context(), network.String())
	if err != nil || !decision.Allowed {
		seconds := max(1, (decision.RetryAfterMillis+999)/1000)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
		d.complain(r, "dashboard: too many attempts to log in", peer)
		d.ask(w, r, http.StatusTooManyRequests, "Too many attempts. Wait "+strconv.FormatInt(seconds, 10)+" s and try again.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		d.ask(w, r, http.StatusBadRequest, "The form could not be read.")
		return
	}
	digest := sha256.Sum256([]byte(r.PostForm.Get("secret"))) // what stands in the URL is not looked at
	if subtle.ConstantTimeCompare(digest[:], d.secret[:]) != 1 || d.lockedForGood() {
		d.complain(r, "dashboard: wrong secret", peer)
		d.ask(w, r, http.StatusUnauthorized, "That is not the secret.")
		return
	}
	d.log.InfoContext(r.Context(), "dashboard: logged in", "peer", peer.String())
	if r.TLS == nil && !peer.IsLoopback() {
		d.log.WarnContext(r.Context(), "dashboard: the secret came in plaintext from another machine", "peer", peer.String())
	}
	http.SetCookie(w, sessionCookie(r, d.sessions.open(), sessionLife))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// complainEvery is how often logins that failed are logged at most: whoever sends them must not fill the log.
const complainEvery = time.Second

// complain logs a login that failed, or counts it until the next one is logged.
func (d *Dashboard) complain(r *http.Request, what string, peer netip.Addr) {
	now, next := time.Now().UnixNano(), d.complained.Load()
	if now < next || !d.complained.CompareAndSwap(next, now+int64(complainEvery)) {
		d.unheard.Add(1)
		return
	}
	d.log.WarnContext(r.Context(), what, "peer", peer.String(), "suppressed", d.unheard.Swap(0))
}

// lockedForGood reports whether the secret is empty, so that nobody can have it.
func (d *Dashboard) lockedForGood() bool { return d.config.Secret != nil && *d.config.Secret == "" }

// logout ends the caller's session. Its streams notice at their next snapshot.
func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(cookieName(r)); err == nil {
		d.sessions.end(cookie.Value)
	}
	http.SetCookie(w, sessionCookie(r, "", -time.Second))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// ask shows the form, with what was wrong about the last attempt.
func (d *Dashboard) ask(w http.ResponseWriter, r *http.Request, status int, wrong string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// With no-referrer, browsers send the form with the origin "null", which no check can tell from another site's.
	h.Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	_ = d.form.Execute(w, struct { // a caller that went away needs no answer
		Wrong          string
		Locked, InOpen bool
	}{wrong, d.lockedForGood(), r.TLS == nil && !peerOf(r).IsLoopback()})
}

// sessionCookie carries a token. A negative life deletes it.
func sessionCookie(r *http.Request, token string, life time.Duration) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure as far as there is TLS; without, browsers would drop it
		Name: cookieName(r), Value: token, Path: "/", MaxAge: int(life.Seconds()),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	}
}

// sessions are the logins that last, by the digests of their tokens: looking one up takes no time that depends on how much of a
// token was guessed.
type sessions struct {
	now  func() time.Time
	mu   sync.Mutex
	ends map[[sha256.Size]byte]time.Time
}

func newSessions(now func() time.Time) sessions {
	return sessions{now: now, ends: make(map[[sha256.Size]byte]time.Time)}
}

// open begins a session and returns its token.
func (s *sessions) open() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) >= maxSessions {
		var oldest [sha256.Size]byte
		var first time.Time
		for digest, end := range s.ends {
			if first.IsZero() || end.Before(first) {
				oldest, first = digest, end
			}
		}
		delete(s.ends, oldest)
	}
	token := rand.Text()
	s.ends[sha256.Sum256([]byte(token))] = s.now().Add(sessionLife)
	return token
}

// has reports whether a token's session lasts.
func (s *sessions) has(token string) bool {
	digest := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok := s.ends[digest]
	if ok && !s.now().Before(end) {
		delete(s.ends, digest)
		return false
	}
	return ok
}

// end ends the session of a token, if there is one.
func (s *sessions) end(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ends, sha256.Sum256([]byte(token)))
}

package redisstore

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/store/redis/internal/engine"
)

// Config configures a store. Its zero value is ready to use.
type Config struct {
	// Prefix stands before every key of the store, as "prefix:key". It keeps programs that
	// share a server apart, and is what errors name. An empty prefix leaves keys as they are.
	Prefix string
	// Timeout bounds calls whose context has no deadline. Defaults to 250 ms.
	Timeout time.Duration
	// Clock replaces the server's clock, for replays. All processes that share a key must
	// agree on the choice. Records still expire by the server's clock, see TTLFloor. Defaults
	// to the server's clock.
	Clock throttlekit.Clock
	// MaxRetries bounds how often a transition without a script is tried again when other
	// processes change its record at the same time. Defaults to 32; negative means not at all.
	MaxRetries int
	// TTLFloor keeps records for at least this long, truncated to milliseconds. A replay
	// with a Clock that runs slower than time needs it, lest records expire that count still.
	TTLFloor time.Duration
}

// engineStore keeps the embedded field from being exported.
type engineStore = engine.Store

// Store implements [throttlekit.Store] on Redis. It is safe for concurrent use.
type Store struct{ *engineStore }

var _ throttlekit.Store = (*Store)(nil)

// New returns a store on a client of the program's own, which stays open when the store is
// closed. The client's AlwaysPipelining, PipelineMultiplex and the like are at its owner's
// choice; set DisableCache if the server knows no client tracking, and leave ConnLifetime at
// zero, since rueidis sends again what a connection that has reached it leaves unanswered.
// The error matches [throttlekit.ErrInvalid].
func New(client rueidis.Client, config Config) (*Store, error) {
	if client == nil {
		return nil, &throttlekit.InvalidError{Field: "client", Value: nil, Rule: "must be given"}
	}
	return newStore(newClient(client), config)
}

// Open returns a store with a client of its own for a URL such as
//
//	redis://user:password@host:6379/0
//	rediss://host:6380                                 with TLS
//	redis://host1:6379?addr=host2:6379&addr=host3:6379 several nodes of a Cluster
//	redis://host1:26379?master_set=name                by way of Sentinel, of which addr may name others
//
// A single host that is part of a Cluster is recognised too. Open does not connect; the
// store does when it is first used. The error matches [throttlekit.ErrInvalid] and does
// not show the URL.
func Open(rawURL string, config Config) (*Store, error) {
	option, err := rueidis.ParseURL(rawURL)
	if err != nil || !plain(rawURL) {
		return nil, invalidURL(rawURL)
	}
	return Connect(option, config)
}

// parameters are what rueidis reads from a URL behind a question mark.
var parameters = []string{
	"addr", "master_set", "db", "dial_timeout", "write_timeout", "skip_verify", "protocol", "client_cache", "max_retries", "client_name",
}

// plain refuses what rueidis would take for a host, or pass over: a list of hosts, a parameter that it does
// not know, and one that says where to connect and is empty.
func plain(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return false
	}
	hosts := append([]string{u.Host}, query["addr"]...)
	for name, values := range query {
		if !slices.Contains(parameters, name) || (name == "addr" || name == "master_set") && slices.Contains(values, "") {
			return false
		}
	}
	return !slices.ContainsFunc(hosts, func(host string) bool { return strings.ContainsAny(host, ", ") })
}

// Connect is [Open] for options that a URL cannot express, such as certificates or the
// password of a Sentinel. Connections made by a DialFn of the program's own serve a crowd of
// callers in smaller batches, at about three quarters of the throughput; DialCtxFn does not.
func Connect(option rueidis.ClientOption, config Config) (*Store, error) {
	if len(option.InitAddress) == 0 {
		return nil, &throttlekit.InvalidError{Field: "initAddress", Value: 0, Rule: "must name at least one server"}
	}
	completed, err := engine.Config(config).Complete()
	if err != nil {
		return nil, err
	}
	return newStore(newLazy(option, completed.Timeout), config, option.Password, option.Sentinel.Password)
}

func newStore(client engine.Client, config Config, secrets ...string) (*Store, error) {
	store, err := engine.New(client, engine.Config(config), secrets...)
	if err != nil {
		return nil, err
	}
	return &Store{store}, nil
}

// invalidURL says what a URL must look like, without showing any of it but the scheme: a password
// with characters that ought to be encoded may turn up anywhere in it.
func invalidURL(rawURL string) error {
	scheme := "one that cannot be read"
	if u, err := url.Parse(rawURL); err == nil && u.Scheme != "" {
		scheme = u.Scheme + "://…"
	}
	return &throttlekit.InvalidError{
		Field: "url", Value: scheme,
		Rule: "must be redis://[user:password@]host[:port][/database], rediss:// for TLS or unix:// for a socket, " +
			"with special characters of the password percent-encoded; other nodes of a Cluster follow as ?addr=host:port&addr=host:port, " +
			"and a Sentinel is redis://host:26379?master_set=name",
	}
}

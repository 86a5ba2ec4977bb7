package goredis

import (
	"reflect"
	"time"

	"github.com/redis/go-redis/v9"

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
// closed. The error matches [throttlekit.ErrInvalid].
func New(client redis.UniversalClient, config Config) (*Store, error) {
	if v := reflect.ValueOf(client); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, &throttlekit.InvalidError{Field: "client", Value: nil, Rule: "must be given"}
	}
	store, err := engine.New(newAdapter(client), engine.Config(config))
	if err != nil {
		return nil, err
	}
	return &Store{store}, nil
}

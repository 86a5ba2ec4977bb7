package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// conformanceTable keeps a replay, whose clock is not the database's, apart from the tables of servers, which sweep rows
// that are old by the database's.
const conformanceTable = "throttlekit_conformance"

// stateful is the state of a replay in a store: a clock, and keys of its own.
type stateful struct {
	*traced

	kind   string
	clock  *throttlekit.ManualClock
	prefix string
}

// openStateful opens the store that a URL names, nil for memory. The store has answered once.
func openStateful(ctx context.Context, text string) (*stateful, error) {
	s, err := storageAt(text)
	if s == nil {
		return nil, err
	}
	clock := throttlekit.NewManualClock(0)
	store, err := s.open(replaying{clock: clock})
	if err != nil {
		return nil, err
	}
	if _, _, err := store.ping(ctx, examPatience); err != nil {
		_ = store.Close() // it has not been used
		return nil, err
	}
	return &stateful{
		traced: &traced{Store: store, keys: make(map[string]struct{})},
		kind:   store.name, clock: clock, prefix: "conformance-" + rand.Text(),
	}, nil
}

// storageAt is what the flags of serve would say about the store at a URL, nil for memory.
func storageAt(text string) (*storage, error) {
	if text == memoryStore {
		return nil, nil //nolint:nilnil // no store and no error: memory
	}
	s := &storage{timeout: span(patience), connection: "store", postgresTable: conformanceTable}
	switch scheme, _, _ := strings.Cut(text, "://"); scheme {
	case "redis", "rediss", "unix":
		s.kind.value, s.redisURL = redisStore, text
	case "postgres", "postgresql":
		s.kind.value, s.postgresURL = postgresStore, text
	case "dynamodb":
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return nil, wrong("--store must be dynamodb://TABLE?region=REGION&endpoint=URL to mean DynamoDB")
		}
		s.kind.value = dynamoStore
		s.dynamo = dynamo{table: u.Host, region: u.Query().Get("region"), endpoint: u.Query().Get("endpoint"), create: true}
	default:
		return nil, wrong("--store must be memory, or a URL that begins with redis://, rediss://, unix://, postgres:// or dynamodb://")
	}
	return s, nil
}

// within is the prefix of a suite's keys. Its length keeps suites apart whose names and keys contain colons.
func (s *stateful) within(suite string) string {
	return fmt.Sprintf("%s:%d:%s", s.prefix, len(suite), suite)
}

// target replays through a door, or directly.
func (s *stateful) target(through string) vectors.Target {
	if d, ok := targets[through].(door); ok {
		d.state = s
		return d
	}
	return vectors.Store(s, s.clock, s.prefix)
}

// end removes what the replay has left in the store, and closes it. The error is also that which a door did not tell.
func (s *stateful) end(ctx context.Context) error {
	err := s.failure
	for key := range s.keys {
		if e := s.Reset(ctx, key); e != nil {
			err = errors.Join(err, fmt.Errorf("keys that begin with %s stay in the store: %w", s.prefix, e))
			break
		}
	}
	return errors.Join(err, s.Close())
}

// traced is a store that remembers which keys were charged, and the first error. Limiters of one key at a time use no
// more than Apply.
type traced struct {
	throttlekit.Store

	mu      sync.Mutex
	keys    map[string]struct{}
	failure error
}

// Apply implements [throttlekit.Store].
func (t *traced) Apply(ctx context.Context, key string, tr throttlekit.Transition, cost float64) (throttlekit.Decision, error) {
	d, err := t.Store.Apply(ctx, key, tr, cost)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys[key] = struct{}{}
	if t.failure == nil && errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.failure = err
	}
	return d, err
}

package redisstore_test

import (
	"os"
	"testing"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/storetest"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// TestStore runs the suite that every store must pass, once with a clock that the suite moves, and
// once with the server's.
func TestStore(t *testing.T) {
	for name, own := range map[string]bool{"ManualClock": true, "ServerClock": false} {
		t.Run(name, func(t *testing.T) {
			store, peer := newClient(t, shared), newClient(t, shared)
			warm(t, store, peer)
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				t.Helper()
				h := storetest.Harness{}
				config := redisstore.Config{Prefix: freshPrefix(), Timeout: patient}
				if own {
					h.Clock, h.RealExpiry = throttlekit.NewManualClock(base), true
					config.Clock, config.TTLFloor = h.Clock, far
				}
				h.Store, h.Peer = lend(t, store, config), lend(t, peer, config)
				return h
			})
		})
	}
}

// warm makes clients open all their connections, and start what they start under concurrent calls.
func warm(t *testing.T, clients ...rueidis.Client) {
	t.Helper()
	const calls = 200
	for _, client := range clients {
		done := make(chan error)
		for range calls {
			go func() {
				for range 20 {
					if err := client.Do(t.Context(), client.B().Exists().Key("k").Build()).Error(); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range calls {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// lend is a store on a client that others use as well.
func lend(tb testing.TB, client rueidis.Client, config redisstore.Config) *redisstore.Store {
	tb.Helper()
	store, err := redisstore.New(client, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	return store
}

// TestReferenceTimelines replays what another implementation has decided.
func TestReferenceTimelines(t *testing.T) {
	t.Parallel()
	file, err := os.Open("../../vectors/reference-timelines.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	document, err := vectors.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	clock := throttlekit.NewManualClock(base)
	store := open(t, shared.URL(), redisstore.Config{Clock: clock, TTLFloor: far})
	report, err := vectors.Replay(t.Context(), document, vectors.Store(store, clock, freshPrefix()))
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	t.Log(report)
}

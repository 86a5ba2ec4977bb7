package dynamostore_test

import (
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
	"github.com/throttlekit/throttlekit-go/storetest"
)

// The suite that every store must pass, at the wall clock and at a clock that it moves.

func TestStore(t *testing.T) {
	run := func(manual bool) func(*testing.T) {
		return func(t *testing.T) {
			t.Helper()
			storetest.Run(t, func(t *testing.T) storetest.Harness {
				t.Helper()
				// Two stores that compete on one key without pause lose a try every other time.
				config := dynamostore.Config{Prefix: newPrefix(), MaxRetries: 100}
				h := storetest.Harness{
					Atomic:  func(throttlekit.Transition) bool { return false },
					Workers: 50, // the stand-in answers one request at a time
				}
				if manual {
					h.Clock = throttlekit.NewManualClock(0)
					config.Clock = h.Clock
				}
				h.Store = newStore(t, newClient(t, server), config)
				h.Peer = newStore(t, newClient(t, server), config)
				return h
			})
		}
	}
	t.Run("SystemClock", run(false))
	t.Run("ManualClock", run(true))
}

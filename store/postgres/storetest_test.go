package pgstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
	pgstore "github.com/throttlekit/throttlekit-go/store/postgres"
	"github.com/throttlekit/throttlekit-go/storetest"
)

// The suite that every store must pass: at the database's own clock, and at a clock that
// the suite moves.

func TestStore(t *testing.T) {
	pool := warmPool(t, "pool_max_conns=16")
	var prefixes atomic.Int64
	open := func(t *testing.T, table string, clock throttlekit.Clock) (store, peer throttlekit.Store) {
		t.Helper()
		config := pgstore.Config{
			Table: table, Prefix: fmt.Sprint("case", prefixes.Add(1)), Clock: clock, SweepInterval: -1,
		}
		return newStore(t, pool, config), newStore(t, pool, config)
	}
	t.Run("ServerClock", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Helper()
			store, peer := open(t, "suite", nil)
			return storetest.Harness{Store: store, Peer: peer}
		})
	})
	t.Run("ManualClock", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Harness {
			t.Helper()
			clock := throttlekit.NewManualClock(0)
			store, peer := open(t, "suite_manual", clock)
			return storetest.Harness{Store: store, Peer: peer, Clock: clock}
		})
	})
}

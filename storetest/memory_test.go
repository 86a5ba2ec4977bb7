package storetest_test

import (
	"fmt"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/storetest"
)

func open(t *testing.T, config throttlekit.MemoryConfig) throttlekit.Store {
	t.Helper()
	store, err := throttlekit.NewMemoryStore(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		clock := throttlekit.NewManualClock(0)
		return storetest.Harness{Store: open(t, throttlekit.MemoryConfig{Clock: clock}), Clock: clock}
	})
}

func TestMemoryStoreOnTheSystemClock(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		return storetest.Harness{Store: open(t, throttlekit.MemoryConfig{}), Workers: 16}
	})
}

// A bound that the suite does not reach changes nothing.
func TestMemoryStoreWithABound(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		clock := throttlekit.NewManualClock(0)
		return storetest.Harness{Store: open(t, throttlekit.MemoryConfig{Clock: clock, MaxKeys: 5000}), Clock: clock}
	})
}

// A store's own test hands its store and, if it can be moved, the clock that the store decides by.
func ExampleHarness() {
	open := func() storetest.Harness {
		clock := throttlekit.NewManualClock(0)
		store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
		if err != nil {
			fmt.Println(err)
		}
		return storetest.Harness{Store: store, Clock: clock}
	}
	// In a test: storetest.Run(t, func(t *testing.T) storetest.Harness { return open() })
	h := open()
	h.Clock.Set(1_700_000_000_000)
	h.Clock.Advance(time.Second)
	fmt.Println(h.Clock.NowMillis(), h.Peer == nil)
	// Output: 1700000001000 true
}

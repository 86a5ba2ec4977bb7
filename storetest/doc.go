// Package storetest is the suite that every [throttlekit.Store] must pass. A store runs
// it from a test of its own:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Harness {
//			store := open(t, "a prefix that no other call gets")
//			t.Cleanup(func() { store.Close() })
//			return storetest.Harness{Store: store}
//		})
//	}
//
// The suite holds a store to what limiters rely on: one atomic step per key, records
// that live exactly as long as they differ from fresh ones, denials that leave no
// trace, batches that charge all or nothing, keys of any bytes kept apart, and the
// project's golden vectors. It is written for shared servers as well: every case gets
// a namespace of its own, and [Harness] says how much the store can take and do.
package storetest

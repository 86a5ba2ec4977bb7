package storetest

import (
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Harness is a store under test and what the suite may do with it.
type Harness struct {
	// Store is the store. The suite closes it in one case and leaves that to the opener
	// in all others, so Close must bear being called twice.
	Store throttlekit.Store
	// Peer is a second handle on the same records, such as another process would have.
	// Concurrent cases use both in turn. Nil if nobody else can reach Store's records.
	Peer throttlekit.Store
	// Clock is the clock that Store, and Peer, decide by. The suite sets it at will, back
	// included. Nil if the store's clock runs by itself; cases that need to move it are
	// then skipped.
	Clock *throttlekit.ManualClock
	// RealExpiry says that records expire in real time although Clock rules the decisions.
	// The store must then keep every record for as long as the suite takes.
	RealExpiry bool
	// Atomic reports whether t may be a member of an atomic batch, CommitAll or CommitAny.
	// The suite holds the store to refusing all others. Nil if every transition may.
	Atomic func(t throttlekit.Transition) bool
	// Workers bounds how many goroutines use the store at once. Defaults to 200.
	Workers int
	// SkipVectors names the reason why the store cannot replay a suite of the golden
	// vectors, given its name, or is empty for a suite that it can. Nil if it can replay all.
	SkipVectors func(suite string) (reason string)
}

// Run runs the whole suite, each case as a parallel subtest with a harness of its own,
// and then checks that no goroutine is left. It must not be called from a parallel test.
//
// Open returns a store on a namespace in which there are no records, and registers its
// cleanup with t. On a shared server that means a new key prefix for each call. What
// open shares between calls, such as a client's connections, must be running before
// Run is called, or it looks like a leak.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	before := goroutines()
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases() {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(newFixture(t, open(t)))
			})
		}
	})
	const tries = 250 // five seconds
	if leaked := leaks(before, tries); len(leaked) > 0 {
		t.Errorf("%d goroutines are left over, such as\n%s", len(leaked), leaked[0])
	}
}

// testCase is one thing that a store must get right.
type testCase struct {
	name string
	run  func(f *fixture)
}

// cases is the suite.
func cases() []testCase {
	all := []testCase{
		{"Counter", counterCounts},
		{"Missing", missingIsZero},
		{"Reset", resetForgets},
		{"Load", loadChangesNothing},
		{"Snapshot", snapshotsAreValues},
		{"Unpersisted", unpersistedLeavesNothing},
		{"Expiry", expiryForgets},
		{"HugeTTL", hugeTTLsLast},

		{"ConcurrentIncrements", concurrentIncrements},
		{"ConcurrentKeys", concurrentKeys},
		{"Linearizable", linearizable},
		{"Shaper", shaperSpacesOut},

		{"BatchEach", batchEachInOrder},
		{"BatchEachIndependent", batchEachIndependent},
		{"BatchEmpty", batchEmpty},
		{"BatchDuplicates", batchDuplicatesRefused},
		{"BatchGrowth", batchGrowth},
		{"BatchAgainstApply", batchAgainstApply},
		{"LimiterAll", allLimiter},
		{"LimiterAny", anyLimiter},
		{"LimiterMany", checkMany},

		{"OddKeys", oddKeys},
		{"LongKeys", longKeys},
		{"ManyKeys", manyKeys},
		{"Prefixes", prefixes},

		{"CancelledContext", cancelledContext},
		{"Closed", closedRefuses},

		{"Vectors", goldenVectors},
	}
	for _, s := range strategies(1) {
		all = append(all,
			testCase{"Denial/" + s.name, denialLeavesNoTrace(s.name)},
			testCase{"RoundTrip/" + s.name, recordsRoundTrip(s.name)},
			testCase{"Model/" + s.name, agreesWithModel(s.name)},
			testCase{"ConcurrentChecks/" + s.name, concurrentChecks(s.name)},
			testCase{"BatchAll/" + s.name, batchAll(s.name)},
			testCase{"BatchAny/" + s.name, batchAny(s.name)},
		)
	}
	return all
}

package vectors_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// The project's own vectors hold for every store and door; here, for the in-memory store.
func ExampleReplay() {
	golden, err := vectors.Golden()
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := vectors.Replay(context.Background(), golden, vectors.Memory())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Passed == len(golden.Suites), report.Err())
	// Output: true <nil>
}

// A document comes from anywhere that JSON comes from. What cannot be run is named.
func ExampleRead() {
	doc, err := vectors.Read(strings.NewReader(`{
		"contractVersion": "1",
		"decisionFields": ["allowed", "limit", "remaining", "resetAt", "retryAfterMs"],
		"suites": [
			{"primitive": "rateLimit", "name": "one a second", "key": "k",
			 "strategy": {"kind": "fixedWindow", "options": {"limit": 1, "windowMs": 1000}},
			 "ops": [
			 	{"now": 5000, "cost": 1, "expect": {"allowed": true, "limit": 1, "remaining": 0, "resetAt": 6000, "retryAfterMs": 0}},
			 	{"now": 5400, "cost": 1, "expect": {"allowed": false, "limit": 1, "remaining": 0, "resetAt": 6000, "retryAfterMs": 500}}
			 ]},
			{"primitive": "lease", "name": "spend to the end", "limit": 5, "events": []}
		]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := vectors.Replay(context.Background(), doc, vectors.Memory())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range report.Mismatches {
		fmt.Println(m)
	}
	for _, s := range report.Suites {
		fmt.Printf("%s: %s (%s)\n", s.Name, s.Outcome, s.Reason)
	}
	// Output:
	// suite "one a second" op 1: retryAfterMs is 600, want 500
	// one a second: failed ()
	// spend to the end: skipped (throttlekit: operation not supported: nothing here replays the primitive "lease")
}

// Equal documents are written as equal bytes, one op on a line.
func ExampleWrite() {
	doc := vectors.NewDocument(vectors.Suite{
		Primitive: vectors.RateLimit,
		Name:      "two at once",
		Strategy:  vectors.Strategy{Kind: "gcra", Options: vectors.Options{"periodMs": 1000.0, "limit": 2.0}},
		Key:       "k",
		Ops: []vectors.Op{
			{Now: 0, Cost: 2, Expect: throttlekit.Decision{Allowed: true, Limit: 2, ResetAtMillis: 1000}},
		},
	})
	if err := vectors.Write(os.Stdout, doc); err != nil {
		fmt.Println(err)
	}
	// Output:
	// {
	//   "contractVersion": "1",
	//   "decisionFields": ["allowed", "limit", "remaining", "resetAt", "retryAfterMs"],
	//   "suites": [
	//     {
	//       "primitive": "rateLimit",
	//       "name": "two at once",
	//       "strategy": {"kind": "gcra", "options": {"limit": 2, "periodMs": 1000}},
	//       "key": "k",
	//       "ops": [
	//         {"now": 0, "cost": 2, "expect": {"allowed": true, "limit": 2, "remaining": 0, "resetAt": 1000, "retryAfterMs": 0}}
	//       ]
	//     }
	//   ]
	// }
}

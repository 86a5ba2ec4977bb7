package main

import (
	"fmt"
	"strings"

	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
)

// area is a part of ThrottleKit that is measured by itself. Adding one is: one file with a function that returns its
// rows, and one line in areas.
type area struct {
	name  string
	about string
	rows  func(measure.Schedule) []report.Row
}

// areas stand in the order in which they run.
var areas = []area{
	{"core", "one process: checks in memory, against a floor and against peers", coreRows},
	{"memory", "one process: what a key costs in memory, and that it comes back", memoryRows},
	{"grpc", "one server and 64 callers over loopback, against a bare grpc-go echo", grpcRows},
	{"redis", "many processes on one Redis: checks against a peer, a floor and memory", redisRows},
	{"lease", "leasing: a unit handed out against a check, batches against round trips", leaseRows},
	{"budget", "token budgets: debits, reservations and grants against checks and round trips", budgetRows},
	{"concurrency", "slots: permits against locks, peers and checks; Admit and Release against an echo; held leases", concurrencyRows},
	{"monitor", "watching: checks and calls with a hub against without one, slow readers, the hub's memory", monitorRows},
	{"postgres", "many processes on one PostgreSQL: checks against a bare upsert", postgresRows},
}

// selected are the areas that a comma-separated list names, in their own order; all for an empty list.
func selected(list string) ([]area, error) {
	if list == "" {
		return areas, nil
	}
	wanted := make(map[string]bool)
	for name := range strings.SplitSeq(list, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var chosen []area
	var known []string
	for _, a := range areas {
		if known = append(known, a.name); wanted[a.name] {
			chosen = append(chosen, a)
			delete(wanted, a.name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("no area %q; there are %s", name, strings.Join(known, ", "))
	}
	return chosen, nil
}

// Package monitor watches what a service decides and sums it up: for the Monitor door, for Prometheus and for readiness.
// It only watches. Nothing here changes a decision, and nothing here can hold one up.
//
// A [Hub] is a tap of a service. It takes each decision in constant time, without allocating once it knows the policy,
// and keeps what is bounded whatever the traffic: counters of the current window, totals, the ten keys asked for and denied most
// often, the latest latencies, denials and fences. [Hub.Snapshot] tells all of it; [Hub.Watch] streams denials.
//
//	hub, err := monitor.New(monitor.Config{Node: "10.0.0.7:50051", Backend: "memory", FailMode: service.FailOpen})
//	...
//	svc, err := service.New(service.Config{Policies: policies, Taps: []service.Tap{hub}})
//	...
//	hub.Attach(svc)
//
// # What the numbers are
//
// Windows are aligned to the epoch; counters start from 0 in each, also when nothing happens. Totals never do, and they are what
// Prometheus gets. Rankings are Space-Saving with ten counters for each of eight parts of the keys (Metwally, Agrawal, El
// Abbadi 2005): no count is too low, and all are exact as long as no part has more than ten keys in the window. A policy that
// decides more than 1,024 times in a window ranks some of what comes then, one in sixteen at random, for sixteen: a count of n
// is off by about 4·√n then, either way. Of a policy that denies more than 500 times in a second, later denials of that second
// are missing from the latest ones and from Watch. Counters and totals leave nothing out.
//
// # Keys
//
// Keys are shown, to those who may see a snapshot, by their first 128 bytes, with "…" for the rest. They are bytes of strangers:
// whoever puts them into a page or onto a terminal must escape them. Metrics carry no keys unless [MetricsConfig] asks for them.
//
// All types are safe for concurrent use.
package monitor

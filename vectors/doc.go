// Package vectors reads, writes and replays golden vectors: timelines of checks with
// the decision that each of them must get.
//
// A [Document] is plain JSON that implementations in any language share. The core of
// this project writes golden.json ([Golden]), and every door and every store replays
// it, so that all of them are known to carry the same decisions. A timeline goes
// through a [Target], which opens one [Session] per suite; [Memory] and [Store] are
// the targets that need no network, and doors bring their own.
//
//	golden, err := vectors.Golden()
//	...
//	report, err := vectors.Replay(ctx, golden, vectors.Memory())
//	...
//	if err := report.Err(); err != nil { // a decision differs
//
// Nothing passes by accident: a suite that a target cannot run, and a suite of a
// primitive that nobody here knows, is reported as skipped, by name and with the reason.
//
// Functions and types of this package hold no shared state. A Document may be replayed
// from several goroutines as long as nobody changes it.
//
// To write golden.json anew after a deliberate change of behaviour, run
//
//	go generate ./vectors
package vectors

//go:generate go run ./generate -o golden.json

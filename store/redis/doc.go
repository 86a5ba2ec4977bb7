// Package redisstore keeps the limits of a fleet in Redis: every process that uses the same
// server and the same keys shares one limit, whatever language it is written in.
//
//	store, err := redisstore.Open("redis://localhost:6379", redisstore.Config{})
//	...
//	limiter, err := throttlekit.NewLimiter(throttlekit.GCRA{Limit: 100, Period: time.Minute},
//		throttlekit.WithStore(store), throttlekit.WithPrefix("prod"))
//
// [Open] takes a URL, [Connect] rueidis' options (TLS, Sentinel, Cluster), and [New] a client
// that the program has already. Programs with a go-redis client take package goredis beside
// this one. A store that opens its own connection does so when it is first used: it can
// be made while the server is down, and recovers by itself when the server returns.
//
// # One round trip, one clock
//
// Each strategy is one Lua script, which reads the server's clock, decides and writes in one
// atomic step: GCRA, TokenBucket, FixedWindow, SlidingWindow, SlidingWindowLog, Quota and
// LeakyBucket. Scripts go by their digest; only if the server does not know one does it
// go once as text. The clocks of the processes do not matter. [Config].Clock overrides the
// server's, for replays.
//
// [throttlekit.UpTo] and the Refund of a [throttlekit.Windowed] rule have scripts on the layout of the
// rule. Of the transitions of other packages of this project, those of a federation's coordinator have
// scripts with a layout of their own: a hash with the budget that a window has left and the
// window's end. They run alone and in CheckMany's pipelines. All and Any refuse all of these, and Load
// those with a layout of their own, with an error that matches [throttlekit.ErrUnsupported]. The accounts of
// package budget have a script, too, which also runs over several keys in one atomic step.
//
// Peek and Forecast read a record and the server's time in one view. CheckMany sends all its
// checks in one pipeline, and each script reads the server's clock for itself. All and Any are
// one script over all keys, which decides them at one instant and then charges all or none;
// on a Cluster the keys must share a slot, by a hash tag such as "{42}", or the error
// matches [throttlekit.ErrUnsupported].
//
// A transition of another kind, such as those of a custom strategy, runs in this process on
// what one script has read, at the server's time; a second script writes the outcome if the
// record is still the same. Within a process callers take turns on a key; among
// processes, conflicts are tried again [Config].MaxRetries times with random pauses.
// In All and Any such transitions and the scripted ones mix freely.
//
// # What is stored
//
// Layouts, texts and times to live are those of the specification's §2, which other
// implementations share; a process of another make may read and write the same keys. A
// record lives for as long as it differs from a fresh one, at most 2^53-1 ms. Decisions
// are those of the Go core to the last bit, and follow it where it is stricter than
// other implementations:
//
//   - Windows only roll forward, a token bucket remembers the latest time it has seen, and a
//     sliding log adds at the newest time it holds, so that a clock that steps back denies more.
//   - A denial writes nothing; a sliding log is pruned when it is charged.
//   - A fixed window's ResetAtMillis is rounded up also where its width is a fraction of a millisecond.
//
// Sliding windows keep counts as text with 14 digits, as the layout wants it. Whole
// counts are always exact; a count with a fraction that needs more digits is rounded.
// A sliding log writes one member for each unit of cost, and a sliding window reads
// all its sub-windows: either holds the server up for about a millisecond in a thousand of them.
//
// # When something is wrong
//
// A call without a deadline gets one of [Config].Timeout. Whatever the server does, callers
// have their answer by then, and no call is sent twice if it may have run: after a timeout or a
// broken connection it is unknown whether the call was charged, but it was charged at
// most once. Errors match [throttlekit.ErrStoreUnavailable] and say what is wrong and what to
// do. They never show a key, a password or a URL. A key that holds something else is left
// alone. If the caller cancels, the error is that of its context.
//
// The server needs Redis 5 or later, or a server that speaks its protocol, with Lua scripting.
// It must not evict keys by memory pressure: an evicted record reopens a budget. Set
// maxmemory-policy to noeviction.
package redisstore

// Package monotonic is the clock by which holders of leases, budgets and permits measure
// their own time. Nothing sets it, so nothing that counts on it can be set back.
package monotonic

import "time"

var start = time.Now() //nolint:forbidigo // the origin of the monotonic clock

// Elapsed is the time since the process began.
func Elapsed() time.Duration { return time.Since(start) } //nolint:forbidigo // this is the monotonic clock

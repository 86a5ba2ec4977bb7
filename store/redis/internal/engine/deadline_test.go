package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

type valueKey struct{}

// TestDeadlines looks at when calls of every kind of context end.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = 160 * time.Millisecond
		d := deadlines{timeout: timeout}
		own, cancelOwn := context.WithTimeout(t.Context(), time.Hour)
		defer cancelOwn()
		if ctx, _ := d.bound(own); ctx != own {
			t.Error("a deadline of the caller's own was replaced")
		}
		cancelled, cancel := context.WithCancel(context.WithValue(t.Context(), valueKey{}, 1))
		ctx, end := d.bound(cancelled)
		defer end()
		cancel()
		if ctx.Err() == nil || ctx.Value(valueKey{}) != 1 {
			t.Error("a bound context does not follow its caller's")
		}
		plain := context.Background() //nolint:usetesting // the test's own context has an end
		values := context.WithValue(plain, valueKey{}, 2)
		first, _ := d.bound(plain)
		second, _ := d.bound(values)
		if first.Done() != second.Done() || second.Value(valueKey{}) != 2 {
			t.Error("calls of one moment do not share a deadline")
		}
		<-time.After(11 * time.Millisecond)
		third, _ := d.bound(plain)
		if third.Done() == first.Done() {
			t.Error("calls of different moments share a deadline")
		}
		start := time.Now()
		<-second.Done()
		if waited := time.Since(start) + 11*time.Millisecond; waited != timeout || !errors.Is(second.Err(), context.DeadlineExceeded) {
			t.Errorf("ended after %v with %v", waited, second.Err())
		}
		if _, ok := second.Deadline(); !ok {
			t.Error("a bound context has no deadline")
		}
	})
}

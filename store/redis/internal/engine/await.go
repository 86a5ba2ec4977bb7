package engine

import "context"

// Await runs f in a goroutine of its own and returns at the latest when ctx ends; f then goes on
// by itself, and what it returns is dropped. It serves calls of clients that may hold on beyond ctx.
// Room bounds how many goroutines may be held up so. Over is called once, when f has ended or
// will not be run.
func Await[T any](ctx context.Context, room chan struct{}, f func() T, over func()) (result T, err error) {
	select {
	case room <- struct{}{}:
	case <-ctx.Done():
		over()
		return result, ctx.Err()
	}
	done := make(chan T, 1)
	go func() {
		result := f()
		over()
		<-room
		done <- result
	}()
	select {
	case result = <-done:
		return result, nil
	case <-ctx.Done():
		return result, ctx.Err()
	}
}

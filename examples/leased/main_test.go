package main

import "testing"

// The example runs.
func TestRun(t *testing.T) {
	t.Parallel()
	if err := run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

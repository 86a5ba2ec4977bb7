package main

import (
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	past := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC).UnixMilli()
	then := ", whole again " + time.UnixMilli(past).Format("2006-01-02 15:04:05 MST")
	for _, test := range []struct {
		key  string
		d    throttlekit.Decision
		cost units
		want string
	}{
		{"me", throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 4, ResetAtMillis: past}, 1, "allowed  me: 4 of 5 left" + then},
		{
			"me",
			throttlekit.Decision{Limit: 5, ResetAtMillis: past, RetryAfterMillis: 1500},
			1,
			"denied   me: 0 of 5 left, retry in 1.5s" + then,
		},
		{
			"me",
			throttlekit.Decision{Limit: 5, ResetAtMillis: past, RetryAfterMillis: 3_599_600},
			5,
			"denied   me: 0 of 5 left, retry in 1h0m0s" + then,
		},
		{
			"\r",
			throttlekit.Decision{Limit: 5, ResetAtMillis: past, RetryAfterMillis: 1500},
			6,
			`denied   "\r": 0 of 5 left, cost 6 can never be allowed` + then,
		},
		{
			"",
			throttlekit.Decision{Allowed: true, Limit: 5, Remaining: 5},
			1,
			`allowed  "": 5 of 5 left, decided by the fail mode of the server because its store could not`,
		},
		{
			"me",
			throttlekit.Decision{Limit: 5},
			1,
			"denied   me: 0 of 5 left, decided by the fail mode of the server because its store could not",
		},
	} {
		if got := describe(test.key, test.d, test.cost); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

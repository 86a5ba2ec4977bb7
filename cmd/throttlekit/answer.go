package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
)

// output is the form of answers.
type output struct{ format word }

func (o *output) define(cmd *cobra.Command) {
	choice(cmd, &o.format, "output", "o", "form of the answer: text for people, json for programs", "text", "json")
}

func (o *output) json() bool { return o.format.value == "json" }

// decision is a decision as JSON, with the names that the wire and the vectors use.
type decision struct {
	Allowed      bool  `json:"allowed"`
	Limit        int64 `json:"limit"`
	Remaining    int64 `json:"remaining"`
	ResetAt      int64 `json:"resetAt"`
	RetryAfterMS int64 `json:"retryAfterMs"`
}

// decisions prints the answer for each key. The error is errDenied if one of them was denied.
func (o *output) decisions(cmd *cobra.Command, keys []string, ds []throttlekit.Decision, cost units) error {
	denied := false
	for i, d := range ds {
		denied = denied || !d.Allowed
		if o.json() {
			line := decision{d.Allowed, d.Limit, d.Remaining, d.ResetAtMillis, d.RetryAfterMillis}
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(line); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), describe(keys[i], d, cost)); err != nil {
			return err
		}
	}
	if denied {
		return errDenied
	}
	return nil
}

// describe is a decision in words.
func describe(key string, d throttlekit.Decision, cost units) string {
	line := "allowed"
	if !d.Allowed {
		line = "denied "
	}
	line += fmt.Sprintf("  %s: %d of %d left", shown(key), d.Remaining, d.Limit)
	switch {
	case d.Allowed:
	case int64(cost) > d.Limit:
		line += fmt.Sprintf(", cost %d can never be allowed", int64(cost))
	case d.RetryAfterMillis > 0:
		line += ", retry in " + readable(d.RetryAfter())
	}
	if d.ResetAtMillis == 0 {
		return line + ", decided by the fail mode of the server because its store could not"
	}
	return line + ", whole again " + at(d.ResetAt())
}

// at is a time in words, absolute and, where that tells something, relative.
func at(t time.Time) string {
	text := t.Format("2006-01-02 15:04:05 MST")
	if away := time.Until(t); away > 0 {
		text += " (in " + readable(away) + ")"
	}
	return text
}

// readable rounds a duration to what a person reads.
func readable(d time.Duration) string {
	if d < time.Minute {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

package policy

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// spelled is the reference's grammar of a duration: a number and a unit, milliseconds by default.
var spelled = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) *(ms|s|m|h|d)?$`)

// unitMillis is what the units mean, in milliseconds.
var unitMillis = map[string]float64{"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

const (
	durationRule = "must be a duration such as 500ms, 15m or 1h30m, or a number of milliseconds"
	positiveRule = "must be a positive duration"
	longestRule  = "must be at most 106751 days, the longest duration"
	shortestRule = "must be at least 1 nanosecond"
)

// parseDuration reads a duration of a policy file: the reference's `15m`, `1.5 h` or
// `7d`, or a Go duration such as `1h30m` or `250us`. The rule is what is broken, or empty.
func parseDuration(text string) (d time.Duration, rule string) {
	text = strings.Trim(text, " ")
	if parts := spelled.FindStringSubmatch(text); parts != nil {
		// The grammar leaves nothing to fail but the range, and then the number is infinite.
		number, _ := strconv.ParseFloat(parts[1], 64)
		return fromMillis(number * unitMillis[parts[2]])
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil && tooLarge(text):
		return 0, longestRule
	case err != nil:
		return 0, durationRule
	case d <= 0:
		return 0, positiveRule
	}
	return d, ""
}

// tooLarge reports whether a text is a Go duration but for its size: with its digits
// made zeros it is one.
func tooLarge(text string) bool {
	_, err := time.ParseDuration(strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return '0'
		}
		return c
	}, text))
	return err == nil
}

// fromMillis turns a number of milliseconds into a duration, to the nearest nanosecond.
func fromMillis(ms float64) (d time.Duration, rule string) {
	nanos := math.Round(ms * float64(time.Millisecond))
	switch {
	case !(ms > 0):
		return 0, positiveRule
	case nanos < 1:
		return 0, shortestRule
	case nanos >= math.MaxInt64:
		return 0, longestRule
	}
	return time.Duration(nanos), ""
}

// millis renders a duration as a number of milliseconds, to compare two spellings of it.
func millis(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', -1, 64) + " ms"
}

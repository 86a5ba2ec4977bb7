package policy

import (
	"slices"
	"strings"
)

// didYouMean is the hint for a word that is none of the known ones, or empty if none is close.
func didYouMean(word string, known []string) string {
	best, least := "", 1+len(word)/3
	for _, k := range known {
		// A longer word differs by more letters than count as a slip.
		if d := len(word) - len(k); d > least || -d > least {
			continue
		}
		if d := distance(bare(word), bare(k)); d < least || (d == least && best == "") {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean `" + best + "`?"
}

// bare is a word without what people vary: case, dashes, underscores.
func bare(word string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(word))
}

// distance is how many letters must be put in, left out, changed or swapped with their
// neighbour to turn a into b (the optimal string alignment distance).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// oneOf renders a choice, as in "gcra, tokenBucket or quota".
func oneOf(words []string) string { return enumerate(words, " or ") }

// allOf renders a list, as in "limit, period and burst".
func allOf(words []string) string { return enumerate(words, " and ") }

func enumerate(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + last + words[n]
}

// distinct is the sorted set of words.
func distinct(words ...[]string) []string {
	all := slices.Concat(words...)
	slices.Sort(all)
	return slices.Compact(all)
}

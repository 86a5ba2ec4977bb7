package service

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/throttlekit/throttlekit-go"
)

const (
	longestName = 64 // bytes of a name that a message shows
	mostNames   = 20 // names that a message lists
)

// quoted renders a name for a message: escaped, so that it cannot break a log line or a
// terminal, and not longer than a name should be.
func quoted(name string) string {
	if len(name) <= longestName {
		return strconv.Quote(name)
	}
	return fmt.Sprintf("%s… (%d bytes)", strconv.Quote(strings.ToValidUTF8(name[:longestName], "�")), len(name))
}

// listNames renders the names of policies for a message.
func listNames(infos []Info) string {
	if len(infos) == 0 {
		return "(none)"
	}
	shown := infos[:min(len(infos), mostNames)]
	names := make([]string, len(shown))
	for i, info := range shown {
		names[i] = quoted(info.Name)
	}
	list := strings.Join(names, ", ")
	if more := len(infos) - len(shown); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

func tooLong(key string) error {
	return &throttlekit.InvalidError{
		Field: "key",
		Value: len(key),
		Rule:  fmt.Sprintf("must be at most %d bytes long", MaxKeyBytes),
	}
}

func validKeys(keys []string) error {
	if len(keys) > MaxKeys {
		return &throttlekit.InvalidError{
			Field: "keys",
			Value: len(keys),
			Rule:  fmt.Sprintf("must be at most %d", MaxKeys),
		}
	}
	for _, key := range keys {
		if len(key) > MaxKeyBytes {
			return tooLong(key)
		}
	}
	return nil
}

func validUnits(field string, n int64) error {
	if n >= 1 && n <= throttlekit.MaxSafe {
		return nil
	}
	return &throttlekit.InvalidError{Field: field, Value: n, Rule: "must be an integer from 1 to 9007199254740991"}
}

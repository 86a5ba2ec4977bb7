package pgstore

import (
	"encoding/hex"
	"strings"
	"unicode/utf8"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

const (
	// longestKey fits into an index page three times, which PostgreSQL demands.
	longestKey = 2600
	// escaped begins the keys that are stored as hexadecimal digits, as PostgreSQL itself
	// writes bytes.
	escaped = `\x`
)

// key is the key that a record is stored under: prefix and key as they are, so that other
// implementations find it. PostgreSQL's text cannot hold NUL, nor what is not UTF-8, and
// no other implementation has such a key; it is written in hexadecimal, and so is one
// that looks as if it had been.
func (s *Store) key(key string) (string, error) {
	full := s.prefix + key
	if strings.IndexByte(full, 0) >= 0 || !utf8.ValidString(full) || strings.HasPrefix(full, escaped) {
		full = escaped + hex.EncodeToString([]byte(full))
	}
	if len(full) > longestKey {
		return "", &throttlekit.InvalidError{
			Field: "key", Value: key,
			Rule: "must be at most 2600 bytes long with its prefixes, or half of that if it is not UTF-8, on PostgreSQL",
		}
	}
	return full, nil
}

package dynamostore

import (
	"encoding/hex"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Config configures [New] and [CreateTable].
type Config struct {
	// Table is the table's name or ARN. Required.
	Table string
	// HashKey is the name of the table's partition key, a string. Defaults to "pk".
	HashKey string
	// Prefix is put before every key, as "prefix:key". Defaults to none.
	Prefix string
	// Timeout bounds a call whose context has no deadline. Defaults to 250 ms.
	Timeout time.Duration
	// MaxRetries is how often a check starts over because somebody else changed its item.
	// Defaults to 16; a negative number means never.
	MaxRetries int
	// Clock is the store's clock. Defaults to [throttlekit.SystemClock].
	Clock throttlekit.Clock
}

const (
	defaultHashKey = "pk"
	defaultTimeout = 250 * time.Millisecond
	defaultRetries = 16
	// longestName is DynamoDB's bound on the names of key attributes.
	longestName = 255
	// longestKey is DynamoDB's bound on partition keys.
	longestKey = 2048
)

// resolve fills in the defaults. The error matches ErrInvalid and names every field that
// breaks a rule.
func (c Config) resolve() (Config, error) {
	var errs []error
	invalid := func(field string, value any, rule string) {
		errs = append(errs, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
	}
	if c.HashKey == "" {
		c.HashKey = defaultHashKey
	}
	if c.Table == "" {
		invalid("table", c.Table, "must be given")
	}
	switch c.HashKey {
	case stateName, expiresName, expiresMillisName, versionName:
		invalid("hashKey", c.HashKey, "must not be the name of another attribute")
	}
	if len(c.HashKey) > longestName {
		invalid("hashKey", c.HashKey, "must be at most 255 bytes long")
	}
	if c.Timeout < 0 {
		invalid("timeout", c.Timeout, "must not be negative")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxRetries == 0 {
		c.MaxRetries = defaultRetries
	}
	c.MaxRetries = max(0, c.MaxRetries)
	if c.Clock == nil {
		c.Clock = throttlekit.SystemClock{}
	}
	return c, errors.Join(errs...)
}

// escaped begins the keys that are stored as hexadecimal digits.
const escaped = `\x`

// key is the key that a record is stored under: prefix and key as they are, so that other
// implementations find it. DynamoDB's keys are neither empty nor anything but UTF-8, so no
// other implementation has such a key; it is written in hexadecimal, and so is one that
// looks as if it had been.
func (s *Store) key(key string) (string, error) {
	full := s.prefix + key
	if full == "" || !utf8.ValidString(full) || strings.HasPrefix(full, escaped) {
		full = escaped + hex.EncodeToString([]byte(full))
	}
	if len(full) > longestKey {
		return "", &throttlekit.InvalidError{
			Field: "key", Value: key,
			Rule: "must be at most 2048 bytes long with its prefixes, or half of that if it is not UTF-8, on DynamoDB",
		}
	}
	return full, nil
}

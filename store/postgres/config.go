package pgstore

import (
	"errors"
	"regexp"
	"strings"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Config configures [New] and [Open]. Its zero value is ready to use.
type Config struct {
	// Table is the table's name, with or without a schema: "throttlekit" or
	// "limits.throttlekit". Each part starts with a letter or an underscore, has only
	// those and digits, and at most 63 of them. As in SQL without quotes, upper and
	// lower case are the same. Defaults to "throttlekit".
	Table string
	// Prefix is put before every key, as "prefix:key". Defaults to none.
	Prefix string
	// Timeout bounds a call whose context has no deadline. Defaults to 250 ms.
	Timeout time.Duration
	// NoAutoCreate leaves the table and the functions to whoever runs [Config.Schema].
	// By default the store creates what is missing when it is first used.
	NoAutoCreate bool
	// SweepInterval is how often rows are deleted that expired more than a minute ago.
	// Defaults to 60 s; a negative interval switches the sweep off, for a table that
	// others sweep.
	SweepInterval time.Duration
	// Clock replaces the database's clock, for replays. All stores that share a table
	// must agree on one clock. Defaults to nil, the database's clock.
	Clock throttlekit.Clock
	// MaxRetries is how often a transaction that the database rolled back is tried
	// again: after a deadlock, a serialization failure, or before it was sent at all.
	// Defaults to 5; a negative number means never.
	MaxRetries int
}

const (
	defaultTable   = "throttlekit"
	defaultTimeout = 250 * time.Millisecond
	defaultSweep   = time.Minute
	defaultRetries = 5

	// longestName is what PostgreSQL keeps of a name.
	longestName = 63
)

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// names are the quoted identifiers of what a store uses.
type names struct {
	table  string
	schema string // with a trailing dot, or empty for the search path's
	index  string
}

// resolve fills in the defaults. The error matches ErrInvalid and names every field that
// breaks a rule.
func (c Config) resolve() (Config, names, error) {
	var errs []error
	if c.Table == "" {
		c.Table = defaultTable
	}
	n, ok := parseTable(c.Table)
	if !ok {
		errs = append(errs, &throttlekit.InvalidError{
			Field: "table", Value: c.Table,
			Rule: "must be an identifier of letters, digits and underscores, at most 63 long, optionally after a schema and a dot",
		})
	}
	if c.Timeout < 0 {
		errs = append(errs, &throttlekit.InvalidError{Field: "timeout", Value: c.Timeout, Rule: "must not be negative"})
	}
	c.Table = strings.ToLower(c.Table)
	c.Timeout = orDefault(c.Timeout, defaultTimeout)
	c.SweepInterval = orDefault(c.SweepInterval, defaultSweep)
	c.MaxRetries = max(0, orDefault(c.MaxRetries, defaultRetries))
	return c, n, errors.Join(errs...)
}

func orDefault[T int | time.Duration](value, fallback T) T {
	if value == 0 {
		return fallback
	}
	return value
}

// parseTable quotes a table's name. Quoting keeps reserved words usable; folding to lower
// case beforehand keeps the name the one that SQL without quotes means, which is how
// other implementations write it.
func parseTable(table string) (names, bool) {
	parts := strings.Split(strings.ToLower(table), ".")
	if len(parts) > 2 {
		return names{}, false
	}
	for _, part := range parts {
		if !identifier.MatchString(part) || len(part) > longestName {
			return names{}, false
		}
	}
	index := strings.Join(parts, "_") + "_expires_idx"
	n := names{
		table: quote(parts[len(parts)-1]),
		// PostgreSQL would cut a longer name just so, but not where it looks for one.
		index: quote(index[:min(len(index), longestName)]),
	}
	if len(parts) == 2 {
		n.schema = quote(parts[0]) + "."
		n.table = n.schema + n.table
	}
	return n, true
}

func quote(name string) string { return `"` + name + `"` }

package throttlekit

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors that callers tell apart with [errors.Is]. A denial is none of them: it is a [Decision].
var (
	// ErrInvalid marks an argument or a configuration value that breaks a rule. The
	// error is an [*InvalidError], which names field, value and rule, or joins several.
	ErrInvalid = errors.New("throttlekit: invalid argument")
	// ErrStoreUnavailable marks a decision that could not be made because the store
	// did not answer, answered wrongly, or is full. Nothing is known to be charged.
	ErrStoreUnavailable = errors.New("throttlekit: rate-limit store is unavailable")
	// ErrPolicyNotFound marks a request for a policy name that nobody configured.
	ErrPolicyNotFound = errors.New("throttlekit: policy not found")
	// ErrUnsupported marks an operation that the strategy, policy or store cannot do.
	ErrUnsupported = errors.New("throttlekit: operation not supported")
	// ErrClosed marks the use of a limiter or store after Close.
	ErrClosed = errors.New("throttlekit: closed")
)

// InvalidError says which value broke which rule. It matches [ErrInvalid].
type InvalidError struct {
	// Field is the name of the value as configuration files spell it, or a path to it.
	Field string
	// Value is what was given.
	Value any
	// Rule is what the value must be, as in "must be a positive finite number".
	Rule string
}

// Error reads "<field> <rule>, got <value>".
func (e *InvalidError) Error() string {
	return fmt.Sprintf("%s %s, got %s", e.Field, e.Rule, printable(e.Value))
}

// Is makes every InvalidError match ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// printable renders a value so that control characters cannot reach a log or terminal.
func printable(v any) string {
	const longest = 64
	switch v := v.(type) {
	case string:
		if len(v) > longest {
			return fmt.Sprintf("%q… (%d bytes)", strings.ToValidUTF8(v[:longest], "�"), len(v))
		}
		return fmt.Sprintf("%q", v)
	default:
		return fmt.Sprint(v)
	}
}

// checks collects every broken rule of one configuration, so that all are reported at once.
type checks []error

func (c *checks) fail(field string, value any, rule string) {
	*c = append(*c, &InvalidError{Field: field, Value: value, Rule: rule})
}

func (c *checks) require(ok bool, field string, value any, rule string) {
	if !ok {
		c.fail(field, value, rule)
	}
}

func (c *checks) positive(field string, x float64) {
	c.require(finite(x) && x > 0, field, x, "must be a positive finite number")
}

func (c *checks) duration(field string, d time.Duration) {
	c.require(d > 0, field, d, "must be a positive duration")
}

func (c checks) err() error {
	if len(c) == 1 {
		return c[0]
	}
	return errors.Join(c...)
}

const costRule = "must be a finite number greater than 0 and at most 9007199254740991"

// validCost is the one rule for costs: finite, above 0, at most MaxSafe; fractions are allowed.
func validCost(cost float64) error {
	if cost > 0 && cost <= MaxSafe {
		return nil
	}
	return &InvalidError{Field: "cost", Value: cost, Rule: costRule}
}

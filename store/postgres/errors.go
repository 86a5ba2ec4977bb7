package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// SQLSTATE codes that the store acts on.
const (
	serializationFailure = "40001"
	deadlock             = "40P01"
	undefinedTable       = "42P01"
	undefinedFunction    = "42883"
	undefinedObject      = "42704"
	forbidden            = "42501"
	uniqueViolation      = "23505"
	duplicateTable       = "42P07"
	duplicateObject      = "42710"
	duplicateFunction    = "42723"
	internalError        = "XX000" // "tuple concurrently updated"
	dataExceptions       = "22"    // a class
)

// code is the SQLSTATE that the database answered with, or empty.
func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// rolledBack reports whether err proves that nothing was changed and that another try may
// succeed. A broken connection proves nothing, unless it broke before anything was sent.
func rolledBack(err error) bool {
	switch code(err) {
	case serializationFailure, deadlock:
		return true
	case "":
		return pgconn.SafeToRetry(err)
	}
	return false
}

// needsCoreAfter reports whether a function left its check to the core: it said so, it
// could not read or compute a number, or it is not there any more. Nothing was written.
func needsCoreAfter(err error) bool {
	c := code(err)
	return errors.Is(err, errNeedsCore) || c == undefinedFunction || strings.HasPrefix(c, dataExceptions)
}

// isRace reports whether somebody else may have created the same thing just now. IF NOT
// EXISTS does not look for what is not yet committed.
func isRace(err error) bool {
	switch code(err) {
	case uniqueViolation, duplicateTable, duplicateObject, duplicateFunction, internalError, serializationFailure, deadlock:
		return true
	}
	return false
}

// isForbidden reports whether the role may not create, or the language is not there.
func isForbidden(err error) bool {
	c := code(err)
	return c == forbidden || c == undefinedObject
}

// retry runs an operation until it succeeds, fails for good, or was rolled back once too often.
func (s *Store) retry(ctx context.Context, operation func() error) error {
	looked := false
	for try := 0; ; try++ {
		err := s.ensure(ctx)
		if err == nil {
			err = operation()
		}
		if code(err) == undefinedTable {
			// Somebody dropped the table under us, or nobody has created it yet. The
			// statement did nothing.
			s.schema.ready.Store(false)
			if !looked {
				looked = true
				continue
			}
		}
		switch {
		case err == nil:
			return nil
		case !rolledBack(err) || try >= s.config.MaxRetries:
			return err
		}
		if pause(ctx, try) != nil {
			return err
		}
	}
}

// pause waits a little before the next try, at random, so that those who got into each
// other's way do not meet again.
func pause(ctx context.Context, try int) error {
	const longest = 5                                              // doublings
	return sleep(ctx, rand.N(time.Millisecond<<min(try, longest))) //nolint:gosec // chance, not secrecy
}

// fail puts an error into the form that callers see.
func (s *Store) fail(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, throttlekit.ErrClosed), errors.Is(err, throttlekit.ErrInvalid):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	}
	return fmt.Errorf("%w: PostgreSQL table %s, prefix %q: %w", throttlekit.ErrStoreUnavailable, s.config.Table, s.config.Prefix, err)
}

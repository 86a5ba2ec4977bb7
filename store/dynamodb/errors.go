package dynamostore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// notWritten reports whether err is DynamoDB's word that it did not carry out a write,
// and another try may succeed.
func notWritten(err error) bool {
	if _, ok := errors.AsType[*types.ConditionalCheckFailedException](err); ok {
		return true
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	switch api.ErrorCode() {
	case "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "TransactionConflictException":
		return true
	}
	return false
}

// shown is the item that DynamoDB shows with a failed condition, or nil if it shows none
// or it is no record; then it has to be read.
func shown(err error) *item {
	failed, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
	if !ok || len(failed.Item) == 0 {
		return nil
	}
	found, err := readItem(failed.Item)
	if err != nil {
		return nil
	}
	return found
}

// pause waits a little before the next try, at random, so that those who got into each
// other's way do not meet again.
func pause(ctx context.Context, try int) error {
	const longest = 5                                                         // doublings
	timer := time.NewTimer(rand.N(2 * time.Millisecond << min(try, longest))) //nolint:gosec // chance, not secrecy
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fail puts an error into the form that callers see.
func (s *Store) fail(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, throttlekit.ErrInvalid):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	}
	return fmt.Errorf("%w: DynamoDB table %s, prefix %q: %w", throttlekit.ErrStoreUnavailable, s.config.Table, s.config.Prefix, err)
}

package dynamostore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Client is what the store needs of a [*dynamodb.Client].
type Client interface {
	GetItem(ctx context.Context, in *dynamodb.GetItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(ctx context.Context, in *dynamodb.PutItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
}

// Store is a [throttlekit.Store] on one DynamoDB table.
type Store struct {
	client Client
	config Config
	prefix string
	turns  turns
	closed atomic.Bool
}

// New returns a store on a table that exists, or will. It asks nothing of DynamoDB yet.
// The error matches [throttlekit.ErrInvalid].
//
// The client's retries apply to reads and resets only.
func New(client Client, config Config) (*Store, error) {
	config, err := config.resolve()
	if err != nil {
		return nil, err
	}
	if client == nil {
		return nil, &throttlekit.InvalidError{Field: "client", Value: nil, Rule: "must be given"}
	}
	s := &Store{client: client, config: config}
	if config.Prefix != "" {
		s.prefix = config.Prefix + ":"
	}
	return s, nil
}

// Apply implements [throttlekit.Store].
func (s *Store) Apply(ctx context.Context, key string, t throttlekit.Transition, cost float64) (d throttlekit.Decision, err error) {
	full, err := s.key(key)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	err = s.bounded(ctx, func(ctx context.Context) (err error) {
		d, err = s.apply(ctx, full, throttlekit.Op{Transition: t, Cost: cost}, nil)
		return err
	})
	if err != nil {
		return throttlekit.Decision{}, err
	}
	return d, nil
}

// apply reads, decides and writes until nobody comes between.
func (s *Store) apply(ctx context.Context, key string, op throttlekit.Op, at *int64) (throttlekit.Decision, error) {
	give, err := s.turns.take(ctx, key)
	if err != nil {
		return throttlekit.Decision{}, err
	}
	defer give()
	var found *item // what a failed condition has shown
	for try := 0; ; try++ {
		d, err := s.step(ctx, key, found, op, at)
		if err == nil || !notWritten(err) {
			return d, err
		}
		if try >= s.config.MaxRetries {
			return d, fmt.Errorf("gave up after %d tries: %w", try+1, err)
		}
		// Whoever came too late and need not read again is likely to be next. Should that
		// fail, too many are at it: then a pause, which makes any item an old one.
		if found = shown(err); found != nil && try%2 == 0 {
			continue
		}
		found = nil
		if pause(ctx, try) != nil {
			return d, err
		}
	}
}

// step is one try, with the item that was found or one that it reads, at the instant of a
// batch unless at is nil.
func (s *Store) step(ctx context.Context, key string, found *item, op throttlekit.Op, at *int64) (d throttlekit.Decision, err error) {
	if found == nil {
		if found, err = s.get(ctx, key); err != nil {
			return d, err
		}
	}
	old := *found
	now := s.now(old, at)
	rec, err := old.record(op.Transition, now)
	if err != nil {
		return d, err
	}
	next, decision, ttl := op.Transition.Apply(rec, now, op.Cost)
	if ttl <= 0 {
		return decision, nil
	}
	text, err := op.Transition.Encode(next)
	if err != nil {
		return d, fmt.Errorf("writing a %s record: %w", op.Transition.Name(), err)
	}
	// A retry by the SDK could meet the item that its first try has written, and report a
	// failed condition for a charge that was made.
	_, err = s.client.PutItem(ctx, s.put(key, old, string(text), now, ttl), once)
	if err != nil {
		return d, err
	}
	return decision, nil
}

// now is the time at which an item that was just read is judged. It is read after the
// item: one that DynamoDB has taken away meanwhile had expired, and has at every later
// time. So the instant of a batch is too old for an item that is not there, and moves on.
func (s *Store) now(read item, at *int64) int64 {
	now := s.config.Clock.NowMillis()
	if at == nil {
		return now
	}
	if !read.exists {
		*at = max(*at, now)
	}
	return *at
}

// once switches the SDK's retries off.
func once(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} }

func (s *Store) get(ctx context.Context, key string) (*item, error) {
	out, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &s.config.Table, Key: s.itemKey(key), ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return nil, err
	}
	return readItem(out.Item)
}

func (s *Store) itemKey(key string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{s.config.HashKey: &types.AttributeValueMemberS{Value: key}}
}

// batchWidth is how many keys of a batch are under way at once.
const batchWidth = 16

// Batch implements [throttlekit.Store] for CommitEach: ops on one key follow each other,
// and up to 16 keys are under way at once. An error may come after some ops have been
// charged. Atomic batches are refused with an error that matches [throttlekit.ErrUnsupported].
func (s *Store) Batch(ctx context.Context, ops []throttlekit.Op, commit throttlekit.Commit) ([]throttlekit.Decision, error) {
	if s.closed.Load() {
		return nil, throttlekit.ErrClosed
	}
	if commit != throttlekit.CommitEach {
		return nil, fmt.Errorf("%w: DynamoDB's conditions hold for one item, so a batch over several keys cannot be one atomic step",
			throttlekit.ErrUnsupported)
	}
	if len(ops) == 0 {
		return nil, nil
	}
	byKey := make(map[string][]int, len(ops))
	var keys []string
	for i, op := range ops {
		full, err := s.key(op.Key)
		if err != nil {
			return nil, err
		}
		if len(byKey[full]) == 0 {
			keys = append(keys, full)
		}
		byKey[full] = append(byKey[full], i)
	}
	decisions := make([]throttlekit.Decision, len(ops))
	instant := s.config.Clock.NowMillis()
	err := s.bounded(ctx, func(ctx context.Context) error {
		return each(ctx, keys, func(ctx context.Context, key string) (err error) {
			at := instant
			for _, i := range byKey[key] {
				if decisions[i], err = s.apply(ctx, key, ops[i], &at); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return decisions, nil
}

// each calls work for every key, some at once. The first error ends the others.
func each(ctx context.Context, keys []string, work func(ctx context.Context, key string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	var first error
	var once sync.Once
	var running sync.WaitGroup
	for range min(batchWidth, len(keys)) {
		running.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(keys)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := work(ctx, keys[i]); err != nil {
					once.Do(func() { first = err })
					cancel()
				}
			}
		})
	}
	running.Wait()
	if first == nil {
		return ctx.Err()
	}
	return first
}

// Load implements [throttlekit.Store].
func (s *Store) Load(ctx context.Context, key string, t throttlekit.Transition) (rec throttlekit.Record, nowMillis int64, err error) {
	full, err := s.key(key)
	if err != nil {
		return throttlekit.Record{}, 0, err
	}
	err = s.bounded(ctx, func(ctx context.Context) error {
		i, err := s.get(ctx, full)
		if err != nil {
			return err
		}
		nowMillis = s.config.Clock.NowMillis()
		rec, err = i.record(t, nowMillis)
		return err
	})
	if err != nil {
		return throttlekit.Record{}, 0, err
	}
	return rec, nowMillis, nil
}

// Reset implements [throttlekit.Store].
func (s *Store) Reset(ctx context.Context, key string) error {
	full, err := s.key(key)
	if err != nil {
		return err
	}
	return s.bounded(ctx, func(ctx context.Context) error {
		give, err := s.turns.take(ctx, full)
		if err != nil {
			return err
		}
		defer give()
		_, err = s.client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &s.config.Table, Key: s.itemKey(full)})
		return err
	})
}

// Close ends the use of the store; the client stays as it is. It may be called more than once.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

// bounded runs an operation within a deadline and puts its error into form.
func (s *Store) bounded(ctx context.Context, operation func(context.Context) error) error {
	if s.closed.Load() {
		return throttlekit.ErrClosed
	}
	inner := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		inner, cancel = context.WithTimeout(ctx, s.config.Timeout)
		defer cancel()
	}
	return s.fail(ctx, operation(inner))
}

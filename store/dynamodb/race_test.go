package dynamostore_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	throttlekit "github.com/throttlekit/throttlekit-go"
	dynamostore "github.com/throttlekit/throttlekit-go/store/dynamodb"
)

// between is a client in which something happens between the read and the write of a check.
type between struct {
	*dynamodb.Client

	happens func(ctx context.Context) error
	puts    atomic.Int64
}

func (b *between) PutItem(ctx context.Context, in *dynamodb.PutItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	b.puts.Add(1)
	if err := b.happens(ctx); err != nil {
		return nil, err
	}
	return b.Client.PutItem(ctx, in, opts...)
}

// count adds up its costs in its record, and expires after its time to live.
type count struct{ ttl int64 }

func (count) Name() string { return "count" }

func (c count) Apply(rec throttlekit.Record, _ int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	rec.A += cost
	return rec, throttlekit.Decision{Allowed: true, Remaining: int64(rec.A)}, c.ttl
}

func (count) Encode(rec throttlekit.Record) ([]byte, error) { return json.Marshal(rec.A) }

func (count) Decode(text []byte) (rec throttlekit.Record, err error) {
	return rec, json.Unmarshal(text, &rec.A)
}

// TestInterference: whatever others do between a check's read and its write, the check
// takes effect after it, or is the same as if it had.
func TestInterference(t *testing.T) {
	t.Parallel()
	hour := count{time.Hour.Milliseconds()}
	for name, tc := range map[string]struct {
		before  float64                                                          // charged beforehand
		happens func(other *dynamostore.Store, c *throttlekit.ManualClock) error // then, once
		want    int64
	}{
		"another check": {1, func(other *dynamostore.Store, _ *throttlekit.ManualClock) error {
			_, err := other.Apply(t.Context(), "k", hour, 10)
			return err
		}, 12},
		"the first check": {0, func(other *dynamostore.Store, _ *throttlekit.ManualClock) error {
			_, err := other.Apply(t.Context(), "k", hour, 10)
			return err
		}, 11},
		"a reset": {1, func(other *dynamostore.Store, _ *throttlekit.ManualClock) error {
			return other.Reset(t.Context(), "k")
		}, 1},
		"a reset and a check": { // its version is the one that was read, its state is not
			1, func(other *dynamostore.Store, _ *throttlekit.ManualClock) error {
				if err := other.Reset(t.Context(), "k"); err != nil {
					return err
				}
				_, err := other.Apply(t.Context(), "k", hour, 10)
				return err
			}, 11,
		},
		"a reset and the same check later": { // its state is the one that was read, too, but lives longer
			1, func(other *dynamostore.Store, c *throttlekit.ManualClock) error {
				c.Advance(time.Minute)
				if err := other.Reset(t.Context(), "k"); err != nil {
					return err
				}
				_, err := other.Apply(t.Context(), "k", hour, 1)
				return err
			}, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := throttlekit.NewManualClock(now)
			config := dynamostore.Config{Prefix: newPrefix(), Clock: clock}
			client := newClient(t, server)
			other := newStore(t, client, config)
			var once sync.Once
			b := &between{Client: client, happens: func(context.Context) (err error) {
				once.Do(func() { err = tc.happens(other, clock) })
				return err
			}}
			store := newStore(t, b, config)
			if tc.before > 0 {
				if _, err := other.Apply(t.Context(), "k", hour, tc.before); err != nil {
					t.Fatal(err)
				}
			}
			d, err := store.Apply(t.Context(), "k", hour, 1)
			if err != nil || d.Remaining != tc.want || b.puts.Load() != 2 {
				t.Errorf("%+v, %v after %d writes, want %d after 2", d, err, b.puts.Load(), tc.want)
			}
		})
	}
}

// showing is a client that shows the item with a failed condition, which the stand-in
// does not do.
type showing struct {
	*dynamodb.Client

	gets, puts atomic.Int64
}

func (s *showing) GetItem(ctx context.Context, in *dynamodb.GetItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	s.gets.Add(1)
	return s.Client.GetItem(ctx, in, opts...)
}

func (s *showing) PutItem(ctx context.Context, in *dynamodb.PutItemInput, opts ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	s.puts.Add(1)
	out, err := s.Client.PutItem(ctx, in, opts...)
	failed, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
	if !ok || in.ReturnValuesOnConditionCheckFailure != types.ReturnValuesOnConditionCheckFailureAllOld {
		return out, err
	}
	now, getErr := s.Client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: in.TableName, Key: map[string]types.AttributeValue{"pk": in.Item["pk"]}, ConsistentRead: aws.Bool(true),
	})
	if getErr != nil {
		return nil, getErr
	}
	failed.Item = now.Item
	return nil, err
}

// TestShownItems: a check that came too late goes on with the item that the failure shows,
// unless that is nothing to go on with.
func TestShownItems(t *testing.T) {
	t.Parallel()
	hour := count{time.Hour.Milliseconds()}
	for name, tc := range map[string]struct {
		happens    func(other *dynamostore.Store, key string) error
		want       int64 // 0 for an error
		gets, puts int64
	}{
		"a check": {func(other *dynamostore.Store, _ string) error {
			_, err := other.Apply(t.Context(), "k", hour, 10)
			return err
		}, 12, 1, 2},
		"a reset": {func(other *dynamostore.Store, _ string) error { return other.Reset(t.Context(), "k") }, 1, 2, 2},
		"nonsense": {func(_ *dynamostore.Store, key string) error {
			write(t, newClient(t, server), key, map[string]string{"state": "S1", "version": "Sone"})
			return nil
		}, 0, 2, 1},
	} {
		config := dynamostore.Config{Prefix: newPrefix()}
		client := &showing{Client: newClient(t, server)}
		other := newStore(t, client.Client, config)
		if _, err := other.Apply(t.Context(), "k", hour, 1); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		meddled := meddling{hour, func() {
			once.Do(func() {
				if err := tc.happens(other, config.Prefix+":k"); err != nil {
					t.Error(err)
				}
			})
		}}
		d, err := newStore(t, client, config).Apply(t.Context(), "k", meddled, 1)
		if tc.want == 0 {
			if !errors.Is(err, throttlekit.ErrStoreUnavailable) {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
		} else if err != nil || d.Remaining != tc.want {
			t.Errorf("%s: %+v, %v, want %d", name, d, err, tc.want)
		}
		if gets, puts := client.gets.Load(), client.puts.Load(); gets != tc.gets || puts != tc.puts {
			t.Errorf("%s: %d reads and %d writes, want %d and %d", name, gets, puts, tc.gets, tc.puts)
		}
	}
}

// meddling is a count during whose decision something happens.
type meddling struct {
	count

	happens func()
}

func (m meddling) Apply(rec throttlekit.Record, now int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	m.happens()
	return m.count.Apply(rec, now, cost)
}

// TestContention: who always comes too late gives up, with an error and without a charge.
func TestContention(t *testing.T) {
	t.Parallel()
	for _, retries := range []int{-1, 3} {
		config := dynamostore.Config{Prefix: newPrefix(), MaxRetries: retries}
		client := newClient(t, server)
		other := newStore(t, client, config)
		hour := count{time.Hour.Milliseconds()}
		b := &between{Client: client, happens: func(ctx context.Context) error {
			_, err := other.Apply(ctx, "k", hour, 1)
			return err
		}}
		_, err := newStore(t, b, config).Apply(t.Context(), "k", hour, 100)
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) {
			t.Errorf("%v, want that the store is unavailable", err)
		}
		tries := int64(max(0, retries) + 1)
		if d, err := other.Apply(t.Context(), "k", hour, 0); err != nil || d.Remaining != tries || b.puts.Load() != tries {
			t.Errorf("%+v, %v after %d tries, want %d", d, err, b.puts.Load(), tries)
		}
	}
}

// TestUnknownOutcomes: a write that may have happened is not repeated; one that DynamoDB
// has refused is.
func TestUnknownOutcomes(t *testing.T) {
	t.Parallel()
	for code, again := range map[string]bool{
		"ThrottlingException": true, "ProvisionedThroughputExceededException": true, "RequestLimitExceeded": true,
		"InternalServerError": false, "ServiceUnavailable": false, "AccessDeniedException": false, "ValidationException": false,
	} {
		config := dynamostore.Config{Prefix: newPrefix()}
		client := newClient(t, server)
		var once sync.Once
		b := &between{Client: client, happens: func(context.Context) (err error) {
			once.Do(func() { err = &smithy.GenericAPIError{Code: code, Message: "as told"} })
			return err
		}}
		d, err := newStore(t, b, config).Apply(t.Context(), "k", rule(t, slow), 1)
		if again && (err != nil || !d.Allowed || b.puts.Load() != 2) {
			t.Errorf("%s: %+v, %v after %d writes, want a decision after 2", code, d, err, b.puts.Load())
		}
		if !again && (!errors.Is(err, throttlekit.ErrStoreUnavailable) || b.puts.Load() != 1) {
			t.Errorf("%s: %+v, %v after %d writes, want an error after 1", code, d, err, b.puts.Load())
		}
	}
	failed := &types.ConditionalCheckFailedException{}
	b := &between{Client: newClient(t, server), happens: func(context.Context) error { return failed }}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := newStore(t, b, dynamostore.Config{MaxRetries: 1e6}).Apply(ctx, "k", rule(t, slow), 1)
	if !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("tries that go on until the deadline end with %v", err)
	}
}

// TestFleet: stores as of eight processes admit together exactly the limit.
func TestFleet(t *testing.T) {
	t.Parallel()
	const processes, checks, limit = 8, 200, 50
	for _, s := range []throttlekit.Strategy{
		throttlekit.GCRA{Limit: limit, Period: 1000 * time.Hour},
		throttlekit.TokenBucket{Capacity: limit, RefillPerSec: 0.0001},
		throttlekit.SlidingWindowLog{Limit: limit, Window: 1000 * time.Hour},
	} {
		r := rule(t, s)
		config := dynamostore.Config{Prefix: newPrefix(), MaxRetries: 1000, Timeout: time.Minute}
		client := newClient(t, server)
		var stores []*dynamostore.Store
		for range processes {
			stores = append(stores, newStore(t, client, config))
		}
		var admitted atomic.Int64
		var running sync.WaitGroup
		for i := range checks {
			running.Go(func() {
				d, err := stores[i%processes].Apply(context.WithoutCancel(t.Context()), "k", r, 1)
				if err != nil {
					t.Error(err)
				}
				if d.Allowed {
					admitted.Add(1)
				}
			})
		}
		running.Wait()
		if got := admitted.Load(); got != limit {
			t.Errorf("%s: %d of %d checks at once were admitted, want %d", r.Name(), got, checks, limit)
		}
		if n := stores[0].Waiting(); n != 0 {
			t.Errorf("%d keys are still remembered", n)
		}
	}
}

// TestTurns: in one process, checks on one key do not compete, and who stops waiting is forgotten.
func TestTurns(t *testing.T) {
	t.Parallel()
	client := newClient(t, server)
	var store *dynamostore.Store
	release, reached := make(chan struct{}), make(chan struct{}, 1)
	b := &between{Client: client, happens: func(context.Context) error {
		select {
		case reached <- struct{}{}:
		default:
		}
		<-release
		return nil
	}}
	store = newStore(t, b, dynamostore.Config{})
	hour := count{time.Hour.Milliseconds()}
	var running sync.WaitGroup
	for range 10 {
		running.Go(func() {
			if _, err := store.Apply(context.WithoutCancel(t.Context()), "k", hour, 1); err != nil {
				t.Error(err)
			}
		})
	}
	<-reached
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := store.Apply(ctx, "k", hour, 1); !errors.Is(err, throttlekit.ErrStoreUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting in vain ends with %v", err)
	}
	stopped, stop := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, stop)
	if err := store.Reset(stopped, "k"); !errors.Is(err, context.Canceled) || errors.Is(err, throttlekit.ErrStoreUnavailable) {
		t.Errorf("a caller that stops waiting gets %v", err)
	}
	if n := store.Waiting(); n != 1 {
		t.Errorf("%d keys are in use, want 1", n)
	}
	close(release)
	running.Wait()
	if puts := b.puts.Load(); puts != 10 {
		t.Errorf("10 checks took %d writes", puts)
	}
	if n := store.Waiting(); n != 0 {
		t.Errorf("%d keys are still remembered", n)
	}
}

// TestBatchStops: after an error, a batch begins nothing new.
func TestBatchStops(t *testing.T) {
	t.Parallel()
	b := &between{Client: newClient(t, server), happens: func(context.Context) error {
		return &smithy.GenericAPIError{Code: "InternalServerError"}
	}}
	var ops []throttlekit.Op
	for i := range 1000 {
		ops = append(ops, throttlekit.Op{Key: strconv.Itoa(i), Transition: rule(t, slow), Cost: 1})
	}
	_, err := newStore(t, b, dynamostore.Config{}).Batch(t.Context(), ops, throttlekit.CommitEach)
	if !errors.Is(err, throttlekit.ErrStoreUnavailable) || errors.Is(err, context.Canceled) || b.puts.Load() > 32 {
		t.Errorf("%v after %d writes", err, b.puts.Load())
	}
}

package throttlekit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

func memory(t *testing.T, config MemoryConfig) *MemoryStore {
	t.Helper()
	store, err := NewMemoryStore(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func TestMemoryConfigIsValidated(t *testing.T) {
	t.Parallel()
	_, err := NewMemoryStore(MemoryConfig{MaxKeys: -1, Overflow: 7})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "maxKeys") || !strings.Contains(err.Error(), "overflow") {
		t.Error(err)
	}
}

func TestFullStoreRefusesNewKeysAndKeepsOldOnes(t *testing.T) {
	t.Parallel()
	clock := NewManualClock(0)
	store := memory(t, MemoryConfig{Clock: clock, MaxKeys: 3})
	limiter, err := NewLimiter(FixedWindow{Limit: 2, Window: time.Second}, WithStore(store))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, key := range []string{"a", "b", "c"} {
		if _, err := limiter.Check(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	_, err = limiter.Check(ctx, "d")
	if !errors.Is(err, ErrStoreFull) || !errors.Is(err, ErrStoreUnavailable) || !strings.Contains(err.Error(), "maxKeys is 3") {
		t.Errorf("new key: %v", err)
	}
	if _, err := store.Batch(ctx, []Op{{"e", limiter.Rule(), 1}, {"f", limiter.Rule(), 1}}, CommitAll); !errors.Is(err, ErrStoreFull) {
		t.Errorf("new keys in a batch: %v", err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if d, err := limiter.Check(ctx, key); err != nil || !d.Allowed || d.Remaining != 0 {
			t.Errorf("%s was forgotten or refused: %+v, %v", key, d, err)
		}
	}
	if d, err := limiter.CheckN(ctx, "d", 3); err != nil || d.Allowed {
		t.Errorf("a denial needs no room: %+v, %v", d, err)
	}
	if err := limiter.Reset(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := limiter.Check(ctx, "d"); err != nil {
		t.Errorf("there is room after a reset: %v", err)
	}
	clock.Set(1000)
	for _, key := range []string{"e", "f", "g"} {
		if _, err := limiter.Check(ctx, key); err != nil {
			t.Errorf("all records have expired, but %s is refused: %v", key, err)
		}
	}
	if store.Len() != 3 {
		t.Errorf("%d records, want 3", store.Len())
	}
}

func TestFullStoreAdmitsWithoutStateIfAsked(t *testing.T) {
	t.Parallel()
	store := memory(t, MemoryConfig{Clock: NewManualClock(0), MaxKeys: 1, Overflow: AdmitWithoutState})
	rule, err := FixedWindow{Limit: 1, Window: time.Second}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for i, key := range []string{"a", "b", "b"} {
		if d, err := store.Apply(ctx, key, rule, 1); err != nil || !d.Allowed {
			t.Errorf("check %d: %+v, %v", i, d, err)
		}
	}
	d, err := store.Batch(ctx, []Op{{"a", rule, 1}, {"c", rule, 1}}, CommitAny)
	if err != nil || d[0].Allowed || !d[1].Allowed || store.Len() != 1 {
		t.Errorf("%+v, %v, %d records", d, err, store.Len())
	}
}

// The bound holds, and no live record is dropped, while keys come and expire at random.
func TestBoundUnderRandomLoad(t *testing.T) {
	t.Parallel()
	const maxKeys = 50
	random := rand.New(rand.NewPCG(1, 2))
	clock := NewManualClock(1_700_000_000_000)
	bounded := memory(t, MemoryConfig{Clock: clock, MaxKeys: maxKeys})
	oracle := memory(t, MemoryConfig{Clock: clock})
	rules := make([]Rule, 0, 3)
	for _, s := range []Strategy{
		GCRA{Limit: 5, Period: 300 * time.Millisecond}, TokenBucket{Capacity: 3, RefillPerSec: 20}, FixedWindow{Limit: 2, Window: 90 * time.Millisecond},
	} {
		rule, err := s.Rule()
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule)
	}
	refused := 0
	for range 100_000 {
		clock.Advance(time.Duration(random.IntN(4)) * time.Millisecond)
		i := random.IntN(len(rules))
		key := fmt.Sprint(i, ":", random.IntN(100))
		got, err := bounded.Apply(t.Context(), key, rules[i], 1)
		if errors.Is(err, ErrStoreFull) {
			refused++
			continue
		}
		want, errOracle := oracle.Apply(t.Context(), key, rules[i], 1)
		if err != nil || errOracle != nil || got != want {
			t.Fatalf("%s: %+v, %v; want %+v, %v", key, got, err, want, errOracle)
		}
		if bounded.Len() > maxKeys {
			t.Fatalf("%d records", bounded.Len())
		}
	}
	if refused == 0 {
		t.Error("the bound was never met: the test shows nothing")
	}
}

// A store agrees with a map of records, whatever is inserted, reset, expired and swept.
func TestMemoryAgreesWithAMap(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	clock := NewManualClock(0)
	store := memory(t, MemoryConfig{Clock: clock})
	rule, err := FixedWindow{Limit: 3, Window: 5 * time.Second}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	model := map[string]Record{}
	for range 200_000 {
		now := clock.NowMillis()
		key := strconv.Itoa(random.IntN(3000))
		switch random.IntN(100) {
		case 0:
			clock.Advance(time.Duration(random.IntN(2000)) * time.Millisecond)
		case 1:
			store.Sweep()
		case 2, 3, 4, 5:
			if err := store.Reset(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			delete(model, key)
		default:
			next, want, ttl := rule.Apply(model[key], now, 1)
			if ttl > 0 {
				model[key] = next
			}
			if got, err := store.Apply(t.Context(), key, rule, 1); err != nil || got != want {
				t.Fatalf("%s at %d: %+v, %v; want %+v", key, now, got, err, want)
			}
		}
	}
}

func TestExpiredRecordsAreGivenBack(t *testing.T) {
	t.Parallel()
	clock := NewManualClock(1_700_000_000_000)
	store := memory(t, MemoryConfig{Clock: clock})
	limiter, err := NewLimiter(GCRA{Limit: 1, Period: time.Second}, WithStore(store))
	if err != nil {
		t.Fatal(err)
	}
	const keys = 20_000
	for i := range keys {
		if _, err := limiter.Check(t.Context(), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			clock.Advance(time.Millisecond)
		}
	}
	// Some were dropped on the way already: those that were added a second before others.
	if n := store.Len(); n > keys/2 {
		t.Errorf("%d records are kept while new ones come", n)
	}
	clock.Advance(2 * time.Second)
	store.Sweep()
	if n := store.Len(); n != 0 {
		t.Errorf("%d expired records left", n)
	}
	for i := range store.shards {
		if n := len(store.shards[i].table.slots); n > smallestSlots {
			t.Fatalf("an empty shard keeps %d slots", n)
		}
	}
}

// Without a goroutine of its own, an idle store still gives expired records back.
func TestIdleStoreSweepsItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory(t, MemoryConfig{})
		limiter, err := NewLimiter(FixedWindow{Limit: 1, Window: 10 * time.Second}, WithStore(store))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := limiter.Check(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		<-time.After(12 * time.Second)
		synctest.Wait()
		if n := store.Len(); n != 0 {
			t.Errorf("%d records left", n)
		}
	})
}

func TestAbandonedStoreIsCollected(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	func() {
		store, err := NewMemoryStore(MemoryConfig{})
		if err != nil {
			t.Fatal(err)
		}
		limiter, err := NewLimiter(FixedWindow{Limit: 1, Window: 24 * time.Hour}, WithStore(store))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := limiter.Check(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		runtime.AddCleanup(store, func(int) { close(gone) }, 0)
	}()
	for deadline := time.After(10 * time.Second); ; {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-deadline:
			t.Fatal("a store that nobody uses is kept alive")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestAtomicBatches(t *testing.T) {
	t.Parallel()
	store := memory(t, MemoryConfig{Clock: NewManualClock(0)})
	wide, err := FixedWindow{Limit: 100, Window: time.Second}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	narrow, err := FixedWindow{Limit: 1, Window: time.Second}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	ops := []Op{{"wide", wide, 1}, {"narrow", narrow, 1}}
	for i := range 5 {
		d, err := store.Batch(ctx, ops, CommitAll)
		if err != nil || !d[0].Allowed || d[1].Allowed != (i == 0) || d[0].Remaining != 99-min(int64(i), 1) {
			t.Errorf("all, round %d: %+v, %v", i, d, err)
		}
	}
	for i := range int64(3) {
		d, err := store.Batch(ctx, ops, CommitAny)
		if err != nil || d[0].Remaining != 98-i || d[1].Allowed {
			t.Errorf("any, round %d: %+v, %v", i, d, err)
		}
	}
	if _, err := store.Batch(ctx, []Op{{"k", wide, 1}, {"k", narrow, 1}}, CommitAll); !errors.Is(err, ErrInvalid) {
		t.Errorf("two ops on one key: %v", err)
	}
}

// An insertion of a batch may clear away records that expired, which the same batch renews.
func TestBatchRenewsExpiredRecords(t *testing.T) {
	t.Parallel()
	clock := NewManualClock(0)
	store := memory(t, MemoryConfig{Clock: clock})
	rule, err := FixedWindow{Limit: 1, Window: time.Second}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for round := range int64(200) {
		clock.Set(round * 1000)
		ops := []Op{{"constant", rule, 1}}
		for i := range 40 {
			ops = append(ops, Op{fmt.Sprint(round, ":", i), rule, 1})
		}
		if _, err := store.Batch(ctx, ops, CommitAll); err != nil {
			t.Fatal(err)
		}
		if d, err := store.Apply(ctx, "constant", rule, 1); err != nil || d.Allowed {
			t.Fatalf("round %d: the batch's charge was lost: %+v, %v", round, d, err)
		}
	}
}

// Batches over keys in any order neither deadlock nor charge in part.
func TestConcurrentBatches(t *testing.T) {
	t.Parallel()
	store := memory(t, MemoryConfig{Clock: NewManualClock(0)})
	rule, err := FixedWindow{Limit: 1000, Window: time.Second}.Rule()
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"a", "b", "c", "d", "e"}
	var wait sync.WaitGroup
	for g := range uint64(4) {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(g, 5))
			for range 1000 {
				ops := make([]Op, 0, len(keys))
				for _, i := range random.Perm(len(keys)) {
					ops = append(ops, Op{keys[i], rule, 1})
				}
				if _, err := store.Batch(t.Context(), ops, CommitAll); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	for _, key := range keys {
		if d, err := store.Apply(t.Context(), key, rule, 1); err != nil || d.Allowed || d.Remaining != 0 {
			t.Errorf("%s: %+v, %v; want exactly 1000 charged", key, d, err)
		}
	}
}

type panicking struct{ Rule }

func (panicking) Apply(Record, int64, float64) (Record, Decision, int64) { panic("a user's mistake") }

func TestPanickingTransitionLeavesTheStoreUsable(t *testing.T) {
	t.Parallel()
	limiter, _ := manual(t, GCRA{Limit: 10, Period: time.Second}, 0)
	check(t, limiter, 1, true)
	for _, op := range []func(){
		func() { _, _ = limiter.store.Apply(t.Context(), "k", panicking{limiter.Rule()}, 1) },
		func() { _, _ = limiter.store.Batch(t.Context(), []Op{{"k", panicking{limiter.Rule()}, 1}}, CommitAll) },
	} {
		func() {
			defer func() { _ = recover() }()
			op()
		}()
		check(t, limiter, 1, true)
	}
}

func TestShardsFillCacheLines(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(shard{}); strconv.IntSize == 64 && size != 128 {
		t.Errorf("a shard takes %d bytes", size)
	}
}

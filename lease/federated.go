package lease

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/internal/monotonic"
)

// OutageMode says what a [Federated] does while its coordinator does not answer. In either
// mode it serves what it was lent before, and no window admits more than the limit.
type OutageMode string

// The outage modes, spelled as policy files spell them.
const (
	// FailClosed asks the coordinator again for each request that is short, and denies it.
	FailClosed OutageMode = "fail-closed"
	// RegionalOnly spends what the region's escrow has, and asks the coordinator again only
	// once in each probe interval.
	RegionalOnly OutageMode = "regional-only"
)

// FederatedConfig describes a [Federated].
type FederatedConfig struct {
	// Coordinator lends the fleet's budget. It is required.
	Coordinator *Coordinator
	// Batch is how many units to ask for at once; at least 1. Defaults to 16.
	Batch int64
	// LowWater is at how many units left the next lease is fetched ahead. Defaults to 0,
	// which fetches when a request is short.
	LowWater int64
	// Regional is a store near by, which the processes of a region share: what one of them
	// leases beyond its batch lies there for the others. It stays open. Defaults to none.
	Regional throttlekit.Store
	// Region names the region in the keys of Regional, which are "tk:l2:region:" and the
	// coordinator's key. It must not contain a colon. Defaults to "default".
	Region string
	// RegionalBatch is how many units to ask the coordinator for at once if there is a
	// Regional store. Defaults to ten times Batch.
	RegionalBatch int64
	// OnOutage defaults to FailClosed. RegionalOnly needs a Regional store.
	OnOutage OutageMode
	// ProbeInterval is how often RegionalOnly asks a coordinator that does not answer; at
	// least a millisecond. Defaults to 5 seconds.
	ProbeInterval time.Duration
	// OnError is called each time that the coordinator does not answer, with its error,
	// which no caller sees. It must return quickly. Defaults to silence.
	OnError func(err error)
	// ReturnIdleAfter gives the units of keys back that nobody has asked for during this
	// time; with a Regional store they are dropped. Defaults to never.
	ReturnIdleAfter time.Duration
	// MaxKeys bounds for how many keys units are held; see [TwoTierConfig]. Defaults to 65,536.
	MaxKeys int
	// Elapsed is a monotonic clock. Defaults to the process's.
	Elapsed func() time.Duration
}

// Federated is one member of a fleet that shares a limit through a [Coordinator]. It is safe
// for concurrent use.
type Federated struct {
	config FederatedConfig
	table  *table
	escrow *escrow // nil if there is no regional store

	probeAt atomic.Int64 // when a coordinator that failed may be asked again; 0 if it did not
	outages atomic.Int64
}

// NewFederated returns a member of the coordinator's fleet. The error matches [throttlekit.ErrInvalid].
func NewFederated(config FederatedConfig) (*Federated, error) {
	config.complete()
	if err := config.judge(); err != nil {
		return nil, err
	}
	f := &Federated{config: config}
	if config.Regional != nil {
		f.escrow = &escrow{store: config.Regional, prefix: EscrowPrefix + ":" + config.Region + ":" + config.Coordinator.prefix}
	}
	f.table = newTable(config.MaxKeys, config.ReturnIdleAfter, config.Elapsed, func(key string) (*Holder, error) {
		return NewHolder(HolderConfig{
			Source: federatedSource{f}, Key: key, Limit: config.Coordinator.Limit(),
			Batch: config.Batch, LowWater: config.LowWater, Elapsed: config.Elapsed,
		})
	})
	return f, nil
}

func (c *FederatedConfig) complete() {
	if c.Batch == 0 {
		c.Batch = 16
	}
	if c.RegionalBatch == 0 {
		c.RegionalBatch = min(c.Batch, throttlekit.MaxSafe/10) * 10
	}
	if c.Region == "" {
		c.Region = "default"
	}
	if c.OnOutage == "" {
		c.OnOutage = FailClosed
	}
	if c.ProbeInterval == 0 {
		c.ProbeInterval = 5 * time.Second
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = defaultMaxKeys
	}
	if c.Elapsed == nil {
		c.Elapsed = monotonic.Elapsed
	}
}

func (c *FederatedConfig) judge() error {
	var wrong []error
	require := func(ok bool, field string, value any, rule string) {
		if !ok {
			wrong = append(wrong, &throttlekit.InvalidError{Field: field, Value: value, Rule: rule})
		}
	}
	require(c.Coordinator != nil, "coordinator", nil, "must be given")
	require(c.Batch >= 1 && c.Batch <= throttlekit.MaxSafe, "batch", c.Batch, batchRule)
	require(c.RegionalBatch >= 1 && c.RegionalBatch <= throttlekit.MaxSafe, "regionalBatch", c.RegionalBatch, batchRule)
	require(c.Regional == nil || !strings.Contains(c.Region, ":"), "region", c.Region, "must not contain a colon")
	require(c.LowWater >= 0, "lowWater", c.LowWater, "must not be negative")
	require(c.MaxKeys > 0, "maxKeys", c.MaxKeys, "must not be negative")
	require(c.ReturnIdleAfter >= 0, "returnIdleAfter", c.ReturnIdleAfter, "must not be negative")
	require(c.ProbeInterval >= time.Millisecond, "probeInterval", c.ProbeInterval, "must be at least 1ms")
	switch c.OnOutage {
	case FailClosed:
	case RegionalOnly:
		require(c.Regional != nil, "onOutage", string(c.OnOutage), "must not be regional-only without a regional store")
	default:
		require(false, "onOutage", string(c.OnOutage), fmt.Sprintf("must be %s or %s", FailClosed, RegionalOnly))
	}
	return errors.Join(wrong...)
}

// Check decides on a request of cost 1.
func (f *Federated) Check(ctx context.Context, key string) (throttlekit.Decision, error) {
	return f.CheckN(ctx, key, 1)
}

// CheckN decides on a request of the given cost, whole or not at all. In decisions that
// allow, Remaining is what this process holds of the key. While the coordinator does not
// answer, what is held is served and the rest denied, so that an outage never admits more.
//
// The error matches ErrInvalid or ErrClosed of package throttlekit, or is that of ctx.
func (f *Federated) CheckN(ctx context.Context, key string, cost float64) (throttlekit.Decision, error) {
	return f.table.checkN(ctx, key, cost)
}

// CheckMany decides on one request of the given cost for each key, each for itself, and
// returns the decisions in the order of the keys.
func (f *Federated) CheckMany(ctx context.Context, keys []string, cost float64) ([]throttlekit.Decision, error) {
	return checkEach(ctx, keys, func(key string) (throttlekit.Decision, error) { return f.CheckN(ctx, key, cost) })
}

// Outages is how often the coordinator has not answered.
func (f *Federated) Outages() int64 { return f.outages.Load() }

// Close gives back the units that are held, unless there is a Regional store. The stores
// stay open.
func (f *Federated) Close() error { return f.table.close() }

// federatedSource lends to the holders of a member: the region's escrow first, then the
// coordinator, whose surplus goes into the escrow.
type federatedSource struct{ *Federated }

// Lease implements [Source].
func (f federatedSource) Lease(ctx context.Context, key string, least, wants int64) (Grant, error) {
	ask := wants
	var since int64 // the region's time, which is later by now
	var regional bool
	if f.escrow != nil {
		g, now, err := f.escrow.lease(ctx, key, least, wants)
		if err == nil && g.Units > 0 {
			return g, nil
		}
		if regional = err == nil; regional {
			since, ask = now, max(wants, f.config.RegionalBatch)
		}
	}
	if !f.mayAsk() {
		return f.denied(), nil
	}
	g, err := f.config.Coordinator.Lease(ctx, key, least, ask)
	if err != nil {
		return f.failed(err)
	}
	f.probeAt.Store(0)
	if surplus := g.Units - wants; surplus > 0 && regional {
		g.Units = wants
		// The region's clock has advanced since the escrow answered by at least the time
		// since the coordinator was asked, so what lasts for a time since then ends early. A
		// surplus that cannot be put by is lost, which no limit minds.
		_ = f.escrow.fill(ctx, key, surplus, g.ResetAtMillis, since, g.Lasts)
	}
	return g, nil
}

// mayAsk reports whether the coordinator answers as far as is known, or is to be asked
// again to find out. Of many requests at one time, one finds out.
func (f *Federated) mayAsk() bool {
	at := f.probeAt.Load()
	now := f.now()
	return at == 0 || now >= at && f.probeAt.CompareAndSwap(at, now+f.config.ProbeInterval.Milliseconds())
}

// now is never 0, which stands for a coordinator that has not failed.
func (f *Federated) now() int64 { return f.config.Elapsed().Milliseconds() + 1 }

// failed answers in place of a coordinator that did not.
func (f *Federated) failed(err error) (Grant, error) {
	if !errors.Is(err, throttlekit.ErrStoreUnavailable) {
		return Grant{}, err
	}
	f.outages.Add(1)
	if f.config.OnError != nil {
		f.config.OnError(err)
	}
	if f.config.OnOutage == RegionalOnly {
		f.probeAt.Store(f.now() + f.config.ProbeInterval.Milliseconds())
	}
	return f.denied(), nil
}

// denied is the answer while the coordinator is silent. Its times are those of this
// machine's clock and are hints: nothing is decided by them.
func (f *Federated) denied() Grant {
	now := throttlekit.SystemClock{}.NowMillis()
	width := float64(f.config.Coordinator.Window()) / float64(time.Millisecond)
	end := int64(math.Ceil((math.Floor(float64(now)/width) + 1) * width))
	return Grant{Denial: throttlekit.Decision{
		Limit: f.config.Coordinator.Limit(), ResetAtMillis: end, RetryAfterMillis: max(1, end-now),
	}}
}

// Return implements [Source]. With an escrow, nothing is taken back: units that came by way
// of it carry a time of the region's clock, which says nothing to the coordinator.
func (f federatedSource) Return(ctx context.Context, key string, units, resetAtMillis int64) error {
	if f.escrow != nil {
		return nil
	}
	return f.config.Coordinator.Return(ctx, key, units, resetAtMillis)
}

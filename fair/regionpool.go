package fair

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/throttlekit/throttlekit-go"
)

// DefaultPoolPrefix stands before the name of a pool in the keys of stores, as "tk:rfp:name".
const DefaultPoolPrefix = "tk:rfp"

// ErrPoolFull marks a region that a pool could not take because it holds MaxRegions others
// in this window. It matches [throttlekit.ErrStoreUnavailable] as well.
var ErrPoolFull = fmt.Errorf("%w: the region pool is full", throttlekit.ErrStoreUnavailable)

// PoolConfig configures [NewRegionPool].
type PoolConfig struct {
	// Limit is how many units all regions together get in a window: at least 1 and at most
	// [throttlekit.MaxSafe]; a fraction is dropped.
	Limit float64
	// Window is the width of a window; positive. Windows are aligned to the epoch.
	Window time.Duration
	// MaxRegions bounds the regions of a window, up to 4096. Defaults to 256.
	MaxRegions int
}

const (
	defaultRegions = 256
	mostRegions    = 4096
	longestRegion  = 256
)

// RegionPool divides a limit among regions, in proportion to their weights as far as they ask
// for it. It has no state: a record on one key of a Store does, and [RegionPool.Grant] is the
// transition on it. Programs that agree on limit and window share a pool by its key.
//
// A region's grant is a total, which only grows in a window. Of L, region r gets up to
//
//	max(granted, L − Σ max(grantedⱼ, ⌊weightⱼ·L/weights⌋)) over all other regions j
//
// so that the grants never sum to more than L. Source: specification "GALE" §4.
type RegionPool struct {
	limit, width float64
	window       time.Duration
	most         int
}

// NewRegionPool returns a pool. The error matches [throttlekit.ErrInvalid].
func NewRegionPool(config PoolConfig) (*RegionPool, error) {
	var c checks
	p := &RegionPool{limit: c.limit(config.Limit), window: config.Window, most: c.bound("maxRegions", config.MaxRegions, defaultRegions)}
	c.window(config.Window)
	c.require(p.most <= mostRegions, "maxRegions", config.MaxRegions, "must be at most 4096")
	if len(c) > 0 {
		return nil, c.err()
	}
	p.width = toMillis(config.Window)
	return p, nil
}

// Grant returns the transition by which a region asks for more: its cost is the total that
// the region wants to have in this window. A fraction of it is rounded up. It always charges
// what there is, and makes the weight that of the region.
//
// The decision reports in Limit the total that the region has then, in Remaining how many units
// of it are new, in ResetAtMillis when the window ends, and in RetryAfterMillis how long it is
// until then on the store's clock. It denies only if the pool has no room for one more
// region; then RetryAfterMillis says when to try again.
//
// The region is UTF-8 text of 1 to 256 bytes; the weight is finite, above 0 and at most
// [throttlekit.MaxSafe]; or the error matches [throttlekit.ErrInvalid].
func (p *RegionPool) Grant(region string, weight float64) (throttlekit.Parameterized, error) {
	var c checks
	c.region(region)
	c.require(positive(weight), "weight", weight, weightRule)
	if len(c) > 0 {
		return nil, c.err()
	}
	return regionMove{pool: p, region: region, weight: weight}, nil
}

// GiveBack returns the transition by which a region gives up its weight, and as many units as
// its cost says that it was granted and has not used in the window that ends at resetAtMillis;
// a cost of 0 gives up the weight alone. If that window is over, nothing changes and the
// decision denies. Units that have been used must never be given back.
func (p *RegionPool) GiveBack(region string, resetAtMillis int64) (throttlekit.Parameterized, error) {
	var c checks
	c.region(region)
	c.require(resetAtMillis > 0 && resetAtMillis <= throttlekit.MaxSafe, "resetAtMillis", resetAtMillis, "must be that of a grant")
	if len(c) > 0 {
		return nil, c.err()
	}
	return regionMove{pool: p, region: region, until: resetAtMillis}, nil
}

func (c *checks) region(region string) {
	c.require(region != "" && len(region) <= longestRegion && utf8.ValidString(region), "region", region,
		"must be UTF-8 text of 1 to 256 bytes")
}

// regionMove is a region's step on the record of a pool. A record's A is the start of its
// window, Extra a []region sorted by name. With an until it gives back; otherwise it asks.
type regionMove struct {
	pool   *RegionPool
	region string
	weight float64
	until  int64
}

// region is one region of a window.
type region struct {
	name            string
	weight, granted float64
}

// Name implements [throttlekit.Transition].
func (m regionMove) Name() string { return "regionPool" }

// Parameters implements [throttlekit.Parameterized]: limit, width of the window in
// milliseconds, most regions, weight, the end of the window that units are given back to or 0,
// and the region.
func (m regionMove) Parameters() []string {
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', 17, 64) }
	return []string{
		number(m.pool.limit), number(m.pool.width), strconv.Itoa(m.pool.most), number(m.weight), strconv.FormatInt(m.until, 10), m.region,
	}
}

// Apply implements [throttlekit.Transition].
func (m regionMove) Apply(rec throttlekit.Record, nowMillis int64, cost float64) (throttlekit.Record, throttlekit.Decision, int64) {
	now, start := float64(nowMillis), rec.A
	regions, _ := rec.Extra.([]region)
	if len(regions) == 0 || now >= start+m.pool.width {
		start, regions = windowStart(now, m.pool.width), nil
	}
	i, known := slices.BinarySearchFunc(regions, m.region, func(r region, name string) int { return cmp.Compare(r.name, name) })
	end := start + m.pool.width
	lasts := max(1, ceil(end-now))
	d := throttlekit.Decision{ResetAtMillis: ceil(end), RetryAfterMillis: lasts}
	switch {
	case m.until != 0 && (!known || m.until != d.ResetAtMillis), !known && len(regions) >= m.pool.most:
		return rec, d, 0
	case known:
		regions = slices.Clone(regions)
	default:
		regions = slices.Insert(slices.Clone(regions), i, region{name: m.region})
	}
	r := &regions[i]
	before := r.granted
	r.weight = m.weight
	if m.until != 0 {
		r.granted = max(0, r.granted-math.Ceil(cost))
	} else if want := math.Ceil(cost); want > r.granted {
		r.granted = max(r.granted, min(want, math.Floor(m.pool.limit-held(regions, i, m.pool.limit))))
	}
	d.Allowed, d.Limit, d.Remaining = true, whole(r.granted), whole(max(0, r.granted-before))
	return throttlekit.Record{A: start, Extra: regions}, d, lasts
}

// held is what all regions but one hold of a limit: what they were granted, or may still
// claim if that is more. Sums are from the least summand up, so that they do not depend on
// the order in which a store keeps regions.
func held(regions []region, but int, limit float64) float64 {
	all := make([]float64, 0, len(regions))
	for _, r := range regions {
		all = append(all, r.weight)
	}
	weights := sum(all)
	parts := all[:0]
	for i, r := range regions {
		if i != but {
			parts = append(parts, max(r.granted, math.Floor(float64(r.weight*limit)/weights)))
		}
	}
	return sum(parts)
}

func sum(parts []float64) (total float64) {
	slices.Sort(parts)
	for _, x := range parts {
		total += x
	}
	return total
}

// poolText is the JSON form of a record.
type poolText struct {
	Start   *float64               `json:"ws"`
	Regions map[string]*regionText `json:"regions"`
}

type regionText struct {
	Weight  float64 `json:"w"`
	Granted float64 `json:"g"`
}

// Encode implements [throttlekit.Transition].
func (m regionMove) Encode(rec throttlekit.Record) ([]byte, error) {
	regions, _ := rec.Extra.([]region)
	text := poolText{Start: &rec.A, Regions: make(map[string]*regionText, len(regions))}
	for _, r := range regions {
		text.Regions[r.name] = &regionText{Weight: r.weight, Granted: r.granted}
	}
	return json.Marshal(text)
}

// Decode implements [throttlekit.Transition].
func (m regionMove) Decode(text []byte) (throttlekit.Record, error) {
	var t poolText
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&t)
	if err == nil {
		if _, trailing := d.Token(); trailing != io.EOF {
			err = errors.New("trailing data")
		}
	}
	if err == nil && t.Start == nil {
		err = errors.New("a field is missing")
	}
	regions := make([]region, 0, len(t.Regions))
	for name, r := range t.Regions {
		if name == "" || r == nil || !(r.Weight >= 0) || !(r.Granted >= 0) {
			err = cmp.Or(err, errors.New("a region is not valid"))
			continue
		}
		regions = append(regions, region{name, r.Weight, r.Granted})
	}
	if err != nil {
		return throttlekit.Record{}, fmt.Errorf("fair: corrupt %s record: %w", m.Name(), err)
	}
	slices.SortFunc(regions, func(a, b region) int { return cmp.Compare(a.name, b.name) })
	return throttlekit.Record{A: *t.Start, Extra: regions}, nil
}

// fetch asks a store for more of a pool. It is what [FederatedEscrow] does.
func (p *RegionPool) fetch(ctx context.Context, store throttlekit.Store, key, region string, o order) (delivery, error) {
	move := regionMove{pool: p, region: region, weight: min(o.weights, throttlekit.MaxSafe)}
	d, err := store.Apply(ctx, key, move, min(o.total+o.units, throttlekit.MaxSafe))
	switch {
	case err != nil:
		return delivery{}, err
	case !d.Allowed:
		return delivery{}, fmt.Errorf("%w: maxRegions is %d, and region %q is not among them", ErrPoolFull, p.most, region)
	}
	total := float64(d.Limit)
	return delivery{
		units: float64(d.Remaining), total: total, end: d.ResetAtMillis, lasts: millis(d.RetryAfterMillis),
		grew: d.Remaining > 0 || total != o.total,
	}, nil
}

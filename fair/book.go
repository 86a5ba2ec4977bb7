package fair

import (
	"math"
	"slices"

	"github.com/throttlekit/throttlekit-go"
)

// book is the account of one window: who is active, with which weight, and who has used
// what. It does no I/O, reads no clock and takes no lock.
type book struct {
	most  int            // how many seats there may be
	seats []seat         // in the order of arrival, beginning at head
	head  int            // 0 until the seats are all taken
	index map[string]int // places in seats

	evicted float64 // used by tenants without a seat
	// weights and used are running sums over all seats, and evicted in the latter. They are
	// exact, and therefore equal to a count in the order of arrival, as long as every
	// summand is a whole number; when one is not, the sums are counted each time.
	weights, used float64
	fractional    bool // until the next window

	reserve reserve
}

// seat is an active tenant.
type seat struct {
	tenant       string
	weight, used float64
}

// reserve is the sum of what all tenants may still use of their guarantees, as long as
// nobody comes or goes and the budget is the same.
type reserve struct {
	known       bool
	budget, sum float64
}

func newBook(most int) book { return book{most: most, index: make(map[string]int)} }

// clear begins a new window.
func (b *book) clear() {
	clear(b.seats) // lets go of the names
	clear(b.index)
	*b = book{most: b.most, seats: b.seats[:0], index: b.index}
}

// seat is the tenant's seat, with the weight that it has now. It is valid until the next
// call. A full book gives the seat of whoever came first to whoever comes last.
func (b *book) seat(tenant string, weight float64) *seat {
	if i, ok := b.index[tenant]; ok {
		s := &b.seats[i]
		if s.weight != weight {
			b.weigh(weight, s.weight)
			s.weight = weight
		}
		return s
	}
	i := len(b.seats)
	if i < b.most {
		b.seats = append(b.seats, seat{tenant: tenant, weight: weight})
		b.weigh(weight, 0)
	} else {
		i = b.head
		old := &b.seats[i]
		delete(b.index, old.tenant)
		b.evicted += old.used
		b.weigh(weight, old.weight)
		*old = seat{tenant: tenant, weight: weight}
		b.head = (i + 1) % b.most
	}
	b.index[tenant] = i
	return &b.seats[i]
}

// weigh notes that a weight has come and another gone, 0 for none.
func (b *book) weigh(come, gone float64) {
	b.weights += come - gone
	b.fractional = b.fractional || come != math.Trunc(come) || b.weights > throttlekit.MaxSafe
	b.reserve.known = false
}

// remove takes a tenant's seat away. What it has used stays used.
func (b *book) remove(tenant string) {
	i, ok := b.index[tenant]
	if !ok {
		return
	}
	s := b.seats[i]
	b.evicted += s.used
	b.weigh(0, s.weight)
	ordered := slices.Concat(b.seats[b.head:], b.seats[:b.head])
	ordered = slices.DeleteFunc(ordered, func(other seat) bool { return other.tenant == tenant })
	clear(b.index)
	for i, s := range ordered {
		b.index[s.tenant] = i
	}
	b.seats, b.head = ordered, 0
}

// inOrder visits the seats in the order of arrival.
func (b *book) inOrder(visit func(s *seat)) {
	for i := range b.seats {
		if i += b.head; i >= len(b.seats) {
			i -= len(b.seats)
		}
		visit(&b.seats[i])
	}
}

// sums are the weight of the active tenants and what has been used in the window.
func (b *book) sums() (weights, used float64) {
	if !b.fractional {
		return b.weights, b.used
	}
	used = b.evicted
	b.inOrder(func(s *seat) {
		weights += s.weight
		used += s.used
	})
	return weights, used
}

// guarantee is ⌊(weight·budget)/weights⌋, multiplying first.
func guarantee(weight, budget, weights float64) float64 {
	return math.Floor(float64(weight*budget) / weights)
}

// claim is what of its guarantee a tenant has not used yet.
func (s *seat) claim(budget, weights float64) float64 {
	return max(0, guarantee(s.weight, budget, weights)-s.used)
}

// othersClaims is what all tenants but one may still claim of a budget.
func (b *book) othersClaims(one *seat, budget float64) (sum float64) {
	weights, _ := b.sums()
	if b.fractional {
		b.inOrder(func(s *seat) {
			if s != one {
				sum += s.claim(budget, weights)
			}
		})
		return sum
	}
	if !b.reserve.known || b.reserve.budget != budget {
		var weight, share float64
		for i := range b.seats {
			s := &b.seats[i]
			if s.weight != weight { // neighbours mostly weigh the same
				weight, share = s.weight, guarantee(s.weight, budget, weights)
			}
			sum += max(0, share-s.used)
		}
		b.reserve = reserve{known: true, budget: budget, sum: sum}
	}
	return b.reserve.sum - one.claim(budget, weights)
}

// verdict is what a check of an escrow came to.
type verdict struct {
	allowed          bool
	limit, remaining float64
}

// try decides whether a tenant may use cost of a budget, and charges it if so: within its
// guarantee always, beyond it by what nobody else has a claim on, and never by more than
// the cost at a time, which is deficit round robin. Specification: "GALE" §4, decide.
func (b *book) try(s *seat, cost, budget float64) verdict {
	weights, used := b.sums()
	share, rest := guarantee(s.weight, budget, weights), budget-used
	if cost > rest {
		return verdict{limit: max(share, s.used), remaining: max(0, share-s.used)}
	}
	ceiling := share
	if s.used+cost > share {
		available := max(0, rest-b.othersClaims(s, budget))
		ceiling += min(s.used+cost-share, cost, available, rest)
	}
	allowed := s.used+cost <= ceiling
	if allowed {
		b.charge(s, cost)
	}
	return verdict{allowed: allowed, limit: ceiling, remaining: max(0, ceiling-s.used)}
}

// charge notes that a tenant has used cost.
func (b *book) charge(s *seat, cost float64) {
	if b.reserve.known {
		before := s.claim(b.reserve.budget, b.weights)
		s.used += cost
		b.reserve.sum -= before - s.claim(b.reserve.budget, b.weights)
	} else {
		s.used += cost
	}
	b.used += cost
	b.fractional = b.fractional || cost != math.Trunc(cost)
}

// Tenant is an active tenant of a window.
type Tenant struct {
	Tenant string
	// Weight is that of its last check, and Used what it was admitted in the window.
	Weight, Used float64
}

// tenants are the active tenants in the order of arrival.
func (b *book) tenants() []Tenant {
	all := make([]Tenant, 0, len(b.seats))
	b.inOrder(func(s *seat) { all = append(all, Tenant{s.tenant, s.weight, s.used}) })
	return all
}

package monitor

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/fair"
	"github.com/throttlekit/throttlekit-go/service"
)

// shownRoom is a policy whose tenants are shown, with the defaults of the policy file.
func shownRoom(policy string, stats fair.Stats) service.ShareState {
	return service.ShareState{
		Policy: policy, Unit: "units (cost)", Shown: true, MaxTenants: 64, Points: 16, Window: time.Minute, Stats: stats,
	}
}

// roomWatch looks at one policy again and again.
type roomWatch struct {
	tb    testing.TB
	rooms costRooms
	now   int64
	state service.ShareState
}

func watchRoom(tb testing.TB) *roomWatch {
	tb.Helper()
	return &roomWatch{tb: tb, now: epoch, state: shownRoom("p", fair.Stats{WindowStartMillis: epoch, Limit: 100, EffectiveLimit: 100})}
}

var roomHasher = hasher{maphash.MakeSeed()}

// after looks some milliseconds later, when tenants of weight 1, a to z, have used so much.
func (w *roomWatch) after(elapsed int64, used ...float64) CostRoom {
	w.tb.Helper()
	w.now += elapsed
	s := &w.state.Stats
	s.Tenants, s.TotalUsed = nil, 0
	for i, x := range used {
		s.Tenants = append(s.Tenants, fair.Tenant{Tenant: string(rune('a' + i)), Weight: 1, Used: x})
		s.TotalUsed += x
	}
	s.Pool = s.EffectiveLimit - s.TotalUsed
	list := w.rooms.look([]service.ShareState{w.state}, roomHasher, w.now)
	if len(list) != 1 || list[0].Policy != "p" {
		w.tb.Fatalf("got %+v", list)
	}
	return list[0]
}

// told is what a room says of the burning, in short: rate, ETA of the guarantee after now, and why not.
func (w *roomWatch) told(room CostRoom) string {
	rows := make([]string, 0, len(room.Tenants)+1)
	for _, t := range room.Tenants {
		row := t.Tenant
		if t.BurnPerSec != nil {
			row += fmt.Sprintf(" %g/s", *t.BurnPerSec)
		}
		if t.EtaToExhaustAt != nil {
			row += fmt.Sprintf(" in %d", *t.EtaToExhaustAt-w.now)
		}
		if t.EtaCappedByWindow {
			row += " capped"
		}
		if t.BurnReason != "" {
			row += " " + t.BurnReason
		}
		rows = append(rows, row)
	}
	if room.PoolEtaToExhaustAt != nil {
		rows = append(rows, fmt.Sprintf("pool in %d", *room.PoolEtaToExhaustAt-w.now))
	}
	return strings.Join(rows, ", ")
}

func (w *roomWatch) expect(want string, room CostRoom) {
	w.tb.Helper()
	if got := w.told(room); got != want {
		w.tb.Errorf("at %d: got %q, want %q", w.now-epoch, got, want)
	}
}

// The rules of the server specification, §3.4, step by step.
func TestBurn(t *testing.T) {
	t.Parallel()
	w := watchRoom(t)
	w.expect("a warming, b warming", w.after(0, 10, 5))
	w.expect("a warming, b warming", w.after(500, 20, 5))
	w.expect("a 10/s in 3000, b 0/s idle, pool in 7500", w.after(500, 20, 5))
	w.expect("a 10/s in 2000, b 1/s in 43000, pool in 5728", w.after(1000, 30, 7)) // 63 units at 11 a second
	room := w.after(2000, 80, 9)
	w.expect("a 17.5/s, b 1/s in 41000, pool in 595", room) // a has used up what it is guaranteed
	if a, b := room.Tenants[0], room.Tenants[1]; a.Guaranteed != 50 || a.Borrowed != 30 || b.Guaranteed != 50 || b.Borrowed != 0 {
		t.Errorf("got %+v", room.Tenants)
	}
	w.expect("a 17.5/s, b 1/s in 41000", w.after(0, 91, 9)) // the pool is empty
}

// What lasts longer than the window is said to end with it.
func TestBurnBeyondTheWindow(t *testing.T) {
	t.Parallel()
	w := watchRoom(t)
	w.after(0, 10)
	w.expect("a 0.5/s in 178000 capped", w.after(2000, 11))
	w = watchRoom(t)
	w.state.Window = 2 * time.Second
	w.after(0, 0)
	w.expect("a 50/s in 1000, pool in 1000", w.after(1000, 50)) // just at its end
	w.state.Window -= time.Millisecond
	w.expect("a 50/s in 1000 capped", w.after(0, 50))
	w = watchRoom(t)
	w.state.Window = 1299 * time.Millisecond
	w.expect("a window-too-short", w.after(0, 1))
	w.expect("a 0/s idle", w.after(1000, 1))
}

// After what makes samples incomparable, rates are not known until there are new ones.
func TestBurnBeginsAnew(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(w *roomWatch)
		want   string
	}{
		{"nothing", func(*roomWatch) {}, "a 12/s in 4500, pool in 4500"},
		{"the window advances", func(w *roomWatch) { w.state.Stats.WindowStartMillis += 60_000 }, "a warming"},
		{"the window goes back", func(w *roomWatch) { w.state.Stats.WindowStartMillis-- }, "a warming"},
		{"the clock goes back", func(w *roomWatch) { w.now -= 5000 }, "a warming"},
		{"the clock goes back a little", func(w *roomWatch) { w.now -= 1500 }, "a 10/s in 5400, pool in 5400"},
		{"the policy goes", func(w *roomWatch) { w.rooms.look(nil, roomHasher, w.now) }, "a warming"},
	} {
		w := watchRoom(t)
		w.after(0, 10)
		w.after(2000, 30)
		test.change(w)
		if got := w.told(w.after(1000, 46)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// Refunds lower what was used; they are no negative burning, and what comes after them counts.
func TestBurnAfterRefunds(t *testing.T) {
	t.Parallel()
	w := watchRoom(t)
	w.after(0, 10)
	w.expect("a 0/s idle", w.after(1000, 2))
	w.expect("a 4/s in 22500, pool in 22500", w.after(1000, 10))
}

// However often somebody looks, and however few points there are, rates are known once there was a second to tell them from.
func TestBurnForManyReaders(t *testing.T) {
	t.Parallel()
	for _, points := range []int{0, 2, 3, 16, 64, math.MaxInt32} {
		for _, every := range []int64{1, 7, 100, 250, 999, 1000} {
			w := watchRoom(t)
			w.state.Points, w.state.Stats.EffectiveLimit = points, 1e9
			for used := float64(0); w.now < epoch+20_000; used += float64(every) {
				row := w.after(every, used).Tenants[0]
				switch known := row.BurnPerSec != nil; {
				case w.now < epoch+1000 && known:
					t.Fatalf("%d points, every %d ms: %g/s after %d ms", points, every, *row.BurnPerSec, w.now-epoch)
				case w.now > epoch+4000 && (!known || math.Abs(*row.BurnPerSec-1000) > 1e-6):
					t.Fatalf("%d points, every %d ms: %+v after %d ms", points, every, row, w.now-epoch)
				}
			}
		}
	}
}

// What a room remembers is bounded, whatever the policy asks for and however many tenants there are.
func TestRoomsAreBounded(t *testing.T) {
	t.Parallel()
	w := watchRoom(t)
	w.state.MaxTenants, w.state.Points = math.MaxInt32, math.MaxInt32
	s := &w.state.Stats
	for i := range 5000 {
		s.Tenants = append(s.Tenants, fair.Tenant{Tenant: fmt.Sprintf("%05d %s", i, strings.Repeat("x", 1000)), Weight: 1, Used: float64(i)})
	}
	var rooms []CostRoom
	for turn := range 200 {
		for i := range s.Tenants { // others lead in each turn
			s.Tenants[i].Used = float64((i + turn*1000) % len(s.Tenants))
		}
		rooms = w.rooms.look([]service.ShareState{w.state}, roomHasher, epoch+int64(turn)*1000)
	}
	room := w.rooms.rooms["p"]
	if len(w.rooms.rooms) != 1 || len(room.burns) != maxTracked {
		t.Errorf("%d rooms, %d tenants", len(w.rooms.rooms), len(room.burns))
	}
	for _, b := range room.burns {
		if len(b.points) > maxPoints || cap(b.points) > 2*maxPoints {
			t.Fatalf("%d points, room for %d", len(b.points), cap(b.points))
		}
	}
	if got := rooms[0]; got.ActiveTenants != 5000 || len(got.Tenants) != 12 || got.Tenants[0].Used != 4999 || got.Tenants[11].Used != 4988 {
		t.Errorf("%d tenants, %d shown, %+v", got.ActiveTenants, len(got.Tenants), got.Tenants)
	}
	w.rooms.look(nil, roomHasher, epoch)
	if len(w.rooms.rooms) != 0 {
		t.Error("rooms of policies that are gone are kept")
	}
}

// Tenants whose names begin alike are told apart, and those who are not tracked have no rate.
func TestTenantsOfARoom(t *testing.T) {
	t.Parallel()
	w := watchRoom(t)
	w.state.MaxTenants = 1 // 12 all the same
	long := strings.Repeat("x", 130)
	look := func(at int64, used ...float64) []RoomTenant {
		w.state.Stats.Tenants = []fair.Tenant{{Tenant: " \t", Weight: 9, Used: 99}, {Weight: 9, Used: 99}}
		for i, x := range used {
			w.state.Stats.Tenants = append(w.state.Stats.Tenants, fair.Tenant{Tenant: long + string(rune('a'+i)), Weight: 1, Used: x})
		}
		return w.rooms.look([]service.ShareState{w.state}, roomHasher, epoch+at)[0].Tenants
	}
	thirteen := []float64{13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}
	look(0, thirteen...)
	thirteen[0], thirteen[12] = 15, 14
	rows := look(1000, thirteen...)
	if len(rows) != 12 || rows[0].Tenant != long[:128]+cut || rows[0].Guaranteed != 7 || *rows[0].BurnPerSec != 2 ||
		rows[1].BurnReason != "warming" || rows[1].Used != 14 || rows[2].BurnReason != "idle" {
		t.Errorf("got %+v", rows)
	}
}

// Numbers that JSON cannot hold, and those that make no sense, are 0.
func TestOddShares(t *testing.T) {
	t.Parallel()
	var rooms costRooms
	for _, x := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, math.MaxFloat64, math.SmallestNonzeroFloat64} {
		for turn := range int64(3) {
			list := rooms.look([]service.ShareState{shownRoom("p", fair.Stats{
				WindowStartMillis: epoch, Limit: x, EffectiveLimit: x, TotalUsed: x, Pool: x,
				Tenants: []fair.Tenant{{Tenant: "a", Weight: x, Used: x}, {Tenant: "b", Weight: x, Used: x * float64(turn)}},
			})}, roomHasher, epoch+turn*1000)
			if _, err := json.Marshal(list); err != nil {
				t.Errorf("%g: %v", x, err)
			}
			for _, row := range list[0].Tenants {
				if row.Weight < 0 || row.Used < 0 || row.Guaranteed < 0 || row.Borrowed < 0 || (row.BurnPerSec != nil && *row.BurnPerSec < 0) {
					t.Errorf("%g: %+v", x, row)
				}
			}
		}
	}
}

// Many may look at once.
func TestRoomsAtOnce(t *testing.T) {
	t.Parallel()
	c := newClock()
	h := hubAt(t, c, Config{})
	if err := h.Attach(&facts{shares: []service.ShareState{shownRoom("p", fair.Stats{
		WindowStartMillis: epoch, EffectiveLimit: 9, Pool: 9, Tenants: []fair.Tenant{{Tenant: "a", Weight: 1}},
	})}}); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 200 {
				c.Advance(10 * time.Millisecond)
				h.Snapshot(t.Context())
			}
		})
	}
	readers.Wait()
	if got := h.Snapshot(t.Context()).CostRooms; len(got) != 1 || got[0].Tenants[0].BurnReason != "idle" {
		t.Errorf("got %+v", got)
	}
}

package server

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/throttlekit/throttlekit-go"
	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// admitting has a ceiling of two slots under a rate and a budget, and one of many slots.
const admitting = `
limiters:
  llm:
    strategy: fixedWindow
    limit: 4
    period: 1h
    concurrency: { minLimit: 2, maxLimit: 2 }
    budget: { budget: 100, window: 1h }
  many: { concurrency: { minLimit: 1000, maxLimit: 1000 } }
  queued: { concurrency: { minLimit: 1, maxLimit: 1, queue: 9, queueTimeout: 10s } }
  plain: { strategy: fixedWindow, limit: 4, period: 1h }
`

// admittingService is a service for these policies whose leases last ttl.
func admittingService(tb testing.TB, ttl time.Duration) *service.Service {
	tb.Helper()
	built := must(must(policy.Parse("test", []byte(admitting))).Build(policy.Env{Clock: throttlekit.NewManualClock(epoch)}))
	svc := must(service.New(service.Config{Policies: built, LeaseTTL: ttl}))
	tb.Cleanup(func() { _ = svc.Close() })
	return svc
}

// slots is how many are in flight under a policy.
func slots(tb testing.TB, svc *service.Service, policy string) int {
	tb.Helper()
	for _, g := range svc.Guards() {
		if g.Policy == policy {
			return g.InFlight
		}
	}
	tb.Fatalf("%s has no guard", policy)
	return 0
}

// until waits for something that others bring about.
func until(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("not yet: %s", what)
		}
	}
}

// Through every door a request is admitted under a lease, denied by the axis that binds, and released once.
func TestAdmitThroughEveryDoor(t *testing.T) {
	t.Parallel()
	svc := admittingService(t, time.Hour)
	s, _ := serve(t, svc, local())
	for name, door := range stubs(t, s) {
		ctx, key := t.Context(), "key of "+name
		admit := func(cost int64) *throttlekitv1.AdmitResponse {
			t.Helper()
			res, err := door.Admit(ctx, &throttlekitv1.AdmitRequest{Policy: "llm", Key: key, Cost: cost})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return res
		}
		first, second, third := admit(60), admit(41), admit(0)
		if !first.GetDecision().GetAllowed() || first.GetLeaseId() == "" || first.GetLeaseExpiresAt() <= time.Now().UnixMilli() ||
			first.GetLeaseTtlMs() != time.Hour.Milliseconds() || first.GetBindingAxis() != "" {
			t.Errorf("%s: got %v", name, first)
		}
		if second.GetDecision().GetAllowed() || second.GetLeaseId() != "" || second.GetLeaseExpiresAt() != 0 ||
			second.GetLeaseTtlMs() != 0 || second.GetBindingAxis() != "cost" {
			t.Errorf("%s: got %v", name, second)
		}
		if full := admit(1); full.GetBindingAxis() != "concurrency" || full.GetDecision().GetRetryAfterMs() == 0 {
			t.Errorf("%s: got %v", name, full)
		}
		res, err := door.Heartbeat(ctx, &throttlekitv1.HeartbeatRequest{LeaseIds: []string{"x", first.GetLeaseId(), "", first.GetLeaseId()}})
		if err != nil || !slices.Equal(res.GetLiveIds(), []string{first.GetLeaseId(), first.GetLeaseId()}) ||
			!slices.Equal(res.GetReclaimedIds(), []string{"x", ""}) || res.GetNextDeadline() <= time.Now().UnixMilli() {
			t.Errorf("%s: got %v, %v", name, res, err)
		}
		for _, id := range []string{first.GetLeaseId(), first.GetLeaseId(), "", "x", third.GetLeaseId()} {
			if _, err := door.Release(ctx, &throttlekitv1.ReleaseRequest{LeaseId: id, Dropped: id == "x"}); err != nil {
				t.Errorf("%s: releasing %q: %v", name, id, err)
			}
		}
		for range 2 {
			a := admit(1)
			_, _ = door.Release(ctx, &throttlekitv1.ReleaseRequest{LeaseId: a.GetLeaseId()})
		}
		if spent := admit(1); spent.GetBindingAxis() != "rate" {
			t.Errorf("%s: got %v", name, spent)
		}
		if got := slots(t, svc, "llm"); got != 0 {
			t.Errorf("%s: %d in flight at the end", name, got)
		}
		for _, bad := range []struct {
			req  *throttlekitv1.AdmitRequest
			want codes.Code
		}{
			{&throttlekitv1.AdmitRequest{Policy: "none"}, codes.NotFound},
			{&throttlekitv1.AdmitRequest{Policy: "plain"}, codes.Unimplemented},
			{&throttlekitv1.AdmitRequest{Policy: "llm", Cost: -1}, codes.InvalidArgument},
			{&throttlekitv1.AdmitRequest{Policy: "llm", Value: -1}, codes.InvalidArgument},
			{&throttlekitv1.AdmitRequest{Policy: "llm", Hold: -1}, codes.InvalidArgument},
			{&throttlekitv1.AdmitRequest{Policy: "llm", Hold: 1 << 60}, codes.InvalidArgument},
		} {
			if res, err := door.Admit(ctx, bad.req); codeOf(err) != bad.want {
				t.Errorf("%s: %v: got %v, %v, want %v", name, bad.req, res, err, bad.want)
			}
		}
	}
}

// A thousand admissions of one client live on one call for all of them, and end when their holder does.
func TestHeartbeatsOfAClient(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	svc := admittingService(t, ttl)
	s, _ := serve(t, svc, local())
	c := connectTo(t, s.GRPCAddr().String(), client.WithLeaseTTL(ttl))
	admissions := make([]*client.Admission, 1000)
	var work sync.WaitGroup
	for i := range admissions {
		work.Go(func() { admissions[i] = must(c.Admit(t.Context(), "many", "", client.WithHeartbeat())) })
	}
	work.Wait()
	if a := must(c.Admit(t.Context(), "many", "")); a.Allowed || a.Binding != "concurrency" || a.Held() {
		t.Errorf("got %+v", a.Decision)
	}
	<-time.After(ttl + ttl/2)
	for i, a := range admissions {
		if !a.Held() {
			t.Fatalf("admission %d is lost", i)
		}
	}
	if got := slots(t, svc, "many"); got != 1000 {
		t.Errorf("%d in flight", got)
	}
	for _, a := range admissions[:500] {
		work.Go(func() {
			if err := errors.Join(a.Release(), a.Drop()); err != nil || a.Held() {
				t.Errorf("releasing: %v", err)
			}
		})
	}
	work.Wait()
	if got := slots(t, svc, "many"); got != 500 {
		t.Errorf("%d in flight after 500 releases", got)
	}
	if err := c.Close(); err != nil { // as if the process were gone
		t.Error(err)
	}
	until(t, "all slots are back", func() bool { return slots(t, svc, "many") == 0 })
	if _, reclaimed := svc.Leases(); reclaimed != 500 {
		t.Errorf("%d reclaimed", reclaimed)
	}
}

// Whose slot is gone hears of it: from the service, or by its silence.
func TestReclaimed(t *testing.T) {
	t.Parallel()
	const ttl = 300 * time.Millisecond
	svc := admittingService(t, ttl)
	s, stop := serve(t, svc, local())
	c := connectTo(t, s.GRPCAddr().String(), client.WithLeaseTTL(ttl))
	first := must(c.Admit(t.Context(), "many", "", client.WithHeartbeat()))
	second := must(c.Admit(t.Context(), "many", "", client.WithHeartbeat()))
	id, _ := first.Lease()
	svc.Release(id, true) // behind its back
	gone := func(a *client.Admission) bool {
		select {
		case <-a.Reclaimed():
			return true
		case <-time.After(30 * time.Second):
			return false
		}
	}
	if !gone(first) || first.Held() || !second.Held() {
		t.Error("the first lease is lost and the second one is not, and nobody said so")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !gone(second) || second.Held() {
		t.Error("nobody answers for the second lease, and nobody said so")
	}
	if err := first.Release(); err == nil {
		t.Error("released at a server that is gone")
	}
}

// Do releases what went well, drops what did not, and ends work whose slot is gone.
func TestDo(t *testing.T) {
	t.Parallel()
	const ttl = 300 * time.Millisecond
	svc := admittingService(t, ttl)
	s, _ := serve(t, svc, local())
	c := connectTo(t, s.GRPCAddr().String(), client.WithLeaseTTL(ttl))
	ctx := t.Context()
	failed := errors.New("it failed")
	if err := c.Do(ctx, "llm", "a", func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := c.Do(ctx, "llm", "a", func(context.Context) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if recover() != "oops" {
				t.Error("the panic is lost")
			}
		}()
		_ = c.Do(ctx, "llm", "a", func(context.Context) error { panic("oops") })
	}()
	if got := slots(t, svc, "llm"); got != 0 {
		t.Errorf("%d in flight", got)
	}
	var denied *client.DeniedError
	err := c.Do(ctx, "llm", "a", func(context.Context) error { t.Error("it ran"); return nil }, client.WithCost(98))
	if !errors.As(err, &denied) || !errors.Is(err, client.ErrDenied) || denied.Binding != "cost" || denied.Policy != "llm" {
		t.Errorf("got %v", err)
	}
	err = c.Do(ctx, "many", "", func(ctx context.Context) error {
		<-time.After(2 * ttl) // heartbeats keep it
		if ctx.Err() != nil {
			t.Error("lost while it was kept")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = c.Do(ctx, "many", "", func(ctx context.Context) error {
		if err := svc.Close(); err != nil { // all leases end
			t.Error(err)
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, client.ErrReclaimed) {
		t.Errorf("got %v", err)
	}
	if err := c.Do(ctx, "many", "", func(context.Context) error { return nil }); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// Whatever callers do with what they hold, the backend never has more at once than the policy allows, by its own count.
func TestAdmitUnderLoad(t *testing.T) {
	t.Parallel()
	const ttl = 200 * time.Millisecond
	svc := must(service.New(service.Config{LeaseTTL: ttl, Policies: must(must(policy.Parse("test",
		[]byte("limiters: {eight: {concurrency: {minLimit: 8, maxLimit: 8}}}"))).Build(policy.Env{}))}))
	t.Cleanup(func() { _ = svc.Close() })
	s, _ := serve(t, svc, local())
	var inside, peak, served atomic.Int64
	work := func(ctx context.Context) error {
		now := inside.Add(1)
		defer inside.Add(-1)
		for {
			if seen := peak.Load(); now <= seen || peak.CompareAndSwap(seen, now) {
				break
			}
		}
		served.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
		return nil
	}
	var group sync.WaitGroup
	for range 4 {
		c := connectTo(t, s.GRPCAddr().String(), client.WithLeaseTTL(ttl))
		for range 16 {
			group.Go(func() {
				for range 50 {
					if err := c.Do(t.Context(), "eight", "", work); err != nil && !errors.Is(err, client.ErrDenied) {
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
	if peak.Load() > 8 || served.Load() == 0 {
		t.Errorf("%d at once, %d served", peak.Load(), served.Load())
	}
	until(t, "no slot is held", func() bool { return slots(t, svc, "eight") == 0 })
}

// codeOf is the code of an error of either door, whose numbers are the same.
func codeOf(err error) codes.Code {
	if _, grpc := status.FromError(err); grpc {
		return status.Code(err)
	}
	return codes.Code(connect.CodeOf(err))
}

// Whoever is cut off from a service that lives learns that the slot is gone before the service can give it away.
func TestCutOffHolderLearnsInTime(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	svc := admittingService(t, ttl+ttl/4) // which leaves a busy machine the time to look
	s, _ := serve(t, svc, local())
	line := &stallable{Listener: must(new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")), to: s.GRPCAddr().String()}
	line.serve(t)
	c := connectTo(t, line.Addr().String(), client.WithLeaseTTL(ttl), client.WithDialOptions(grpc.WithUnaryInterceptor(keepTermBack)))
	for range 3 {
		a := must(c.Admit(t.Context(), "many", "", client.WithHeartbeat()))
		<-time.After(ttl) // some heartbeats get through
		line.stall(true)
		<-a.Reclaimed()
		if _, reclaimed := svc.Leases(); slots(t, svc, "many") != 1 {
			t.Errorf("the slot was reclaimed (%d in all) before its holder knew", reclaimed)
		}
		until(t, "the slot is back", func() bool { return slots(t, svc, "many") == 0 })
		line.stall(false)
	}
}

// keepTermBack makes a service one that does not say how long leases last.
func keepTermBack(
	ctx context.Context, method string, req, res any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	err := call(ctx, method, req, res, conn, opts...)
	if admitted, ok := res.(*throttlekitv1.AdmitResponse); ok {
		admitted.LeaseTtlMs = 0
	}
	return err
}

// A slot that was waited for longer than a lease lasts is kept like any other, by the term that the service says.
func TestSlotFromAQueue(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second // a heartbeat must come within it, however busy the machine is
	svc := admittingService(t, ttl)
	s, _ := serve(t, svc, local())
	first, second := connectTo(t, s.GRPCAddr().String()), connectTo(t, s.GRPCAddr().String())
	a := must(first.Admit(t.Context(), "queued", "", client.WithHeartbeat()))
	released := time.AfterFunc(2*ttl, func() {
		if err := a.Release(); err != nil {
			t.Error(err)
		}
	})
	defer released.Stop()
	err := second.Do(t.Context(), "queued", "", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(3 * ttl):
			return nil
		}
	})
	if err != nil {
		t.Error(err)
	}
	if held, reclaimed := svc.Leases(); held != 0 || reclaimed != 0 {
		t.Errorf("%d leases at the end, %d reclaimed", held, reclaimed)
	}
}

// stallable is a line to a server that can be held up, without anybody seeing it closed.
type stallable struct {
	net.Listener

	to string
	mu sync.RWMutex // locked while it stalls
}

func (l *stallable) stall(on bool) {
	if on {
		l.mu.Lock()
	} else {
		l.mu.Unlock()
	}
}

func (l *stallable) serve(t *testing.T) {
	t.Helper()
	var lines sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	lines.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to := must(new(net.Dialer).DialContext(ctx, "tcp", l.to))
			stop := context.AfterFunc(ctx, func() { _, _ = from.Close(), to.Close() })
			lines.Go(func() { l.carry(to, from) })
			lines.Go(func() { l.carry(from, to); stop() })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		lines.Wait()
	})
}

func (l *stallable) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		l.mu.RLock()
		_, failed := to.Write(buffer[:n])
		l.mu.RUnlock()
		if err != nil || failed != nil {
			return
		}
	}
}

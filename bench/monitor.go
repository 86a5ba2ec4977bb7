package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/bench/internal/measure"
	"github.com/throttlekit/throttlekit-go/bench/internal/report"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

const (
	// fullPolicy denies whatever comes after the first request on a key.
	fullPolicy  = "full"
	watchedFile = "limiters: { bench: { strategy: gcra, limit: 1, period: 1m, burst: 10000000000 }," +
		" full: { strategy: gcra, limit: 1, period: 24h } }"

	servedKeys = 1_000_000 // the bound of serve
	hubOfServe = "The hub as serve has it: the only tap, attached to the service, with a CoarseClock to say when decisions were made."
)

// errAdmitted stops a contestant that should deny everything.
var errAdmitted = errors.New("it admitted a request that does not fit")

// monitorRows measure what it costs to be watched.
func monitorRows(s measure.Schedule) []report.Row {
	var rows []report.Row
	for _, keys := range []int{1, 1024} {
		for _, goroutines := range []int{1, 2} {
			for _, name := range []string{benchPolicy, fullPolicy} {
				rows = append(rows, watchedCheckRow(s, name, keys, goroutines))
			}
		}
	}
	rows = append(rows, watchedCallRows(s)...)
	rows = append(rows, slowReaderRows(s)...)
	for _, width := range []int{20, 200} {
		rows = append(rows, hubMemoryRow(width))
	}
	return rows
}

// watched is a service that is watched as serve has it watched, or one that is not.
type watched struct {
	*service.Service

	hub   *monitor.Hub // nil for one that is not
	close func()       // of what the service does not close
}

func newWatched(on bool) (watched, error) {
	env := policy.Env{MaxKeys: servedKeys}
	if !on {
		svc, err := newService(watchedFile, env, service.Config{})
		return watched{svc, nil, func() {}}, err
	}
	hub, err := monitor.New(monitor.Config{Backend: "memory", FailMode: service.FailOpen})
	if err != nil {
		return watched{}, err
	}
	clock := throttlekit.NewCoarseClock()
	closing := func() { _ = clock.Close() }
	svc, err := newService(watchedFile, env, service.Config{Taps: []service.Tap{hub}, Clock: clock})
	if err == nil {
		err = hub.Attach(svc)
	}
	if err != nil {
		closing()
	}
	return watched{svc, hub, closing}, err
}

// watchedCheckRow compares checks in this process.
func watchedCheckRow(s measure.Schedule, name string, keys, goroutines int) report.Row {
	const onAt, offAt = 0, 1
	if goroutines > 1 {
		s.Patience *= 2 // two CPUs are seldom free at once
	}
	how := quantity(keys, "key") + ", " + quantity(goroutines, "caller")
	w := newWorkload(keys)
	r := measure.Race(s, checkingWatched(true, name, w, goroutines), checkingWatched(false, name, w, goroutines))
	traffic := map[string]string{benchPolicy: "allowed", fullPolicy: "denied"}[name]
	return against(r, onAt, offAt, "check, "+traffic+", "+how+": hub on / off").AtMost(1.25).Saying(
		"Service.Check of a gcra in memory (%s against %s), all %s. %s", perOp(r, onAt), perOp(r, offAt), traffic, hubOfServe)
}

func quantity(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// checkingWatched asks a service that is watched or not. Callers begin at different keys if there are several.
func checkingWatched(on bool, name string, w workload, goroutines int) measure.Contestant {
	title := fmt.Sprintf("hub %t", on)
	svc, err := newWatched(on)
	if err != nil {
		return broken(title, err)
	}
	ctx := context.Background()
	for _, key := range w.keys {
		if _, err := svc.Check(ctx, name, key, 1); err != nil {
			return broken(title, err)
		}
	}
	allowed := name == benchPolicy
	var begun atomic.Int64
	run := func(ops int) error {
		i := int(begun.Add(1)) % goroutines * len(w.asks) / goroutines
		for ; ops > 0; ops-- {
			d, err := svc.Check(ctx, name, w.asks[i], 1)
			if err != nil {
				return err
			}
			if d.Allowed != allowed {
				return wrongly(d.Allowed)
			}
			if i++; i == len(w.asks) {
				i = 0
			}
		}
		return nil
	}
	return measure.Contestant{Name: title, Run: measure.Split(goroutines, run), Close: func() {
		_ = svc.Close()
		svc.close()
	}}
}

// wrongly is the error of a request that was allowed, or not, and should not have been so.
func wrongly(allowed bool) error {
	if allowed {
		return errAdmitted
	}
	return errDenied
}

const (
	watchedPolicies = 100
	watchedKeys     = 10_000_000
)

// hubMemoryRow weighs a hub past which keys of so many bytes have gone.
func hubMemoryRow(width int) report.Row {
	size, err := hubBytes(width)
	f := measure.Summarize([]float64{float64(size) / (1 << 20)})
	return report.Measured(fmt.Sprintf("hub after 10 million keys of %d bytes", width), "MiB", f, err).Below(4).Saying(
		"Growth of the live heap by a hub attached to a service of %d policies, after %d decisions of a minute, each on a key of its own,"+
			" a third of them denials, and a snapshot. They are given to the hub's tap of each policy as the service gives them, without"+
			" the service: a store would hold those keys. The hub must have counted all of them.", watchedPolicies, watchedKeys)
}

func hubBytes(width int) (int64, error) {
	var text strings.Builder
	text.WriteString("limiters:\n")
	for i := range watchedPolicies {
		fmt.Fprintf(&text, "  policy-%02d: { strategy: gcra, limit: 100, period: 1m }\n", i)
	}
	svc, err := newService(text.String(), policy.Env{}, service.Config{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = svc.Close() }()
	const began, minute = 1_800_000_000_000, 60_000 // a window begins here
	before := measure.ReadHeap()
	hub, err := monitor.New(monitor.Config{
		Backend: "memory", Window: time.Minute, Now: func() time.Time { return time.UnixMilli(began + minute - 1) },
	})
	if err != nil {
		return 0, err
	}
	if err := hub.Attach(svc); err != nil {
		return 0, err
	}
	taps := make([]service.CheckTap, 0, watchedPolicies)
	for _, info := range svc.Policies() {
		tap, ok := hub.ForPolicy(info).(service.CheckTap)
		if !ok {
			return 0, fmt.Errorf("the tap of %s takes no checks", info.Name)
		}
		taps = append(taps, tap)
	}
	key := make([]byte, 0, width)
	for i := range watchedKeys {
		key = fmt.Appendf(key[:0], "%0*d", width, i)
		d := throttlekit.Decision{Allowed: i%3 != 0, Limit: 100}
		taps[i%len(taps)].Checked(string(key), 1, d, began+int64(i)*minute/watchedKeys, time.Duration(i%1000))
	}
	var seen int64
	policies := hub.Snapshot(context.Background()).Policies
	for i := range policies {
		seen += policies[i].Analytics.Allowed + policies[i].Analytics.Denied
	}
	if seen != watchedKeys {
		return 0, fmt.Errorf("the hub counted %d decisions", seen)
	}
	size := measure.ReadHeap().Since(before).Live
	runtime.KeepAlive(hub)
	runtime.KeepAlive(taps)
	return size, nil
}

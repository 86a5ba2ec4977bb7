package main

import (
	"net"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/server"
	"github.com/throttlekit/throttlekit-go/server/monitor"
	"github.com/throttlekit/throttlekit-go/service"
)

// monitoring is what the flags of serve say about those who watch.
type monitoring struct {
	on          word
	secret      secret
	guarded     bool // there is a secret
	metricsPort port
	metricsHost string
	topKeys     uint
}

func (m *monitoring) define(cmd *cobra.Command) {
	f := cmd.Flags()
	choice(cmd, &m.on, "monitor", "", "show what is decided to throttlekit top, and in a browser at / of the HTTP port", "on", "off")
	f.Var(&m.secret, "monitor-secret",
		"what those must present who watch, in a browser, too; better in $"+watchVariable+", as others can read flags")
	m.metricsPort = port{value: off, orOff: true}
	f.Var(&m.metricsPort, "metrics-port", "port for Prometheus alone; metrics are at /metrics of the HTTP port in any case")
	f.StringVar(&m.metricsHost, "metrics-host", "127.0.0.1", "`address` of --metrics-port")
	f.UintVar(&m.topKeys, "metrics-top-keys", 0, "`keys` of each policy, up to 10, that metrics name; who reads metrics reads keys then")
}

func (m *monitoring) settle(cmd *cobra.Command) (err error) {
	m.guarded, err = m.secret.settle(cmd, "monitor-secret", watchVariable)
	return err
}

// watch is what watches a server.
type watch struct {
	hub   *monitor.Hub
	store *monitor.WatchedStore // nil for memory, which cannot fail
	clock *throttlekit.CoarseClock
}

// open begins to watch. What it makes of the store stands for it from then on.
func (m *monitoring) open(s *serving, store *shared) (*watch, error) {
	hub, err := monitor.New(monitor.Config{Node: string(s.fleet.node), Backend: storeKind(store), FailMode: service.FailMode(s.fail.value)})
	if err != nil {
		return nil, err
	}
	w := &watch{hub: hub}
	if store != nil {
		if w.store, err = monitor.WatchStore(store.Store); err != nil {
			return nil, err
		}
		hub.AttachStore(w.store)
	}
	w.clock = throttlekit.NewCoarseClock()
	return w, nil
}

// close ends what open has begun; the store is the caller's.
func (w *watch) close() { _ = w.clock.Close() }

// show has the server show what is watched.
func (m *monitoring) show(w *watch, config *server.Config) (err error) {
	config.Metrics, err = w.hub.Metrics(monitor.MetricsConfig{TopKeys: int(m.topKeys), Version: Version})
	if err != nil {
		return err
	}
	if m.metricsPort.value != off {
		config.MetricsAddr = net.JoinHostPort(m.metricsHost, m.metricsPort.value)
	}
	if w.store != nil {
		config.Ready = w.store.Ready
	}
	if m.on.value == off {
		return nil
	}
	config.Monitor, config.Dashboard = w.hub, config.HTTPAddr != server.Off
	if m.guarded {
		secret := string(m.secret)
		config.MonitorSecret = &secret
	}
	return nil
}

// state says who may watch.
func (m *monitoring) state() string {
	switch {
	case m.on.value == off:
		return off
	case m.guarded:
		return "secret"
	}
	return "loopback"
}

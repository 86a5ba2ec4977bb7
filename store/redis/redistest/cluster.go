package redistest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Cluster is a Redis Cluster of a few servers.
type Cluster struct {
	// Primaries share the slots evenly, in order.
	Primaries []*Server
	// Replicas follow the primaries of the same index, if there are any.
	Replicas []*Server
}

const slots = 16384

// StartCluster runs a Cluster of primaries, three by default, each with a replica if wanted, and
// waits until all agree that it is up. The caller must Close it.
func StartCluster(ctx context.Context, primaries int, replicas bool, options Options) (*Cluster, error) {
	if primaries == 0 {
		primaries = 3
	}
	c := &Cluster{}
	err := c.start(ctx, primaries, replicas, options)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, primaries int, replicas bool, options Options) error {
	count := primaries
	if replicas {
		count *= 2
	}
	for i := range count {
		s, err := startNode(ctx, options)
		if err != nil {
			return err
		}
		if i < primaries {
			c.Primaries = append(c.Primaries, s)
		} else {
			c.Replicas = append(c.Replicas, s)
		}
	}
	for i, s := range c.Primaries {
		first, last := i*slots/primaries, (i+1)*slots/primaries-1
		if _, err := s.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)); err != nil {
			return err
		}
		if _, err := s.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	if err := c.meet(ctx, count); err != nil {
		return err
	}
	for i, s := range c.Replicas {
		if err := follow(ctx, s, c.Primaries[i]); err != nil {
			return err
		}
	}
	return c.WaitUp(ctx)
}

// startNode starts a server in Cluster mode. Its bus gets a free port of its own, since the
// usual one, 10000 higher, may be taken or out of range.
func startNode(ctx context.Context, options Options) (*Server, error) {
	bus, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	options.Settings = append([]string{
		"cluster-enabled yes", "cluster-node-timeout 1000", "cluster-port " + strconv.Itoa(bus),
		"cluster-replica-validity-factor 0", "repl-diskless-sync-delay 0",
	}, options.Settings...)
	return Start(ctx, options)
}

// meet makes all servers known to the first one, and waits until all know all.
func (c *Cluster) meet(ctx context.Context, count int) error {
	for _, s := range c.Servers()[1:] {
		bus, err := s.Do(ctx, "CONFIG", "GET", "cluster-port")
		if err != nil {
			return err
		}
		pair, ok := bus.([]any)
		if !ok || len(pair) != 2 {
			return fmt.Errorf("redistest: CONFIG GET cluster-port answered %v", bus)
		}
		port, _ := pair[1].(string)
		if _, err := c.Primaries[0].Do(ctx, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(s.port), port); err != nil {
			return err
		}
	}
	return c.all(ctx, func(info string) bool {
		return strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", count))
	})
}

func follow(ctx context.Context, replica, primary *Server) error {
	id, err := primary.Do(ctx, "CLUSTER", "MYID")
	if err != nil {
		return err
	}
	name, _ := id.(string)
	if _, err := replica.Do(ctx, "CLUSTER", "REPLICATE", name); err != nil {
		return err
	}
	return WaitReplica(ctx, replica)
}

// WaitReplica waits until a replica is in step with its primary.
func WaitReplica(ctx context.Context, replica *Server) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		info, err := replica.Do(ctx, "INFO", "replication")
		text, _ := info.(string)
		return err == nil && strings.Contains(text, "master_link_status:up"), nil
	})
}

// WaitUp waits until every server that runs says that the Cluster is up.
func (c *Cluster) WaitUp(ctx context.Context) error {
	return c.all(ctx, func(info string) bool { return strings.Contains(info, "cluster_state:ok") })
}

func (c *Cluster) all(ctx context.Context, holds func(info string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		for _, s := range c.Servers() {
			if !s.running() {
				continue
			}
			inner, cancel := context.WithTimeout(ctx, time.Second)
			info, err := s.Do(inner, "CLUSTER", "INFO")
			cancel()
			text, _ := info.(string)
			if err != nil || !holds(text) {
				return false, nil //nolint:nilerr // it is asked again
			}
		}
		return true, nil
	})
}

func (s *Server) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process != nil
}

// Servers are all servers, primaries first.
func (c *Cluster) Servers() []*Server {
	return append(append([]*Server(nil), c.Primaries...), c.Replicas...)
}

// URL names all primaries as rueidis takes them.
func (c *Cluster) URL() string {
	others := make([]string, 0, len(c.Primaries))
	for _, s := range c.Primaries[1:] {
		others = append(others, "addr="+s.Addr)
	}
	if len(others) == 0 {
		return c.Primaries[0].URL()
	}
	return c.Primaries[0].URL() + "?" + strings.Join(others, "&")
}

// Close ends all servers.
func (c *Cluster) Close() error {
	var errs []error
	for _, s := range c.Servers() {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// SentinelName is the name under which a Sentinel of this package knows its primary.
const SentinelName = "main"

// StartReplica runs a replica of a server and waits until it is in step. The caller must Close it.
func StartReplica(ctx context.Context, primary *Server) (*Server, error) {
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		return nil, err
	}
	// A primary waits some seconds for further replicas before it sends its data.
	if _, err := primary.Do(ctx, "CONFIG", "SET", "repl-diskless-sync-delay", "0"); err != nil {
		return nil, err
	}
	options := primary.options
	options.Settings = append([]string{"replicaof " + host + " " + port}, options.Settings...)
	s, err := Start(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := WaitReplica(ctx, s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// StartSentinel runs a Sentinel that watches a server alone and declares it dead after a second. It
// waits until the Sentinel knows as many replicas as are given. The caller must Close it.
func StartSentinel(ctx context.Context, primary *Server, replicas int) (*Server, error) {
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		return nil, err
	}
	s, err := start(ctx, Options{Program: primary.options.Program, Settings: []string{
		fmt.Sprintf("sentinel monitor %s %s %s 1", SentinelName, host, port),
		fmt.Sprintf("sentinel down-after-milliseconds %s 1000", SentinelName),
		fmt.Sprintf("sentinel failover-timeout %s 3000", SentinelName),
	}}, []string{"--sentinel"})
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func() (bool, error) {
		info, err := s.Do(ctx, "INFO", "sentinel")
		text, _ := info.(string)
		return err == nil && strings.Contains(text, fmt.Sprintf("status=ok,address=%s,slaves=%d", primary.Addr, replicas)), nil
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

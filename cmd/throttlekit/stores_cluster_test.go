package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// member is a server that fails closed, and a client of it.
type member struct {
	*process

	client *client.Client
}

func join(t *testing.T, file, redis string, timeout time.Duration) member {
	t.Helper()
	p := serve(t, "--port", "0", "--http-port", "off", "--config", file, "--redis", redis, "--fail", "closed", "--store-timeout", timeout.String())
	c, err := client.Dial(p.grpc, client.WithTimeout(atMost))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return member{p, c}
}

func (m member) once(t *testing.T, key string) bool {
	t.Helper()
	d, err := m.client.Check(t.Context(), "once", key)
	if err != nil {
		t.Fatal(err)
	}
	return d.Allowed
}

// examine runs the doctor.
func examine(t *testing.T, redis string) string {
	t.Helper()
	var said bytes.Buffer
	if code := run(t.Context(), []string{"doctor", "--redis", redis, "--store-timeout", atMost.String()}, nil, &said, &said); code != 0 {
		t.Errorf("the doctor's exit code is %d:\n%s", code, &said)
	}
	return said.String()
}

// Servers share limits on a Cluster, whether they are told all of its nodes or one.
func TestServeOnCluster(t *testing.T) {
	t.Parallel()
	cluster, err := redistest.StartCluster(t.Context(), 3, false, redistest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	file := sharedPolicies(t)
	urls := []string{cluster.URL(), cluster.Primaries[2].URL(), cluster.Primaries[1].Addr}
	members := make([]member, len(urls))
	for i, url := range urls {
		members[i] = join(t, file, url, atMost)
	}
	const keys = 60
	for k := range keys {
		key := fmt.Sprint("key ", k)
		for i := range members {
			if allowed := members[(k+i)%len(members)].once(t, key); allowed != (i == 0) {
				t.Errorf("check %d of %s: allowed is %v", i+1, key, allowed)
			}
		}
	}
	for i, node := range cluster.Primaries {
		if size, err := node.Do(t.Context(), "DBSIZE"); err != nil || size.(int64) == 0 || size.(int64) == keys {
			t.Errorf("node %d has %v of %d keys, %v", i, size, keys, err)
		}
	}
	for _, url := range urls {
		if said := examine(t, url); !strings.Contains(said, "ok    store      redis at redis://127.0.0.1:") {
			t.Errorf("the doctor says:\n%s", said)
		}
	}
}

// Servers find their Redis by way of Sentinel, and its successor when it dies; the count goes on there.
func TestServeBySentinel(t *testing.T) {
	t.Parallel()
	primary, file := startRedis(t, redistest.Options{}), sharedPolicies(t)
	replica, err := redistest.StartReplica(t.Context(), primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replica.Close() })
	sentinel, err := redistest.StartSentinel(t.Context(), primary, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sentinel.Close() })
	url := sentinel.URL() + "?master_set=" + redistest.SentinelName
	examine(t, url)
	members := []member{join(t, file, url, atMost/10), join(t, file, url, atMost/10)}
	if !members[0].once(t, "me") || members[1].once(t, "me") {
		t.Error("the servers do not share a limit")
	}
	until(t, "the charge has not arrived at the replica", func() bool {
		size, err := replica.Do(t.Context(), "DBSIZE")
		return err == nil && size.(int64) == 1
	})
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range members {
		until(t, "the servers have not found the successor", func() bool { n++; return m.once(t, fmt.Sprint("after ", n)) })
		if m.once(t, "me") {
			t.Error("the successor has forgotten a charge")
		}
	}
	if role, err := replica.Do(t.Context(), "ROLE"); err != nil || fmt.Sprint(role.([]any)[0]) != "master" {
		t.Errorf("the replica's role is %v, %v", role, err)
	}
	if !members[0].once(t, "both") || members[1].once(t, "both") {
		t.Error("the servers do not share a limit on the successor")
	}
}

// What is no address of a Redis is refused before anything starts.
func TestRedisAddresses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"a:1,b:2", "redis://a:1,b:2", "redis://a:1?addr=", "redis://a:1?master_set=", "redis://a:1?masterset=main", "sentinel://a:1"} {
		var said bytes.Buffer
		if code := run(t.Context(), []string{"serve", "--redis", url}, nil, &said, &said); code != codeWrong {
			t.Errorf("%s: exit code %d", url, code)
		}
		for _, want := range []string{"--redis must be redis://", "?addr=host:port", "redis://host:26379?master_set=name"} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("%s: %q is missing in %s", url, want, &said)
			}
		}
	}
}

package redisstore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/throttlekit/throttlekit-go"
	redisstore "github.com/throttlekit/throttlekit-go/store/redis"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

func startCluster(t *testing.T, replicas bool) *redistest.Cluster {
	t.Helper()
	cluster, err := redistest.StartCluster(t.Context(), 3, replicas, redistest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

func TestCluster(t *testing.T) { //nolint:tparallel // its parts share one Cluster, and look at its size
	t.Parallel()
	cluster := startCluster(t, false)
	// One node is enough to find the others.
	store := open(t, cluster.Primaries[1].URL(), redisstore.Config{})
	gcra := ruleOf(t, throttlekit.GCRA{Limit: 1, Period: time.Hour, Burst: 10})
	window := ruleOf(t, throttlekit.FixedWindow{Limit: 5, Window: 87600 * time.Hour})

	t.Run("each", func(t *testing.T) {
		var ops []throttlekit.Op
		for i := range 300 {
			ops = append(ops, throttlekit.Op{Key: fmt.Sprint("k", i%100), Transition: gcra, Cost: 1})
		}
		decisions, err := store.Batch(t.Context(), ops, throttlekit.CommitEach)
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range decisions {
			if d.Remaining != int64(9-i/100) && d.Remaining != int64(8-i/100) { // binary64 rounds a fresh key's first charge
				t.Errorf("op %d: %+v", i, d)
			}
		}
		for _, s := range cluster.Primaries { // all nodes have taken part
			if size, err := s.Do(t.Context(), "DBSIZE"); err != nil || size.(int64) < 15 {
				t.Errorf("%v keys on one node, %v", size, err)
			}
		}
	})
	t.Run("one slot", func(t *testing.T) {
		for _, second := range []throttlekit.Transition{window, tally{limit: 5, ttl: 1e6}} {
			ops := []throttlekit.Op{
				{Key: "user:{42}" + second.Name(), Transition: gcra, Cost: 1}, {Key: "address:{42}" + second.Name(), Transition: second, Cost: 1},
			}
			for i := range 7 {
				d, err := store.Batch(t.Context(), ops, throttlekit.CommitAll)
				if err != nil || allow(d, throttlekit.CommitAll) != (i < 5) {
					t.Errorf("%s, check %d: %+v, %v", second.Name(), i, d, err)
				}
			}
		}
	})
	t.Run("two slots", func(t *testing.T) {
		for _, second := range []throttlekit.Transition{window, tally{limit: 5, ttl: 1e6}} {
			ops := []throttlekit.Op{{Key: "user:42", Transition: gcra, Cost: 1}, {Key: "address:42", Transition: second, Cost: 1}}
			for _, commit := range []throttlekit.Commit{throttlekit.CommitAll, throttlekit.CommitAny} {
				_, err := store.Batch(t.Context(), ops, commit)
				if !errors.Is(err, throttlekit.ErrUnsupported) || errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), "hash tag") {
					t.Errorf("got %v", err)
				}
			}
			for _, op := range ops {
				if rec, _, err := store.Load(t.Context(), op.Key, op.Transition); err != nil || rec.A != 0 {
					t.Errorf("a refused batch charged %+v, %v", rec, err)
				}
			}
		}
	})
	t.Run("a client of one node", func(t *testing.T) {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{cluster.Primaries[0].Addr}, ForceSingleClient: true, DisableCache: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		lent := lend(t, client, redisstore.Config{Timeout: patient})
		_, err = lent.Batch(t.Context(), []throttlekit.Op{{Key: "a", Transition: gcra, Cost: 1}, {Key: "b", Transition: window, Cost: 1}}, throttlekit.CommitAll)
		if !errors.Is(err, throttlekit.ErrUnsupported) {
			t.Errorf("cross slot: %v", err)
		}
		for i := range 10 {
			if _, err = lent.Apply(t.Context(), strconv.Itoa(i), gcra, 1); err != nil {
				break
			}
		}
		if !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), "Cluster client") {
			t.Errorf("moved: %v", err)
		}
	})
}

// TestClusterFailsOver kills a primary under load: its replica takes over, and nothing is admitted beyond the limit.
func TestClusterFailsOver(t *testing.T) {
	t.Parallel()
	short(t)
	cluster := startCluster(t, true)
	store := open(t, cluster.URL(), redisstore.Config{Timeout: usualDeadline})
	rule := ruleOf(t, yearly(1e9))
	call := func(i int) (throttlekit.Decision, error) {
		return store.Apply(t.Context(), fmt.Sprint("k", i), rule, 1)
	}
	recovers(t, func() error { return second(call(0)) })
	crowd := gather(t, 24, time.Millisecond, call) // keys on all nodes
	wait(t, 300*time.Millisecond)
	if err := cluster.Primaries[0].Kill(); err != nil {
		t.Fatal(err)
	}
	for i := range 24 {
		recovers(t, func() error { return second(call(i)) })
	}
	crowd.leave()
	crowd.check(t, usualDeadline)
	if err := cluster.WaitUp(t.Context()); err != nil {
		t.Error(err)
	}
	if crowd.failed.Load() == 0 {
		t.Error("nobody noticed")
	}
}

func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	short(t)
	primary := start(t, redistest.Options{})
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
	store := open(t, sentinel.URL()+"?master_set="+redistest.SentinelName, redisstore.Config{Prefix: "p", Timeout: usualDeadline})
	rule := ruleOf(t, yearly(100))
	recovers(t, func() error { return second(store.Apply(t.Context(), "k", rule, 1)) })
	onReplica := dial(t, replica)
	for do(t, onReplica, "TYPE", "p:k") != "hash" { // the charge has arrived there
		wait(t, time.Millisecond)
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	var d throttlekit.Decision
	recovers(t, func() (err error) { d, err = store.Apply(t.Context(), "k", rule, 1); return err })
	if d.Remaining != 98 {
		t.Errorf("the replica has %d of 98 left", d.Remaining)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certificate, roots := selfSigned(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	start(t, redistest.Options{Password: secret, Settings: []string{
		"tls-port " + port, "tls-cert-file " + certificate, "tls-key-file " + certificate, "tls-auth-clients no",
	}})
	rule := ruleOf(t, throttlekit.GCRA{Limit: 5, Period: time.Second})
	stranger := open(t, "rediss://:"+secret+"@"+addr, redisstore.Config{})
	if err := second(stranger.Apply(t.Context(), "k", rule, 1)); !errors.Is(err, throttlekit.ErrStoreUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	store, err := redisstore.Connect(rueidis.ClientOption{
		InitAddress: []string{addr}, Password: secret, TLSConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}, redisstore.Config{Timeout: patient})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if d, err := store.Apply(t.Context(), "k", rule, 1); err != nil || !d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
}

// selfSigned writes a key and a certificate for the loopback address into one file.
func selfSigned(t *testing.T) (path string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	path = filepath.Join(t.TempDir(), "server.pem")
	both := append(append([]byte(nil), text...), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	if err := os.WriteFile(path, both, 0o600); err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return path, roots
}

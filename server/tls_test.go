package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	throttlekitv1 "github.com/throttlekit/throttlekit-go/api/throttlekit/v1"
)

// authority signs certificates for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key))
	a.cert = must(x509.ParseCertificate(der))
	a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// sign writes name.pem and name.key, good for 127.0.0.1 and for clients.
func (a *authority) sign(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	a.write(t, name+".pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)))
	a.write(t, name+".key", "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
	return must(tls.LoadX509KeyPair(a.path(name+".pem"), a.path(name+".key")))
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	ours.sign(t, "server")
	friend, stranger := ours.sign(t, "friend"), theirs.sign(t, "stranger")
	files := TLS{CertFile: ours.path("server.pem"), KeyFile: ours.path("server.key")}
	mutual := files
	mutual.CAFile = ours.path("ca.pem")

	for _, test := range []struct {
		name   string
		server TLS
		client *tls.Config // nil means plaintext
		served bool
	}{
		{"TLS", files, &tls.Config{RootCAs: ours.pool()}, true},
		{"TLS 1.2", files, &tls.Config{RootCAs: ours.pool(), MaxVersion: tls.VersionTLS12}, true},
		{"TLS 1.1", files, &tls.Config{RootCAs: ours.pool(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"authority unknown to the client", files, &tls.Config{RootCAs: theirs.pool()}, false},
		{"plaintext to TLS", files, nil, false},
		{"mutual TLS", mutual, &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{friend}}, true},
		{"mutual TLS without a certificate", mutual, &tls.Config{RootCAs: ours.pool()}, false},
		{"mutual TLS with a stranger's certificate", mutual, &tls.Config{
			RootCAs: ours.pool(),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &stranger, nil // whether or not the server would like it
			},
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := local()
			cfg.TLS = test.server
			s, _ := serve(t, policies(t), cfg)

			var opts []grpc.DialOption
			web := httpClient(t)
			scheme := "http"
			if test.client != nil {
				opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(test.client.Clone())))
				web.Transport.(*http.Transport).TLSClientConfig = test.client.Clone()
				scheme = "https"
			}
			_, err := throttlekitv1.NewRateLimiterClient(dial(t, s, opts...)).Check(t.Context(), &throttlekitv1.CheckRequest{Policy: "five"})
			if test.served && err != nil || !test.served && status.Code(err) != codes.Unavailable {
				t.Errorf("gRPC: served should be %v: %v", test.served, err)
			}
			req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+s.HTTPAddr().String()+"/healthz", nil))
			res, err := web.Do(req)
			if err == nil {
				_ = res.Body.Close()
			}
			if served := err == nil && res.StatusCode == http.StatusOK; served != test.served {
				t.Errorf("HTTP: served should be %v: %v", test.served, err)
			}
		})
	}
}

func TestTLSFilesAreChecked(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.sign(t, "server")
	ca.sign(t, "other")
	if err := os.WriteFile(ca.path("empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := ca.path("server.pem"), ca.path("server.key")
	for _, test := range []struct {
		name string
		tls  TLS
		want string
	}{
		{"certificate without a key", TLS{CertFile: cert}, "TLS.KeyFile"},
		{"key without a certificate", TLS{KeyFile: key}, "TLS.CertFile"},
		{"authority alone", TLS{CAFile: ca.path("ca.pem")}, "TLS.CAFile"},
		{"authority and half a pair", TLS{CertFile: cert, CAFile: ca.path("ca.pem")}, "TLS.KeyFile"},
		{"no such certificate", TLS{CertFile: ca.path("nowhere"), KeyFile: key}, "nowhere"},
		{"another's key", TLS{CertFile: cert, KeyFile: ca.path("other.key")}, "other.key"},
		{"empty certificate", TLS{CertFile: ca.path("empty"), KeyFile: key}, "empty"},
		{"no such authority", TLS{CertFile: cert, KeyFile: key, CAFile: ca.path("nowhere")}, "nowhere"},
		{"empty authority", TLS{CertFile: cert, KeyFile: key, CAFile: ca.path("empty")}, "TLS.CAFile"},
	} {
		cfg := local()
		cfg.TLS = test.tls
		s, err := New(policies(t), cfg)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: no error", test.name)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q does not mention %q", test.name, err, test.want)
		}
	}
}

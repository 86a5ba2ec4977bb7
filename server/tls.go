package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/throttlekit/throttlekit-go"
)

// load reads the files into a configuration for servers. It is nil if no file is named.
func (t TLS) load() (*tls.Config, error) {
	switch {
	case t == TLS{}:
		return nil, nil //nolint:nilnil // no configuration and no error: plaintext
	case t.CertFile == "" && t.KeyFile == "":
		return nil, &throttlekit.InvalidError{
			Field: "TLS.CAFile", Value: t.CAFile,
			Rule: "must come with TLS.CertFile and TLS.KeyFile: clients cannot be verified in plaintext",
		}
	case t.CertFile == "":
		return nil, &throttlekit.InvalidError{Field: "TLS.CertFile", Value: t.CertFile, Rule: "must be given together with TLS.KeyFile"}
	case t.KeyFile == "":
		return nil, &throttlekit.InvalidError{Field: "TLS.KeyFile", Value: t.KeyFile, Rule: "must be given together with TLS.CertFile"}
	}
	certificate, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("server: TLS certificate %q with key %q: %w", t.CertFile, t.KeyFile, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
	if t.CAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("server: TLS client authorities: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, &throttlekit.InvalidError{Field: "TLS.CAFile", Value: t.CAFile, Rule: "must hold certificates in PEM form"}
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

package source_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/source"
)

// A client certificate is sent only to servers that the bundle verifies. ServerName chooses the
// certificate of the server.
func TestClientCertificateAndName(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	client := certtest.New(t, intermediate, "auditor")
	elsewhere := certtest.New(t, intermediate, "elsewhere", certtest.Named("elsewhere.example"))
	names := make(chan string, 8)
	config := &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := leaf.TLS(intermediate)
			if hello.ServerName == "elsewhere.example" {
				c = elsewhere.TLS(intermediate)
			}
			return &c, nil
		},
		ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			c, err := x509.ParseCertificate(raw[0])
			if err == nil {
				names <- c.Subject.CommonName
			}
			return err
		},
	}
	address := audittest.Serve(t, config)
	targets := source.Targets{Names: []string{address}, Timeout: audittest.Patience, Bundle: certtest.Bundle([]*certtest.Pair{root}), Certificates: []tls.Certificate{client.TLS(intermediate)}}
	for _, name := range []string{"", "elsewhere.example"} {
		targets.ServerName = name
		r := audittest.Run(t, targets)
		if first := r.Rows[0]; first.State != "WARN" || len(first.Findings) != 1 || first.Findings[0].Check != "tls-version" || <-names != "auditor" {
			t.Errorf("%q: %+v", name, first)
		}
	}
	targets.Bundle = nil
	audittest.Run(t, targets)
	if len(names) != 0 {
		t.Error("a stranger got the client certificate")
	}
	if _, _, err := endpoint.Parse("smtp://mail"); err != nil {
		t.Error(err)
	}
	r := audittest.Run(t, source.Targets{Names: []string{"postgres://user:hunter2@" + address + "/db?password=hunter2"}, Timeout: audittest.Patience})
	if got := r.Rows[0].Place; got != "postgres://"+address {
		t.Error(got)
	}
	for text, want := range map[string]string{"smtp://mail": "mail 25", "postgres://db/name": "db 5432", "postgresql://u:p@db:5433": "db 5433", "SMTP://[::1]:2525": "::1 2525"} {
		if host, port, err := endpoint.Parse(text); err != nil || host+" "+port != want {
			t.Errorf("%s: %s %s %v", text, host, port, err)
		}
	}
	for _, text := range []string{"smtp://", "gopher://x", "tls://x", "smtp://x:99999", "smtp://x:0", "smtp://x y", "smtp://%zz", "://"} {
		if _, _, err := endpoint.Parse(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

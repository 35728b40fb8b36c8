package format_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

func FuzzParse(f *testing.F) {
	root, _, leaf := certtest.Hierarchy(f)
	f.Add(certtest.Encode(root, leaf))
	f.Add(leaf.KeyPEM(f))
	f.Add(leaf.Cert.Raw)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n"))
	f.Add([]byte(strings.Repeat("-----BEGIN CERTIFICATE-----\n", 50)))
	// Contract: any input gives a row or nothing, a certificate or a reason, both
	// only for a certificate that crypto/x509 refuses; what looks like a certificate
	// in PEM never vanishes without a row.
	f.Fuzz(func(t *testing.T, data []byte) {
		parts := audittest.Parts(data)
		for _, p := range parts {
			if p.Cert == nil || p.Err != nil {
				continue
			}
			if _, err := x509.ParseCertificate(p.Cert.Raw); err != nil {
				t.Errorf("a certificate without its reason: %v", err)
			}
		}
		if bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) && len(parts) == 0 {
			t.Error("a certificate without a row")
		}
	})
}

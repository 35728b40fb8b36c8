package files_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
)

// write puts m as PEM into dir.
func write(t testing.TB, dir string, m rotation.Material) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	for name, data := range map[string][]byte{"tls.crt": chainPEM(t, m), "tls.key": keyPEM(t, m), "ca.crt": pemfile.EncodeCertificates(m.Roots)} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
}

// chainPEM is the leaf, which has no issuers beside it here.
func chainPEM(_ testing.TB, m rotation.Material) []byte {
	return pemfile.EncodeCertificates([]*x509.Certificate{m.Certificate.Leaf})
}

func keyPEM(t testing.TB, m rotation.Material) []byte {
	t.Helper()
	b, err := pemfile.EncodePrivateKey(m.Certificate.PrivateKey.(ed25519.PrivateKey))
	must(t, err)
	return b
}

// selfSigned makes a certificate whose every byte is determined.
func selfSigned(t testing.TB, name string, key ed25519.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if name != "leaf" {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	}
	return testpki.Issue(t, nil, template, key).Cert
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

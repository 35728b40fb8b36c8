package settings_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/settings"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// pair makes a certificate from the template, signed by itself, and its key, as PEM.
func pair(t *testing.T, tpl x509.Certificate) (cert, key []byte) {
	t.Helper()
	tpl.Subject, tpl.BasicConstraintsValid = pkix.Name{CommonName: "test"}, true
	if tpl.NotBefore.IsZero() {
		tpl.NotBefore = time.Now().Add(-2 * time.Hour)
	}
	p := testpki.Issue(t, nil, &tpl, nil)
	raw, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// Each fault of certificate files is named with its setting; a good set is none.
func TestCertificateFiles(t *testing.T) {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	root, _ := pair(t, x509.Certificate{IsCA: true})
	oldRoot, _ := pair(t, x509.Certificate{IsCA: true, NotAfter: time.Now().Add(-time.Hour)})
	good, goodKey := pair(t, x509.Certificate{ExtKeyUsage: client})
	expired, expiredKey := pair(t, x509.Certificate{ExtKeyUsage: client, NotAfter: time.Now().Add(-time.Minute)})
	future, futureKey := pair(t, x509.Certificate{ExtKeyUsage: client, NotBefore: time.Now().Add(30 * time.Minute)})
	anyUse, anyUseKey := pair(t, x509.Certificate{})
	server, serverKey := pair(t, x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	for name, c := range map[string]struct {
		cert, key, ca []byte
		mode          os.FileMode
		want          string
	}{
		"good":         {good, goodKey, root, 0o600, ""},
		"read only":    {good, goodKey, root, 0o400, ""},
		"any use":      {anyUse, anyUseKey, root, 0o600, ""},
		"other key":    {good, expiredKey, root, 0o600, "TLS__KEY_FILE: the key in "},
		"open key":     {good, goodKey, root, 0o644, "lets others read the key"},
		"expired":      {expired, expiredKey, root, 0o600, "TLS__CERT_FILE: the certificate expired at "},
		"not yet":      {future, futureKey, root, 0o600, "TLS__CERT_FILE: the certificate is not valid before "},
		"server only":  {server, serverKey, root, 0o600, "lacks clientAuth"},
		"truncated":    {good[:len(good)/2], goodKey, root, 0o600, "TLS__CERT_FILE: reading certificates in "},
		"no key":       {good, nil, root, 0o600, "TLS__KEY_FILE: reading the key"},
		"empty bundle": {good, goodKey, nil, 0o600, "TLS__CA_CERT_FILE: reading certificates in "},
		"old bundle":   {good, goodKey, oldRoot, 0o600, "TLS__CA_CERT_FILE: every certificate of the bundle has expired"},
		"leaf bundle":  {good, goodKey, good, 0o600, "is no authority's certificate"},
		"swapped":      {root, goodKey, root, 0o600, "want the leaf first"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range map[string][]byte{"crt": c.cert, "ca": c.ca, "key": c.key} {
				mode := os.FileMode(0o644)
				if file == "key" {
					mode = c.mode
				}
				if err := os.WriteFile(filepath.Join(dir, file), content, mode); err != nil {
					t.Fatal(err)
				}
			}
			_, err := settings.Collect(settings.Input{Environ: []string{
				"STORAGE_ELEMENT__BASE_URL=https://s", "SERVICE_ACCOUNT__CLIENT_ID=x", "SERVICE_ACCOUNT__CLIENT_SECRET=x",
				"TLS__CERT_FILE=" + filepath.Join(dir, "crt"), "TLS__KEY_FILE=" + filepath.Join(dir, "key"), "TLS__CA_CERT_FILE=" + filepath.Join(dir, "ca"),
			}}).Parse()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "BEGIN") {
				t.Errorf("a key is quoted: %v", err)
			}
		})
	}
}

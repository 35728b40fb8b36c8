package setup_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
)

// holder is the one who has the root.
func holder(t *testing.T) cacert.Issuer {
	t.Helper()
	root, err := cacert.New(cacert.Template{Name: "Company", Lifetime: 48 * time.Hour}, cacert.Issuer{})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// request makes a directory that waits, and returns it with the request.
func request(t *testing.T, opt setup.Options) (dir string, csr *x509.CertificateRequest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ca")
	opt.Dir, opt.PlainKeys = dir, true
	file := filepath.Join(t.TempDir(), "our.csr")
	if _, err := setup.Request(t.Context(), opt, file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if csr, err = x509.ParseCertificateRequest(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return dir, csr
}

// sign makes what the holder of the root would, and edit changes it.
func sign(t *testing.T, root cacert.Issuer, csr *x509.CertificateRequest, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	serial, err := cacert.NewSerial()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: csr.Subject, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	if edit != nil {
		edit(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, root.Cert, csr.PublicKey, root.Key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestFinishRefuses: a certificate that the authority could not work with is refused, and the
// directory goes on waiting.
func TestFinishRefuses(t *testing.T) {
	root := holder(t)
	dir, csr := request(t, setup.Options{})
	_, other := request(t, setup.Options{})
	rootOf := func(c *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{c, root.Cert} }
	for name, tc := range map[string]struct {
		chain []*x509.Certificate
		want  string
	}{
		"a leaf":          {rootOf(sign(t, root, csr, func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false })), "it is no CA certificate"},
		"no lists":        {rootOf(sign(t, root, csr, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })), "may not sign both"},
		"another key":     {rootOf(sign(t, root, other, nil)), "does not have the key of the intermediate"},
		"too long":        {rootOf(sign(t, root, csr, func(c *x509.Certificate) { c.NotAfter = root.Cert.NotAfter.Add(time.Hour) })), "not within the dates of its root"},
		"servers only":    {rootOf(sign(t, root, csr, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), "sign for servers and clients"},
		"its own names":   {rootOf(sign(t, root, csr, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"elsewhere"} })), "the authority's own names localhost"},
		"subject of root": {rootOf(sign(t, root, csr, func(c *x509.Certificate) { c.Subject = root.Cert.Subject })), "has the subject of its root"},
		"another root":    {[]*x509.Certificate{sign(t, root, csr, nil), holder(t).Cert}, "does not chain to the root"},
		"no root":         {[]*x509.Certificate{sign(t, root, csr, nil)}, "1 certificates, want"},
		"root is none":    {[]*x509.Certificate{sign(t, root, csr, nil), sign(t, root, csr, nil)}, "is not signed by its own key"},
	} {
		if _, err := setup.Finish(dir, tc.chain); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); !errors.Is(err, setup.ErrWaiting) {
			t.Errorf("%s: opened, %v", name, err)
		}
	}
	if _, err := setup.Finish(filepath.Join(t.TempDir(), "absent"), rootOf(sign(t, root, csr, nil))); !errors.Is(err, setup.ErrNoRequest) {
		t.Errorf("a directory without a request: %v", err)
	}
	for _, opt := range []setup.Options{{OfflineRoot: "root.key"}, {Existing: setup.Existing{Root: root.Cert, RootKey: root.Key}}, {Root: setup.Certificate{Permit: []string{"localhost"}}}} {
		opt.Dir, opt.PlainKeys = filepath.Join(t.TempDir(), "ca"), true
		if _, err := setup.Request(t.Context(), opt, filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), "whoever holds the root") {
			t.Errorf("%+v: %v", opt, err)
		}
	}
}

// TestRequestKilled: a Finish that was killed between any two of its writes is run again, and the
// authority is whole. The writes are those of a Finish that came to its end, in their order.
func TestRequestKilled(t *testing.T) {
	root := holder(t)
	waiting, csr := request(t, setup.Options{})
	chain := []*x509.Certificate{sign(t, root, csr, nil), root.Cert}
	done := copyOf(t, waiting)
	if _, err := setup.Finish(done, chain); err != nil {
		t.Fatal(err)
	}
	intermediate := certs.Fingerprint(chain[0])
	writes := []string{
		"certs/" + certs.Fingerprint(root.Cert) + ".crt", "secrets/" + intermediate + ".key", "certs/" + intermediate + ".crt",
		"certs/current.json", "certs/root_ca.crt", "certs/intermediate_ca.crt", "pki.yaml",
	}
	for n := range len(writes) + 1 {
		dir := copyOf(t, waiting)
		for _, name := range writes[:n] {
			data, err := os.ReadFile(filepath.Join(done, name))
			if err != nil {
				t.Fatal(err)
			}
			damage.File(t, filepath.Join(dir, name), data)
		}
		if n == len(writes) { // it was moved, not copied
			if err := os.Remove(filepath.Join(dir, "request", "pki.yaml")); err != nil {
				t.Fatal(err)
			}
		}
		res, err := setup.Finish(dir, chain)
		if err != nil {
			t.Errorf("after %d writes: %v", n, err)
			continue
		}
		if res.RootFingerprint != certs.Fingerprint(root.Cert) {
			t.Errorf("after %d writes: root %s", n, res.RootFingerprint)
		}
		a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
		if err != nil {
			t.Errorf("after %d writes: %v", n, err)
			continue
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "request")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after %d writes: the request is left: %v", n, err)
		}
	}
}

// copyOf copies a directory, as a snapshot of the disk would.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "ca")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

func issuingCertificate(t testing.TB, c *catest.CA) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.Dir, "certs", "intermediate_ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pemfile.Certificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

// A list that has not changed is not sent again, and openssl reads the list that is
// sent.
func TestCRLForOthers(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(b []byte) []byte {
		return append(b, "crl_url: http://pki.example/crl\n"...)
	}})
	good, bad := enrol(t, c, "storage", "storage"), enrol(t, c, "storage", "storage")
	issuing := issuingCertificate(t, c)
	if want := []string{"http://pki.example/crl?issuer=" + hexID(issuing)}; !slices.Equal(good.Leaf.CRLDistributionPoints, want) {
		t.Errorf("distribution points %q, want %q", good.Leaf.CRLDistributionPoints, want)
	}
	c.Revoke(t, bad.Leaf.SerialNumber.String())
	cl := newClient(t, c, nil)
	status, list := cl.do("GET", "/crl?pem", nil)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, list)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/crl", nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, tag := http.StatusOK, ""; ; want = http.StatusNotModified {
		req.Header.Set("If-None-Match", tag)
		resp, err := cl.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("If-None-Match %q: %d, want %d", tag, resp.StatusCode, want)
		}
		if tag = resp.Header.Get("ETag"); want == http.StatusNotModified || tag == "" {
			break
		}
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		damage.File(t, filepath.Join(dir, name), data)
		return filepath.Join(dir, name)
	}
	root, mid := write("root.pem", pemfile.EncodeCertificates(c.Roots())), write("mid.pem", pemfile.EncodeCertificates([]*x509.Certificate{issuing}))
	crl := write("crl.pem", list)
	if out, err := exec.CommandContext(t.Context(), openssl, "crl", "-in", crl, "-CAfile", mid, "-noout", "-verify").CombinedOutput(); err != nil || !strings.Contains(string(out), "verify OK") {
		t.Errorf("openssl crl: %v\n%s", err, out)
	}
	for name, leaf := range map[string]*x509.Certificate{"good.pem": good.Leaf, "bad.pem": bad.Leaf} {
		out, err := exec.CommandContext(t.Context(), openssl, "verify", "-crl_check", "-CAfile", root, "-untrusted", mid, "-CRLfile", crl, write(name, pemfile.EncodeCertificates([]*x509.Certificate{leaf}))).CombinedOutput()
		if (err == nil) != (name == "good.pem") || err != nil && !strings.Contains(string(out), "certificate revoked") {
			t.Errorf("openssl verify %s: %v\n%s", name, err, out)
		}
	}
}

// With the file of all lists OpenSSL checks the whole chain, as nginx and PostgreSQL
// do, also after a rotation and with a new root. A damaged list of a root is an error.
func TestListsOfAll(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	old := enrol(t, c, "storage", "storage")
	c.RotateIntermediate(t)
	second := c.AddRoot(t)
	young := enrol(t, c, "storage", "storage")
	cl := newClient(t, c, nil)
	status, all := cl.do("GET", "/crl?all", nil)
	if n := strings.Count(string(all), "BEGIN X509 CRL"); status != http.StatusOK || n != 5 { // old and new intermediate, that of the staged root, and both roots
		t.Fatalf("%d, %d lists, want 5", status, n)
	}
	root := c.Roots()[0]
	status, der := cl.do("GET", "/crl?issuer="+hexID(root), nil)
	if list, err := x509.ParseRevocationList(der); status != http.StatusOK || err != nil || list.CheckSignatureFrom(root) != nil || !list.NextUpdate.Equal(root.NotAfter) {
		t.Errorf("the root's list: %d %v", status, err)
	}
	if openssl, err := exec.LookPath("openssl"); err == nil {
		dir := t.TempDir()
		for name, cert := range map[string]*tls.Certificate{"old": old, "young": young} {
			issuer, err := x509.ParseCertificate(cert.Certificate[1])
			if err != nil {
				t.Fatal(err)
			}
			for file, certs := range map[string][]*x509.Certificate{"root": c.Roots(), "mid": {issuer}, "leaf": {cert.Leaf}} {
				damage.File(t, filepath.Join(dir, file), pemfile.EncodeCertificates(certs))
			}
			damage.File(t, filepath.Join(dir, "lists"), all)
			cmd := exec.CommandContext(t.Context(), openssl, "verify", "-crl_check_all", "-CAfile", "root", "-untrusted", "mid", "-CRLfile", "lists", "leaf")
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("openssl verify, %s: %v\n%s", name, err, out)
			}
		}
	}
	path := filepath.Join(c.Dir, "certs", second+".crl")
	for _, content := range []string{"no list", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"} {
		damage.File(t, path, []byte(content))
		if err := c.Authority.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "reading the root's list") {
			t.Errorf("%q: %v", content, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if _, all := cl.do("GET", "/crl?all", nil); strings.Count(string(all), "BEGIN X509 CRL") != 4 {
		t.Error("a root without a list has one")
	}
}

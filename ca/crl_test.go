package ca_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/revocation"
)

func crlIssuer(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, SubjectKeyId: []byte{1, 2, 3}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// What is signed is what the standard library would have signed, to the byte.
func TestCRLIsTheStandardLibrarys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second).Add(time.Second / 2)
	var listed []record.RevokedEntry
	for i, reason := range []int{0, 1, 2, 3, 4, 5, 9, 10} {
		serial := new(big.Int).Lsh(big.NewInt(int64(i+1)), uint(20*i)) // some with a leading bit that DER pads
		listed = append(listed, record.RevokedEntry{Serial: serial.String(), RevokedAt: now.AddDate(i*6-10, 0, 0), Reason: reason, NotAfter: now.Add(time.Hour)})
	}
	for name, key := range map[string]crypto.Signer{"EC-P256": newKey(t), "Ed25519": ed, "RSA": rsaKey} {
		for _, n := range []int{0, 1, len(listed)} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				cert := crlIssuer(t, key)
				var ends []int64
				tmpl := &x509.RevocationList{Number: big.NewInt(now.UnixMicro()), ThisUpdate: now, NextUpdate: now.AddDate(30, 0, 0)}
				for _, l := range listed[:n] {
					serial, _ := new(big.Int).SetString(l.Serial, 10)
					tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
						x509.RevocationListEntry{SerialNumber: serial, RevocationTime: l.RevokedAt, ReasonCode: l.Reason})
					ends = append(ends, l.NotAfter.Unix()+1) // in whole seconds: not before it has ended
				}
				if n > 0 {
					value, err := revocation.EncodeEnds(now, ends)
					if err != nil {
						t.Fatal(err)
					}
					tmpl.ExtraExtensions = []pkix.Extension{{Id: revocation.OIDEnds, Value: value}}
				}
				der, err := x509.CreateRevocationList(rand.Reader, tmpl, cert, key)
				if err != nil {
					t.Fatal(err)
				}
				want, err := x509.ParseRevocationList(der)
				if err != nil {
					t.Fatal(err)
				}
				gone := record.RevokedEntry{Serial: "77", RevokedAt: now, NotAfter: now} // has just expired
				ours, err := ca.SignCRL(cert, key, tmpl, append([]record.RevokedEntry{gone}, listed[:n]...))
				if err != nil {
					t.Fatal(err)
				}
				got, err := x509.ParseRevocationList(ours)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.RawTBSRevocationList, want.RawTBSRevocationList) {
					t.Errorf("signed\n%x, the standard library\n%x", got.RawTBSRevocationList, want.RawTBSRevocationList)
				}
				if err := got.CheckSignatureFrom(cert); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestCRLRefuses(t *testing.T) {
	key := newKey(t)
	cert, tmpl := crlIssuer(t, key), &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	if _, err := ca.SignCRL(cert, key, tmpl, []record.RevokedEntry{{Serial: "x"}}); err == nil || !strings.Contains(err.Error(), `serial "x"`) {
		t.Errorf("a serial that is no number: %v", err)
	}
	if _, err := ca.SignCRL(cert, newKey(t), tmpl, nil); err == nil || !strings.Contains(err.Error(), "signing the CRL") {
		t.Errorf("another key: %v", err)
	}
}

// manyCertificates puts n unexpired certificates of the issuing intermediate into
// the record, as another process would, with serials 1000001 and up.
func manyCertificates(t testing.TB, c *catest.CA, n int) *store.Store {
	t.Helper()
	path := filepath.Join(c.Dir, "pki.db")
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO certificates (serial, service, kind, provisioner, caller, lineage, previous, issuer, chain, key_hash, names, not_before, not_after, issued_at, der)
		SELECT 1000000 + i, 'many', 'issued', '', 'test', 1000000 + i, '', (SELECT id FROM issuers WHERE key_id = ?), (SELECT MIN(id) FROM chains),
			x'00', '[]', 0, ?, 0, x'00' FROM n`,
		n, hexID(issuingCertificate(t, c)), time.Now().Add(time.Hour).UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

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

func revokeSerial(t testing.TB, s *store.Store, serial int) {
	t.Helper()
	if err := s.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: fmt.Sprint(serial), RevokedAt: time.Now(), Reason: 1, Caller: "test"}}); err != nil {
		t.Fatal(err)
	}
}

// A short list tells of a revocation at once. A long one is made once a second:
// who asks for /crl gets the old one meanwhile, who asks for /revoked waits for
// the new one. Revocations come from another process.
func TestLongListsArePaced(t *testing.T) {
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	s := manyCertificates(t, c, 1202)
	ctx := t.Context()
	made := func(exact bool) (int, time.Time) {
		t.Helper()
		n, at, err := c.Authority.CRLMade(ctx, exact)
		if err != nil {
			t.Fatal(err)
		}
		return n, at
	}
	for i := 1; i <= 3; i++ {
		revokeSerial(t, s, 1_000_000+i)
		if n, _ := made(false); n != i {
			t.Errorf("%d entries after %d revocations", n, i)
		}
	}
	if n, err := s.RevokeSet(ctx, record.Selection{Service: "many"}, record.Revocation{RevokedAt: time.Now(), Caller: "test"}); err != nil || n != 1199 {
		t.Fatalf("%d revoked, %v", n, err)
	}
	n, first := made(false)
	if n != 1202 {
		t.Errorf("%d entries, want 1202", n)
	}
	c.Revoke(t, enrol(t, c, "storage", "storage").Leaf.SerialNumber.String())
	if n, at := made(false); n != 1202 && at.Sub(first) < time.Second {
		t.Errorf("%d entries %s after the last list", n, at.Sub(first))
	}
	if n, at := made(true); n != 1203 || at.Sub(first) < time.Second {
		t.Errorf("exactly: %d entries %s after the last list, want 1203 after a second", n, at.Sub(first))
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := c.Authority.CRLMade(cancelled, true); err == nil {
		t.Error("a request that is over got a list")
	}
	c.Authority.SetCRLClock(time.Now().Add(time.Hour)) // the clock was set back by an hour
	if n, at := made(true); n != 1203 || time.Since(at) > time.Minute {
		t.Errorf("after the clock was set back: %d entries, made at %s", n, at)
	}
	c.Authority.SetCRLClock(time.Now().Add(-13 * time.Hour))
	if n, at := made(false); n != 1203 || time.Since(at) > time.Minute {
		t.Errorf("past half of its life: %d entries, made at %s", n, at)
	}
}

// A list that could not be signed is not taken for one that has nothing new.
func TestListsAfterAFailure(t *testing.T) {
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cert := enrol(t, c, "storage", "storage")
	if n, _, err := c.Authority.CRLMade(t.Context(), true); err != nil || n != 0 {
		t.Fatalf("%d %v", n, err)
	}
	good := c.Authority.SwapCRLKey(newKey(t))
	c.Revoke(t, cert.Leaf.SerialNumber.String())
	for range 2 {
		if n, _, err := c.Authority.CRLMade(t.Context(), true); err == nil {
			t.Errorf("a wrong key signed a list of %d", n)
		}
	}
	c.Authority.SwapCRLKey(good)
	if n, _, err := c.Authority.CRLMade(t.Context(), true); err != nil || n != 1 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// A list that did not change is not sent again, and openssl reads what is sent.
func TestCRLForOthers(t *testing.T) {
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

// With the lists of all, OpenSSL checks the whole chain, as nginx and PostgreSQL
// do; after a rotation and a new root as well. A root's list that is damaged is
// an error.
func TestListsOfAll(t *testing.T) {
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	old := enrol(t, c, "storage", "storage")
	if err := c.Authority.RotateIntermediate(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := c.Authority.AddRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	young := enrol(t, c, "storage", "storage")
	cl := newClient(t, c, nil)
	status, all := cl.do("GET", "/crl?all", nil)
	if n := strings.Count(string(all), "BEGIN X509 CRL"); status != http.StatusOK || n != 4 {
		t.Fatalf("%d, %d lists, want 4", status, n)
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
	if _, all := cl.do("GET", "/crl?all", nil); strings.Count(string(all), "BEGIN X509 CRL") != 3 {
		t.Error("a root without a list has one")
	}
}

// BenchmarkRevoke revokes one certificate after the other, and fetches the list
// after each: run with -benchtime 100000x. It tells the processor time apart, for a
// disk that is busy with others says nothing about lists.
func BenchmarkRevoke(b *testing.B) {
	c := catest.Start(b, catest.Options{Profiles: profiles()})
	s := manyCertificates(b, c, b.N)
	b.ResetTimer()
	before := cpuTime(b)
	for i := range b.N { // not b.Loop: there must be as many certificates
		revokeSerial(b, s, 1_000_001+i)
		if _, _, err := c.Authority.CRLMade(b.Context(), false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

package ca_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
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
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// stolen is an authority whose intermediate was stolen, replaced and revoked.
type stolen struct {
	*catest.CA
	issuer *x509.Certificate // the stolen one
	moved  *tls.Certificate  // renewed in time, so that the new intermediate has signed it
	late   *tls.Certificate  // did not renew in time
	forged *tls.Certificate  // signed by the thief
	tag    string            // of GET /revoked before the revocation
}

// steal expects that services of the stolen intermediate can renew until it is revoked.
func steal(t *testing.T) stolen {
	t.Helper()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(ownX5C)})
	s := stolen{CA: c, issuer: issuingCertificate(t, c), late: enrol(t, c, "storage", "storage")}
	key := newKey(t)
	der, err := c.Authority.Forge(&x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "storage"}, DNSNames: []string{"storage"}, PublicKey: key.Public(),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s.forged = &tls.Certificate{Certificate: [][]byte{der, s.issuer.Raw}, PrivateKey: key, Leaf: leaf}
	before := enrol(t, c, "storage", "storage")
	c.RotateIntermediate(t)
	status, body := newClient(t, c, before).do("POST", "/renew", nil)
	if status != http.StatusCreated {
		t.Fatalf("renewing before the revocation: %d %s", status, body)
	}
	s.moved = pair(t, body, before.PrivateKey.(crypto.Signer))
	_, _, s.tag = revokedLists(t, newClient(t, c, nil), "")
	c.RevokeIntermediate(t, s.issuer)
	return s
}

// After the revocation of an intermediate no certificate that it signed is a credential,
// whatever the way. The denial names its rule and is recorded.
func TestRevokedIssuerDenies(t *testing.T) {
	t.Parallel()
	s := steal(t)
	plain, late := newClient(t, s.CA, nil), newClient(t, s.CA, s.late)
	x5c := x5cToken(t, s.CA, s.late, "/sign", map[string]any{"sans": []string{"storage"}}).request(t, newKey(t), "storage", "storage")
	forged := x5cToken(t, s.CA, s.forged, "/sign", map[string]any{"sans": []string{"storage"}}).request(t, newKey(t), "storage", "storage")
	serial := s.late.Leaf.SerialNumber.String()
	revoke := stepapi.RevokeRequest{Serial: serial, Passive: true, OTT: string(x5cToken(t, s.CA, s.late, "/revoke", map[string]any{"sub": serial}))}
	proof := signProof(t, s.late.PrivateKey.(crypto.Signer), s.late.Certificate[:1], claimsFor(t, s.CA, s.late, "/1.0/renew", nil))
	for name, ask := range map[string]func() (int, []byte){
		"renewal over mutual TLS": func() (int, []byte) { return late.do("POST", "/renew", nil) },
		"new key over mutual TLS": func() (int, []byte) {
			return late.do("POST", "/rekey", stepapi.RekeyRequest{CSR: csr(t, newKey(t), "storage", "storage")})
		},
		"renewal by a token":    func() (int, []byte) { return plain.do("POST", "/1.0/renew", nil, "Authorization", "Bearer "+proof) },
		"token of type X5C":     func() (int, []byte) { return plain.do("POST", "/1.0/sign", x5c) },
		"revocation by a token": func() (int, []byte) { return plain.do("POST", "/1.0/revoke", revoke) },
		"revocation over mutual TLS": func() (int, []byte) {
			return late.do("POST", "/1.0/revoke", stepapi.RevokeRequest{Serial: serial, Passive: true})
		},
	} {
		if status, body := ask(); status != http.StatusUnauthorized || !strings.Contains(message(t, body), "rule: issuer not revoked") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	events, err := openRecord(t, s.CA).Events(t.Context(), "refused", 0, 100)
	if err != nil || len(events) != 6 || slices.ContainsFunc(events, func(e record.Event) bool { return e.Rule != "issuer not revoked" || e.Serial != serial }) {
		t.Errorf("%d recorded denials, want 6: %+v %v", len(events), events, err)
	}
	entry, err := openRecord(t, s.CA).Show(t.Context(), serial)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Authority.HandOutAgain(t.Context(), entry); err == nil || !strings.Contains(err.Error(), "rule: issuer not revoked") {
		t.Errorf("an answer that was lost before the revocation: %v", err)
	}
	for name, ask := range map[string]func() (int, []byte){
		"mutual TLS": func() (int, []byte) { return newClient(t, s.CA, s.forged).do("POST", "/renew", nil) },
		"X5C":        func() (int, []byte) { return plain.do("POST", "/1.0/sign", forged) },
	} {
		if status, body := ask(); status != http.StatusUnauthorized {
			t.Errorf("a forged certificate, %s: %d %s", name, status, body)
		}
	}
	if status, body := newClient(t, s.CA, s.moved).do("POST", "/renew", nil); status != http.StatusCreated {
		t.Errorf("a service that has renewed in time: %d %s", status, body)
	}
	enrol(t, s.CA, "storage", "storage") // the others need a new token
	s.Check(t)
}

// A certificate that an intermediate signed which is not in use any more, and that is not in
// the record, is not taken for one of another authority.
func TestForgedUnderARetiredIssuer(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(ownX5C)})
	retired, key := issuingCertificate(t, c), newKey(t)
	der, err := c.Authority.Forge(&x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "storage"}, DNSNames: []string{"storage"}, PublicKey: key.Public(),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.RotateIntermediate(t)
	if err := c.Authority.Retire(); err != nil {
		t.Fatal(err)
	}
	forged := &tls.Certificate{Certificate: [][]byte{der, retired.Raw}, PrivateKey: key, Leaf: leaf}
	req := x5cToken(t, c, forged, "/sign", map[string]any{"sans": []string{"storage"}}).request(t, newKey(t), "storage", "storage")
	if status, body := newClient(t, c, nil).do("POST", "/1.0/sign", req); status != http.StatusUnauthorized {
		t.Errorf("%d %s", status, body)
	}
}

// Services, the listener of the authority and OpenSSL learn of a revoked intermediate. A later
// list of the root still names it.
func TestRevokedIssuerIsServed(t *testing.T) {
	t.Parallel()
	s := steal(t)
	named := func(lists []*x509.RevocationList) bool {
		return slices.ContainsFunc(lists, func(l *x509.RevocationList) bool {
			return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
				return e.SerialNumber.Cmp(s.issuer.SerialNumber) == 0 && e.ReasonCode == 2 && l.CheckSignatureFrom(s.Roots()[0]) == nil
			})
		})
	}
	cl := newClient(t, s.CA, nil)
	lists, status, tag := revokedLists(t, cl, s.tag)
	if status != http.StatusOK || tag == s.tag || !named(lists) {
		t.Errorf("GET /revoked: %d, %d lists, tag %s after %s", status, len(lists), tag, s.tag)
	}
	s.RotateIntermediate(t)
	if lists, status, _ = revokedLists(t, cl, tag); status != http.StatusOK || !named(lists) {
		t.Errorf("after one more rotation: %d, %d lists", status, len(lists))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := s.Authority.Watch(ctx, func(id ca.ServerIdentity) error {
		if !named(id.Revoked) || len(id.Issuers) != len(id.Revoked) {
			t.Errorf("the listener gets %d lists of %d issuers", len(id.Revoked), len(id.Issuers))
		}
		cancel()
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := s.Authority.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	opensslJudges(t, s, cl)
}

// opensslJudges verifies certificates with the file of all lists.
func opensslJudges(t *testing.T, s stolen, cl *client) {
	t.Helper()
	_, all := cl.do("GET", "/crl?all", nil)
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, tc := range []struct {
		name    string
		cert    *tls.Certificate
		refused bool
	}{{"moved", s.moved, false}, {"late", s.late, true}, {"forged", s.forged, true}} {
		issuer, err := x509.ParseCertificate(tc.cert.Certificate[1])
		if err != nil {
			t.Fatal(err)
		}
		for file, certs := range map[string][]*x509.Certificate{"root": s.Roots(), "mid": {issuer}, "leaf": {tc.cert.Leaf}} {
			damage.File(t, filepath.Join(dir, file), pemfile.EncodeCertificates(certs))
		}
		damage.File(t, filepath.Join(dir, "lists"), all)
		cmd := exec.CommandContext(t.Context(), openssl, "verify", "-crl_check_all", "-CAfile", "root", "-untrusted", "mid", "-CRLfile", "lists", "leaf")
		cmd.Dir, cmd.Env = dir, os.Environ()
		out, err := cmd.CombinedOutput()
		if (err != nil) != tc.refused || tc.refused && !strings.Contains(string(out), "certificate revoked") {
			t.Errorf("openssl verify, %s: %v\n%s", tc.name, err, out)
		}
	}
}

// A revocation that is refused, because services would be cut off, leaves no list behind that a
// reload would find. One that is accepted reaches the other replica too.
func TestRefusedRevocationRevokesNothing(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Database: postgres.Database(t)})
	replica := c.Replica(t)
	cert, issuer := enrol(t, c, "storage", "storage"), issuingCertificate(t, c)
	c.RotateIntermediate(t)
	_, err := c.Authority.ChangeTrust(t.Context(), "test", stepapi.TrustChange{Step: stepapi.StepRevokeIntermediate, Certificate: certs.Fingerprint(issuer)})
	if _, refused := errors.AsType[*ca.CutOffError](err); !refused {
		t.Fatalf("revoking an intermediate in use: %v", err)
	}
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := newClient(t, c, cert).do("POST", "/renew", nil); status != http.StatusCreated {
		t.Errorf("renewing after the refusal: %d %s", status, body)
	}
	c.RevokeIntermediate(t, issuer)
	cl := newClient(t, replica, cert)
	for range 1000 {
		if status, _ := cl.do("POST", "/renew", nil); status == http.StatusUnauthorized {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the other replica renews certificates of the revoked intermediate")
}

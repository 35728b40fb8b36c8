package enroll_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// forge signs a leaf now, with the key of an intermediate that it takes from the authority. The
// key of the leaf is the same one.
func forge(t *testing.T, authority *catest.CA, intermediate *x509.Certificate) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(authority.Dir, "secrets", certs.Fingerprint(intermediate)+".key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := pemfile.PrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "svc"}, DNSNames: []string{"svc"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, intermediate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, key
}

// issuerOf is the intermediate in the chain of m.
func issuerOf(t *testing.T, m rotation.Material) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(m.Certificate.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// opensslVerify judges a leaf by the files of an identity directory, each certificate of its
// chain by the lists in crl.pem.
func opensslVerify(t *testing.T, dir string, leaf, issuer *x509.Certificate) (string, error) {
	t.Helper()
	write := func(c *x509.Certificate) string {
		path := filepath.Join(t.TempDir(), "pem")
		if err := os.WriteFile(path, pemfile.EncodeCertificates([]*x509.Certificate{c}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-crl_check_all", "-CAfile", filepath.Join(dir, "ca.crt"),
		"-CRLfile", filepath.Join(dir, "crl.pem"), "-untrusted", write(issuer), write(leaf)).CombinedOutput()
	return string(out), err
}

// TestRealStolenIntermediate expects that a client renews away from a stolen intermediate until
// that is revoked, and then has a list that names it, in crl.pem too. OpenSSL reads that file.
func TestRealStolenIntermediate(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester"))}
	first, err := enroll.Issue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	late := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "storage-element"))}
	if _, err := enroll.Issue(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	stolen := issuerOf(t, first)
	authority.RotateIntermediate(t)
	moved, err := enroll.Renew(t.Context(), cfg)
	if err != nil || issuerOf(t, moved).Equal(stolen) {
		t.Fatalf("before the revocation: %v", err)
	}
	forged, _ := forge(t, authority, stolen)
	if out, err := opensslVerify(t, cfg.Dir, forged, stolen); err != nil {
		t.Errorf("with the lists from before the revocation: %v\n%s", err, out)
	}
	authority.RevokeIntermediate(t, stolen)
	after, err := enroll.Renew(t.Context(), cfg)
	if err != nil || !isRevoked(after, stolen) {
		t.Errorf("the list of the root did not arrive: %d lists, %v", len(after.Revoked), err)
	}
	if out, err := opensslVerify(t, cfg.Dir, forged, stolen); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("a forged certificate: %v\n%s", err, out)
	}
	if out, err := opensslVerify(t, cfg.Dir, after.Certificate.Leaf, issuerOf(t, after)); err != nil {
		t.Errorf("the own certificate: %v\n%s", err, out)
	}
	var refused *enroll.Error
	if _, err := enroll.Renew(t.Context(), late); !errors.As(err, &refused) || !strings.Contains(refused.Message, "issuer not revoked") {
		t.Errorf("a service that is late: %v", err)
	}
	authority.Check(t)
}

// TestRealRevokedIssuerHeals expects that a running service whose issuer is revoked enrols
// again, if there is a token for it.
func TestRealRevokedIssuerHeals(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	src, err := enroll.New(enroll.Config{
		URL: authority.URL, RootFingerprint: authority.RootFingerprint, InMemory: true, TrustRefresh: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Token: func(context.Context) (secret.String, error) { return authority.Token(t, "ingester"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	src.SetRandom(func() float64 { return 0 })
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan rotation.Material, 100), make(chan error, 1)
	go func() { done <- src.Watch(ctx, func(m rotation.Material) error { got <- m; return nil }) }()
	stolen := issuerOf(t, <-got)
	authority.RotateIntermediate(t)
	authority.RevokeIntermediate(t, stolen)
	for m := range got {
		if !issuerOf(t, m).Equal(stolen) {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	authority.Check(t)
}

// TestRealNewTokenAfterRevocation expects that a service whose certificate was revoked, and that is started
// with a new token, uses the token at once: its certificate is of no use, though it has not expired.
func TestRealNewTokenAfterRevocation(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester")), TrustRefresh: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	first, err := enroll.Issue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, err := enroll.NewClient(authority.URL, first.Roots, &first.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Revoke(t.Context(), first.Version, 1, secret.String{}); err != nil {
		t.Fatal(err)
	}
	// await runs a source until it has published what is wanted.
	await := func(token func(context.Context) (secret.String, error), wanted func(rotation.Material) bool) {
		t.Helper()
		cfg.Token = token
		src, err := enroll.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		src.SetRandom(func() float64 { return 0 })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := src.Watch(ctx, func(m rotation.Material) error {
			if wanted(m) {
				cancel()
			}
			return nil
		}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	spent := func(context.Context) (secret.String, error) { return secret.String{}, enroll.ErrNoToken }
	await(spent, func(m rotation.Material) bool { return isRevoked(m, first.Certificate.Leaf) })
	await(once(authority.Token(t, "ingester")), func(m rotation.Material) bool { return !m.Certificate.Leaf.Equal(first.Certificate.Leaf) })
	authority.Check(t)
}

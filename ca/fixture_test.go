package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/x509util"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/certs"
)

func fixtureRequest(t *testing.T, names ...string) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509util.CreateCertificateRequest("anything", names, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestFixture(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	roots := x509.NewCertPool()
	for _, r := range c.Roots() {
		roots.AddCert(r)
	}
	for _, tc := range []struct {
		name   string
		at     time.Duration
		within time.Duration // from now to a moment at which it is valid
	}{
		{"expired", -24*time.Hour - time.Minute, -2 * time.Minute},
		{"not yet valid", 365 * 24 * time.Hour, 365*24*time.Hour + time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chain, err := c.Authority.IssueFixture(t.Context(), "ingester", fixtureRequest(t, "ingester", "::1", spiffe), time.Now().Add(tc.at))
			if err != nil {
				t.Fatal(err)
			}
			leaf, opts := chain[0], x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), DNSName: "ingester"}
			opts.Intermediates.AddCert(chain[1])
			_, err = leaf.Verify(opts)
			if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); !ok || invalid.Reason != x509.Expired { // which Go returns for both
				t.Errorf("verified now: %v", err)
			}
			opts.CurrentTime = time.Now().Add(tc.within)
			if _, err := leaf.Verify(opts); err != nil {
				t.Errorf("verified in its time: %v", err)
			}
			if leaf.Subject.CommonName != "ingester" || len(leaf.ExtKeyUsage) != 2 {
				t.Errorf("not by the profile: %v, usages %v", leaf.Subject, leaf.ExtKeyUsage)
			}
			recordHolds(t, c, leaf)
			c.Check(t)
		})
	}
}

// recordHolds checks that a fixture is in the record like any other certificate.
func recordHolds(t *testing.T, c *catest.CA, leaf *x509.Certificate) {
	t.Helper()
	rec, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rec.Close() }()
	entry, err := rec.Show(t.Context(), certs.Serial(leaf))
	if err != nil || !slices.Equal(entry.DER, leaf.Raw) || entry.Caller != "operator" || entry.Kind != kinds.Issued || entry.Service != "ingester" {
		t.Errorf("in the record: %s by %q for %q, %v", entry.Kind, entry.Caller, entry.Service, err)
	}
}

func TestFixtureRefused(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	past, future := time.Now().Add(-24*time.Hour-time.Minute), time.Now().Add(365*24*time.Hour)
	forged := fixtureRequest(t, "ingester")
	forged.Signature = slices.Clone(forged.Signature)
	forged.Signature[len(forged.Signature)-1] ^= 1
	email := fixtureRequest(t, "ingester", "someone@example.com")
	for _, tc := range []struct {
		name, service string
		csr           *x509.CertificateRequest
		at            time.Time
		want          string
	}{
		{"a name outside the profile", "ingester", fixtureRequest(t, "ingester", "storage"), past, `"storage" is not a name of service ingester`},
		{"no name", "ingester", fixtureRequest(t), past, "no name asked for"},
		{"an address for mail", "ingester", email, past, "e-mail"},
		{"a service without a profile", "nobody", fixtureRequest(t, "ingester"), past, "no profile"},
		{"the authority itself", "ca", fixtureRequest(t, "localhost"), past, "no profile"},
		{"a key of a kind it may not have", "picky", fixtureRequest(t, "picky"), past, "key type EC-P256"},
		{"a request that its key did not sign", "ingester", forged, past, "checking the request"},
		{"valid now", "ingester", fixtureRequest(t, "ingester"), time.Now(), "must not be valid now"},
		{"valid still", "ingester", fixtureRequest(t, "ingester"), time.Now().Add(-24*time.Hour + time.Minute), "must not be valid now"},
		{"valid already", "ingester", fixtureRequest(t, "ingester"), time.Now().Add(30 * time.Second), "must not be valid now"},
		{"before its issuer", "ingester", fixtureRequest(t, "ingester"), past.Add(-2 * time.Hour), "the issuing certificate begins"},
		{"after its issuer", "ingester", fixtureRequest(t, "ingester"), future.AddDate(10, 0, 0), "the issuing certificate ends"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			chain, err := c.Authority.IssueFixture(t.Context(), tc.service, tc.csr, tc.at)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%d certificates, %v; want %q", len(chain), err, tc.want)
			}
		})
	}
	rec, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rec.Close() }()
	if list, _, err := rec.List(t.Context(), record.Query{Service: "ingester", Limit: 10}); err != nil || len(list) != 0 {
		t.Errorf("%d certificates came of it, %v", len(list), err)
	}
	c.Check(t)
}

package enroll_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// Every kind of key signs a token that the library of the authority verifies.
func TestProofAlgorithms(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for alg, key := range map[string]crypto.Signer{"ES256": testpki.Key(t), "ES384": p384, "EdDSA": ed, "RS256": old, "": p521} {
		leaf := testpki.Issue(t, testpki.Root(t, "Root"), &x509.Certificate{Subject: pkix.Name{CommonName: "svc"}, NotAfter: now}, key)
		token, err := enroll.Proof(key, leaf.Cert, now)
		if alg == "" {
			if err == nil {
				t.Error("a key without a JWT algorithm was used")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		jwt, err := jose.ParseSigned(token.Expose())
		if err != nil {
			t.Fatal(err)
		}
		var claims jose.Claims
		if err := jwt.Claims(key.Public(), &claims); err != nil || jwt.Headers[0].Algorithm != alg {
			t.Errorf("%s: %s, %v", alg, jwt.Headers[0].Algorithm, err)
		}
		if err := claims.Validate(jose.Expected{Issuer: "step-ca-client/1.0", Subject: "svc", Audience: jose.Audience{"https://ca.test/1.0/renew"}, Time: now}); err != nil {
			t.Error(err)
		}
		if d := claims.Expiry.Time().Sub(now); d > 5*time.Minute || claims.ID == "" {
			t.Errorf("lives %v, id %q", d, claims.ID)
		}
	}
}

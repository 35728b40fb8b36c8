package assertion_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/artstore/artstore-pki/ingestclient/internal/assertion"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Each kind of key, verified by a library that knows nothing of this one.
func TestAssertionsVerify(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	now := time.Unix(1_700_000_000, 0)
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{
		jose.ES256: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		jose.RS256: must(rsa.GenerateKey(rand.Reader, 2048)),
		jose.EdDSA: ed,
	} {
		t.Run(string(alg), func(t *testing.T) {
			seen := map[string]bool{}
			for range 2 {
				raw, err := assertion.Sign(assertion.Claims{ClientID: "sa", Audience: "https://a/token", IssuedAt: now, Life: time.Minute}, key, "k1")
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{alg})
				if err != nil || parsed.Headers[0].KeyID != "k1" {
					t.Fatalf("%v, %+v", err, parsed)
				}
				var c jwt.Claims
				if err := parsed.Claims(key.Public(), &c); err != nil {
					t.Fatal(err)
				}
				if err := c.ValidateWithLeeway(jwt.Expected{Issuer: "sa", Subject: "sa", AnyAudience: jwt.Audience{"https://a/token"}, Time: now.Add(59 * time.Second)}, 0); err != nil {
					t.Error(err)
				}
				if c.Expiry.Time().Sub(c.IssuedAt.Time()) != time.Minute || c.ID == "" || seen[c.ID] {
					t.Errorf("claims %+v", c)
				}
				seen[c.ID] = true
			}
			raw := must(assertion.Sign(assertion.Claims{}, key, ""))
			if parsed := must(jwt.ParseSigned(raw, []jose.SignatureAlgorithm{alg})); parsed.Headers[0].KeyID != "" {
				t.Errorf("kid %q out of nowhere", parsed.Headers[0].KeyID)
			}
		})
	}
}

// unfit is a key that must not be asked for a signature.
type unfit struct{ pub crypto.PublicKey }

func (u unfit) Public() crypto.PublicKey { return u.pub }

func (unfit) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	panic("it was asked for a signature")
}

func TestKeysThatDoNotFit(t *testing.T) {
	for want, key := range map[string]crypto.Signer{
		"P-256":     must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"2048 bits": unfit{&must(rsa.GenerateKey(rand.Reader, 1024)).PublicKey},
		"not known": unfit{"text"},
	} {
		if raw, err := assertion.Sign(assertion.Claims{}, key, ""); err == nil || raw != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", want, raw, err)
		}
	}
}

package jws_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/artstore/artstore-pki/internal/jws"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestSignaturesVerify has each kind of key, verified by a library that knows nothing of
// this one.
func TestSignaturesVerify(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{
		jws.ES256: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		jws.ES384: must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		jws.RS256: must(rsa.GenerateKey(rand.Reader, 2048)),
		jws.EdDSA: ed,
	} {
		if got, err := jws.AlgorithmOf(key.Public()); err != nil || got != string(alg) {
			t.Errorf("%s is %s, %v", alg, got, err)
		}
		for range 20 { // leading zeros of R or S come up now and then
			text, err := jws.Sign(key, map[string]any{"alg": alg}, map[string]any{"sub": "a"})
			if err != nil {
				t.Fatalf("%s: %v", alg, err)
			}
			parsed, err := jose.ParseSigned(text, []jose.SignatureAlgorithm{alg})
			if err != nil {
				t.Fatalf("%s: %v", alg, err)
			}
			payload, err := parsed.Verify(key.Public())
			if err != nil || string(payload) != `{"sub":"a"}` {
				t.Fatalf("%s: %q, %v", alg, payload, err)
			}
			parts, ok := jws.Split(text)
			if said, err := jws.Decode(parts.Payload); !ok || err != nil || string(said) != string(payload) {
				t.Errorf("%s: %q, %v, %v", alg, said, ok, err)
			}
		}
	}
}

// broken is a key that signs with what the test says.
type broken struct {
	pub crypto.PublicKey
	sig []byte
	err error
}

func (b broken) Public() crypto.PublicKey { return b.pub }
func (b broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return b.sig, b.err
}

func TestKeysThatDoNotSign(t *testing.T) {
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public()
	gone := errors.New("the token was pulled out")
	for want, key := range map[string]crypto.Signer{
		jws.ErrKey.Error():                   broken{pub: "text"},
		"signing: the key returned no ECDSA": broken{pub: p256, sig: []byte("x")},
		"out of range":                       broken{pub: p256, sig: []byte{0x30, 6, 2, 1, 0, 2, 1, 1}},
		"signing: the token was pulled out":  broken{pub: p256, err: gone},
	} {
		if text, err := jws.Sign(key, 1, 2); err == nil || text != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", want, text, err)
		}
	}
	if _, err := jws.AlgorithmOf(must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)).Public()); !errors.Is(err, jws.ErrKey) {
		t.Errorf("P-521: %v", err)
	}
	for _, unfit := range []any{func() {}, make(chan int)} {
		if _, err := jws.Sign(broken{pub: p256}, unfit, 1); err == nil {
			t.Error("a header that is no JSON")
		}
		if _, err := jws.Sign(broken{pub: p256}, 1, unfit); err == nil {
			t.Error("claims that are no JSON")
		}
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string]jws.Parts{
		"a.b.c": {"a", "b", "c"}, "..": {}, "a.b.": {"a", "b", ""},
	} {
		if got, ok := jws.Split(text); !ok || got != want {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "a", "a.b", "a.b.c.d"} {
		if got, ok := jws.Split(text); ok || got != (jws.Parts{}) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
	for _, part := range []string{"YQ==", "a", "+/+/", "é"} {
		if got, err := jws.Decode(part); err == nil {
			t.Errorf("%q: %q", part, got)
		}
	}
}

// FuzzSignature: whatever a key returns as a signature, the result is an error or 64 bytes.
func FuzzSignature(f *testing.F) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	f.Add(must(key.Sign(rand.Reader, make([]byte, 32), crypto.SHA256)))
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, sig []byte) {
		text, err := jws.Sign(broken{pub: key.Public(), sig: sig}, 1, 2)
		if err != nil {
			return
		}
		if parts, ok := jws.Split(text); !ok || len(parts.Signature) != 86 {
			t.Fatalf("%q", text)
		}
	})
}

package ca_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// hugeKey returns a public key without a private half. The exponent is the largest
// with which crypto/rsa computes.
func hugeKey(t testing.TB, bits int) *rsa.PublicKey {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
	if err != nil {
		t.Fatal(err)
	}
	n.SetBit(n, bits-1, 1)
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 1<<31 - 1}
}

// noSignature has the length of a signature by the key, and is less than its modulus:
// any other value is refused without arithmetic.
func noSignature(key *rsa.PublicKey) []byte {
	sig := bytes.Repeat([]byte{0x21}, (key.N.BitLen()+7)/8)
	sig[0] = 0
	return sig
}

var sha256WithRSA = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}

// hugeRequest returns a certificate request with such a key, in DER.
func hugeRequest(t testing.TB, key *rsa.PublicKey) []byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	type info struct {
		Version         int
		Subject, Public asn1.RawValue
		Attributes      asn1.RawValue
	}
	return marshal(t, struct {
		Info      info
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{
		info{0, asn1.RawValue{FullBytes: []byte{0x30, 0}}, asn1.RawValue{FullBytes: spki}, asn1.RawValue{FullBytes: []byte{0xa0, 0}}},
		sha256WithRSA, asn1.BitString{Bytes: noSignature(key), BitLength: 8 * len(noSignature(key))},
	})
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pemRequest(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// certificateFor returns a certificate for any key, signed by another.
func certificateFor(t testing.TB, key crypto.PublicKey, issuer *x509.Certificate, by crypto.Signer) *x509.Certificate {
	t.Helper()
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "storage"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		DNSNames: []string{"storage"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if issuer == nil {
		issuer = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, issuer, key, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// handMadeJWT returns a token with any header, signed with RS256 by any means.
func handMadeJWT(t testing.TB, head, claims map[string]any, sign func(signed []byte) []byte) string {
	t.Helper()
	head["alg"] = "RS256"
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	text := part(head) + "." + part(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(text)))
}

// jwkOf returns a public key as the member jwk of a header (RFC 7518 §6.3.1).
func jwkOf(key *rsa.PublicKey) map[string]any {
	return map[string]any{
		"kty": "RSA", "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}
}

// weakKey signs with a key that crypto/rsa would not make.
type weakKey struct {
	rsa.PublicKey
	d *big.Int
}

func (k weakKey) Public() crypto.PublicKey { return &k.PublicKey }

// Sign is RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2.1).
func (k weakKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	prefix := []byte("\x00\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20")
	size := (k.N.BitLen() + 7) / 8
	em := append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, size-2-len(prefix)-len(digest))...)
	em = append(append(em, prefix...), digest...)
	return new(big.Int).Exp(new(big.Int).SetBytes(em), k.d, k.N).FillBytes(make([]byte, size)), nil
}

func (k weakKey) signs(t testing.TB) func([]byte) []byte {
	return func(text []byte) []byte {
		sum := sha256.Sum256(text)
		sig, err := k.Sign(nil, sum[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
}

// newWeakKey returns a key with the given factors: d is the inverse of e modulo the
// product of each factor less one.
func newWeakKey(t testing.TB, e int, factors ...*big.Int) weakKey {
	t.Helper()
	one, n, phi := big.NewInt(1), big.NewInt(1), big.NewInt(1)
	for _, f := range factors {
		n.Mul(n, f)
		phi.Mul(phi, new(big.Int).Sub(f, one))
	}
	d := new(big.Int).ModInverse(big.NewInt(int64(e)), phi)
	if d == nil {
		t.Fatalf("%d has no inverse", e)
	}
	return weakKey{rsa.PublicKey{N: n, E: e}, d}
}

// primeFor returns a prime of that length for which e has an inverse.
func primeFor(t testing.TB, bits, e int) *big.Int {
	t.Helper()
	for {
		p, err := rand.Prime(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		if new(big.Int).Mod(new(big.Int).Sub(p, big.NewInt(1)), big.NewInt(int64(e))).Sign() != 0 { // e is a prime itself
			return p
		}
	}
}

// weakKeys returns keys by the text of the rule that refuses each. Signatures by all
// of them verify.
func weakKeys(t testing.TB) map[string]weakKey {
	t.Helper()
	p, q := primeFor(t, 1024, 3), primeFor(t, 1024, 3)
	small := primeFor(t, 2038, 65537) // its two highest bits are set, so 751 times it has 2048
	next := new(big.Int).Add(p, big.NewInt(2))
	for !next.ProbablyPrime(1) {
		next.Add(next, big.NewInt(2))
	}
	return map[string]weakKey{
		"exponent 3":           newWeakKey(t, 3, p, q),
		"small factor 751":     newWeakKey(t, 65537, small, big.NewInt(751)),
		"prime number":         newWeakKey(t, 65537, primeFor(t, 2048, 65537)),
		"close to each other":  newWeakKey(t, 65537, p, next),
		"RSA key of 1024 bits": newWeakKey(t, 65537, primeFor(t, 512, 65537), primeFor(t, 512, 65537)),
	}
}

// resigned replaces the signature of a certificate.
func resigned(t testing.TB, der, signature []byte) []byte {
	t.Helper()
	var c struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		t.Fatal(err)
	}
	c.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	return marshal(t, c)
}

// TestKeyInHeader: the member jwk is found in each spelling, and no other member is
// taken for it.
func TestKeyInHeader(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	for head, found := range map[string]bool{
		`{"alg":"RS256","jwk":{}}`:             true,
		`{"alg":"RS256","\u006awk":{}}`:        true,
		`{"alg":"RS256","j\u0077\u006b":null}`: true,
		`{"alg":"RS256","kid":"jwk"}`:          false,
		`{"alg":"RS256","kid":"\u006awk"}`:     false,
		`{"alg":"RS256","JWK":{}}`:             false, // another member (RFC 7515 §4)
	} {
		token := base64.RawURLEncoding.EncodeToString([]byte(head)) + ".e30.AA"
		err := c.Authority.VerifySign(t.Context(), stepapi.SignRequest{CSR: "x", OTT: token})
		if err == nil || strings.Contains(err.Error(), "member jwk") != found {
			t.Errorf("%s: %v", head, err)
		}
	}
}

package pubkey_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/pubkey"
)

// Each rule by the function that is the first to apply it.
func TestRules(t *testing.T) {
	good := map[string]crypto.PublicKey{
		"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "Ed25519": edKey(t), "RSA 2048": rsaKey(t, 2048),
	}
	for name, key := range good {
		if err := pubkey.Validate(key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := rsaKey(t, 2048).N
	withE := func(e int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: e} }
	withN := func(n *big.Int) *rsa.PublicKey { return &rsa.PublicKey{N: n, E: 65537} }
	p := prime(t, 1024)
	off := *ecKey(t, elliptic.P256())
	off.Y = new(big.Int).Add(off.Y, big.NewInt(1)) //nolint:staticcheck // SA1019: a point off the curve cannot be made in another way
	const bounded, check, validate = 0, 1, 2
	for _, tc := range []struct {
		name  string
		key   crypto.PublicKey
		first int
		says  string
	}{
		{"180 000 bits", withN(new(big.Int).Lsh(big.NewInt(1), 179_999)), bounded, "RSA key of 180000 bits"},
		{"8193 bits", withN(new(big.Int).Lsh(big.NewInt(1), 8192)), bounded, "RSA key of 8193 bits"},
		{"no modulus", new(rsa.PublicKey), bounded, "without a modulus"},
		{"huge exponent", withE(1 << 32), bounded, "exponent 4294967296"},
		{"X25519", x25519Key(t), bounded, "unsupported kind"},
		{"no key", nil, bounded, "unsupported kind"},
		{"no curve", new(ecdsa.PublicKey), bounded, "without a curve"},
		{"8192 bits", withN(new(big.Int).Lsh(big.NewInt(1), 8191)), check, "want 2048, 3072, 4096"},
		{"2047 bits", withN(new(big.Int).Rsh(n, 1)), check, "want 2048, 3072, 4096"},
		{"1024 bits", withN(p), check, "RSA key of 1024 bits"},
		{"e = 3", withE(3), check, "exponent 3: want an odd number above 65536 (FIPS 186-5 §5.1)"},
		{"e = 65536", withE(65536), check, "exponent 65536"},
		{"e = 65538", withE(65538), check, "exponent 65538"},
		{"e = -1", withE(-1), check, "exponent -1"},
		{"even modulus", withN(new(big.Int).Sub(n, big.NewInt(1))), check, "it is even"},
		{"factor 3", withN(multiple(3)), check, "small factor 3 "},
		{"factor 751", withN(multiple(751)), check, "small factor 751 "},
		{"P-521", ecKey(t, elliptic.P521()), check, "curve P-521: want P-256 or P-384"},
		{"P-224", ecKey(t, elliptic.P224()), check, "curve P-224"},
		{"off the curve", &off, check, "not on curve P-256"},
		{"short Ed25519", edKey(t)[:31], check, "31 bytes"},
		{"prime modulus", withN(prime(t, 2048)), validate, "it is a prime number"},
		{"square", withN(new(big.Int).Mul(p, p)), validate, "close to each other"},
		{"close primes", withN(new(big.Int).Mul(p, nextPrime(p))), validate, "close to each other"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i, f := range []func(crypto.PublicKey) error{pubkey.Bounded, pubkey.Check, pubkey.Validate} {
				switch err := f(tc.key); {
				case i < tc.first && err != nil:
					t.Errorf("question %d refuses it: %v", i, err)
				case i >= tc.first && (err == nil || !strings.Contains(err.Error(), tc.says)):
					t.Errorf("question %d says %v, want %q", i, err, tc.says)
				}
			}
		})
	}
}

// A chosen modulus never costs a computation: the time for one of 180 000 bits is
// that of looking at its length.
func TestLengthComesFirst(t *testing.T) {
	huge := &rsa.PublicKey{N: multiple(3).Lsh(multiple(3), 180_000), E: 3}
	if n := testing.AllocsPerRun(10, func() { _ = pubkey.Validate(huge) }); n > 20 {
		t.Errorf("%v allocations for a key that is too long", n)
	}
}

// FuzzRSA: whatever modulus and exponent, no question panics, and a key that a
// stricter question accepts is accepted by the others too.
func FuzzRSA(f *testing.F) {
	f.Add([]byte{}, 3)
	f.Add([]byte{1}, 65537)
	f.Add(multiple(5).Bytes(), 65537)
	f.Add(multiple(1).Bytes(), -1)
	f.Fuzz(func(t *testing.T, modulus []byte, e int) {
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: e}
		b, c, v := pubkey.Bounded(key), pubkey.Check(key), pubkey.Validate(key)
		if v == nil && c != nil || c == nil && b != nil {
			t.Errorf("Bounded %v, Check %v, Validate %v", b, c, v)
		}
	})
}

func BenchmarkCheck(b *testing.B)    { bench(b, pubkey.Check) }
func BenchmarkValidate(b *testing.B) { bench(b, pubkey.Validate) }

func bench(b *testing.B, f func(crypto.PublicKey) error) {
	for name, size := range map[string]int{"RSA-2048": 2048, "RSA-4096": 4096} {
		key := rsaKey(b, size)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func rsaKey(t testing.TB, bits int) *rsa.PublicKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

func edKey(t testing.TB) ed25519.PublicKey {
	t.Helper()
	key, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func x25519Key(t testing.TB) *ecdh.PublicKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey()
}

func prime(t testing.TB, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nextPrime is what a broken generator takes for the second factor.
func nextPrime(p *big.Int) *big.Int {
	q := new(big.Int).Set(p)
	for {
		if q.Add(q, big.NewInt(2)); q.ProbablyPrime(1) {
			return q
		}
	}
}

// multiple is an odd number of 2048 bits whose smallest prime factor is f, if f is a prime.
func multiple(f int64) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	n.Sub(n, new(big.Int).Mod(n, big.NewInt(f))).Add(n, big.NewInt(f))
	for n.Bit(0) == 0 || smaller(n, f) {
		n.Add(n, big.NewInt(f))
	}
	return n
}

func smaller(n *big.Int, f int64) bool {
	for i := int64(3); i < f; i += 2 {
		if new(big.Int).Mod(n, big.NewInt(i)).Sign() == 0 {
			return true
		}
	}
	return false
}

// TestWeak: what peers should refuse, and what is only unusual.
func TestWeak(t *testing.T) {
	for want, key := range map[string]crypto.PublicKey{
		"RSA key of 1024 bits":  &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537},
		"EC key on curve P-224": &ecdsa.PublicKey{Curve: elliptic.P224()},
	} {
		if got := pubkey.Weak(key); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, key := range []crypto.PublicKey{
		&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2559), E: 65537}, &ecdsa.PublicKey{Curve: elliptic.P521()}, ed25519.PublicKey{}, nil, &rsa.PublicKey{},
	} {
		if got := pubkey.Weak(key); got != "" {
			t.Errorf("%T: %s", key, got)
		}
	}
}

package keytype_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"math/big"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/keytype"
)

// TestNew: a key is of the kind that was asked for, and of one that profiles know.
func TestNew(t *testing.T) {
	for kind, want := range map[string]string{
		"": keytype.P256, keytype.P256: keytype.P256, keytype.P384: keytype.P384, keytype.Ed25519: keytype.Ed25519, keytype.RSA3072: keytype.RSA3072,
	} {
		key, err := keytype.New(kind)
		if err != nil {
			t.Errorf("%q: %v", kind, err)
			continue
		}
		if got := keytype.Of(key.Public()); got != want || !slices.Contains(keytype.All, got) || keytype.Successor(key.Public()) != want {
			t.Errorf("%q: %s", kind, got)
		}
	}
	for _, kind := range []string{keytype.RSA2048, "DSA"} {
		if _, err := keytype.New(kind); err == nil {
			t.Errorf("%s was made", kind)
		}
	}
}

// TestSuccessor: the place of a key that the authority would not make is taken by one that it makes,
// and that is not weaker.
func TestSuccessor(t *testing.T) {
	modulus := func(bits uint) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 65537}
	}
	for _, tc := range []struct {
		key  crypto.PublicKey
		want string
	}{
		{modulus(2048), keytype.RSA3072},
		{modulus(3072), keytype.RSA3072},
		{modulus(3584), keytype.RSA4096},
		{modulus(8192), keytype.RSA4096},
		{&ecdsa.PublicKey{Curve: elliptic.P521()}, keytype.P384},
	} {
		if got := keytype.Successor(tc.key); got != tc.want {
			t.Errorf("%s: %s, want %s", keytype.Of(tc.key), got, tc.want)
		}
	}
}

// Package keytype has the kinds of keys that pki.yaml and init name, with one spelling for
// each. It says how long a key is and on which curve; whether a key is sound is for
// internal/pubkey to say.
package keytype

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"

	"go.step.sm/crypto/keyutil"
)

// The kinds by their names. The names are in configurations and in the record, so they must
// never change.
const (
	P256    = "EC-P256"
	P384    = "EC-P384"
	Ed25519 = "Ed25519"
	RSA2048 = "RSA-2048"
	RSA3072 = "RSA-3072"
	RSA4096 = "RSA-4096"
)

var (
	// All are the kinds that a profile can list. P-521 is not among them: TLS clients often
	// cannot use it. Read only.
	All = []string{P256, P384, Ed25519, RSA2048, RSA3072, RSA4096}
	// Default are the kinds of a profile that lists none. RSA-2048 is left out: it has 112
	// bits of security, the others 128 at least (NIST SP 800-57 Part 1, table 2). Read only.
	Default = []string{P256, P384, Ed25519, RSA3072, RSA4096}
)

// Of returns the kind of a public key. For a key that is of no kind in [All] it returns a
// text for messages, such as EC-P-521 or RSA-1848, which is never equal to one in All.
func Of(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return P256
		case elliptic.P384():
			return P384
		}
		return "EC-" + k.Curve.Params().Name
	case ed25519.PublicKey:
		return Ed25519
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	}
	return fmt.Sprintf("%T", key)
}

// New makes a key for a certificate of the authority, of a kind in [Default]; "" means P256.
// Other kinds are an error: services may have weaker keys than the authority signs with.
func New(kind string) (crypto.Signer, error) {
	kty, crv, size := "RSA", "", 0
	switch kind {
	case "", P256:
		kty, crv = "EC", "P-256"
	case P384:
		kty, crv = "EC", "P-384"
	case Ed25519:
		kty, crv = "OKP", "Ed25519"
	case RSA3072:
		size = 3072
	case RSA4096:
		size = 4096
	default:
		return nil, fmt.Errorf("key type %q: want %s", kind, strings.Join(Default, ", "))
	}
	key, err := keyutil.GenerateSigner(kty, crv, size)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return key, nil
}

// Successor returns the kind of a key that takes the place of one: the same kind if [New] makes
// it. A root or an intermediate that was made elsewhere may have another one; its place is
// taken by the nearest kind that is at least as strong, and by P384 where there is none.
func Successor(key crypto.PublicKey) string {
	kind := Of(key)
	switch k, isRSA := key.(*rsa.PublicKey); {
	case slices.Contains(Default, kind):
		return kind
	case isRSA && k.N.BitLen() <= 3072:
		return RSA3072
	case isRSA:
		return RSA4096
	}
	return P384
}

// Package pubkey judges public keys of strangers before anything computes with them. The cost
// of a signature check grows with the size of the key, and the private half of some keys
// can be computed from the public one.
//
//	if err := pubkey.Check(csr.PublicKey); err != nil { … }    // first: costs microseconds
//	if err := csr.CheckSignature(); err != nil { … }           // now bounded
//	if err := pubkey.Validate(csr.PublicKey); err != nil { … } // last: before the key is certified
//
// There are three questions, each stricter than the one before it:
//
//   - [Bounded]: is a signature check with this key cheap? It allows what
//     crypto/tls allows, and is for readers such as an audit, which must be able to
//     verify certificates that this project would never issue.
//   - [Check]: is the key of a kind and size that this project issues for, and
//     free of the faults that are cheap to find? It is for all keys that a stranger sends.
//   - [Validate]: does the key also pass the tests that cost milliseconds? It is for
//     keys that are about to be certified, after their sender was authenticated.
//
// The rules for RSA are those of FIPS 186-5 §5.1 and of the partial public-key
// validation in NIST SP 800-89 §5.3.3.
package pubkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxRSA is the longest RSA modulus, in bits, that [Bounded] allows. It is the limit
// of crypto/tls for certificates in a handshake. One signature check with such a
// key costs less than 6 ms, with the largest exponent that crypto/rsa takes.
const MaxRSA = 8192

const (
	minExponent = 1 << 16   // FIPS 186-5 §5.1: 2^16 < e
	maxExponent = 1<<31 - 1 // crypto/rsa takes no larger one; FIPS 186-5 allows up to 2^256
)

// moduli are the lengths of RSA moduli that are issued for, in bits.
var moduli = []int{2048, 3072, 4096}

// Bounded returns an error for a key that costs too much to compute with, or that
// the standard library cannot verify signatures with. It compares lengths only.
func Bounded(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			return errors.New("an RSA key without a modulus")
		}
		if n := k.N.BitLen(); n > MaxRSA {
			return fmt.Errorf("RSA key of %d bits: more than %d are not computed with", n, MaxRSA)
		}
		if k.E > maxExponent {
			return fmt.Errorf("RSA public exponent %d: more than %d is not computed with", k.E, maxExponent)
		}
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			return errors.New("an EC key without a curve")
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a key of an unsupported kind (%T)", key)
	}
	return nil
}

// leastCurve is the shortest order of a curve that is not weak, in bits.
const leastCurve = 256

// Weak says why a key is too weak to be used in TLS, or "" (RFC 9325 §4.5 wants
// 2048 bits of RSA). It is for keys that another authority has certified; [Check], for keys
// that this project certifies, is stricter.
func Weak(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k != nil && k.N != nil && k.N.BitLen() < moduli[0] {
			return fmt.Sprintf("RSA key of %d bits: fewer than %d are weak (RFC 9325 §4.5)", k.N.BitLen(), moduli[0])
		}
	case *ecdsa.PublicKey:
		if k != nil && k.Curve != nil && k.Curve.Params().BitSize < leastCurve {
			return fmt.Sprintf("EC key on curve %s: fewer than %d bits are weak", k.Curve.Params().Name, leastCurve)
		}
	}
	return ""
}

// Check returns an error, which names the rule, for a key that this project does
// not issue for or that has a fault that shows at once. It costs some 10 µs.
func Check(key crypto.PublicKey) error {
	if err := Bounded(key); err != nil {
		return err
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		return checkRSA(k)
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return fmt.Errorf("EC key on curve %s: want P-256 or P-384", k.Curve.Params().Name)
		}
		if _, err := k.Bytes(); err != nil {
			return fmt.Errorf("EC key: its point is not on curve %s", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("Ed25519 key of %d bytes: want %d", len(k), ed25519.PublicKeySize)
		}
	default:
		return fmt.Errorf("a key of an unsupported kind (%T)", key)
	}
	return nil
}

func checkRSA(k *rsa.PublicKey) error {
	n := k.N.BitLen()
	switch {
	case !slices.Contains(moduli, n):
		return fmt.Errorf("RSA key of %d bits: want %s", n, strings.Trim(strings.ReplaceAll(fmt.Sprint(moduli), " ", ", "), "[]"))
	case k.E <= minExponent || k.E%2 == 0:
		return fmt.Errorf("RSA public exponent %d: want an odd number above 65536 (FIPS 186-5 §5.1)", k.E)
	case k.N.Bit(0) == 0:
		return errors.New("RSA modulus: it is even (NIST SP 800-89 §5.3.3)")
	}
	if f := smallFactor(k.N); f != 0 {
		return fmt.Errorf("RSA modulus: it has the small factor %d (NIST SP 800-89 §5.3.3)", f)
	}
	return nil
}

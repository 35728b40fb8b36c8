// Package jws signs JSON Web Signatures in their compact form (RFC 7515 §7.1), and splits them
// for reading. It verifies nothing, so the content may be used only for decisions that the
// holder of the token may make anyway.
//
//	alg, err := jws.AlgorithmOf(key.Public())
//	text, err := jws.Sign(key, header, claims) // the header says alg
//	parts, ok := jws.Split(text)
//	payload, err := jws.Decode(parts.Payload)
//
// Invariants:
//
//   - The key decides the algorithm, and there is no "none". Which keys are allowed is
//     the business of the caller.
//   - A signature by an ECDSA key has the length that its curve says (RFC 7518 §3.4),
//     whatever the key has returned.
//   - Errors quote nothing of a token.
package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// ErrKey reports a key by which nothing can be signed here.
var ErrKey = errors.New("no JWT algorithm for this kind of key")

// Algorithms of RFC 7518 §3.1 and RFC 8037 §3.1, as a header names them.
const (
	ES256 = "ES256"
	ES384 = "ES384"
	RS256 = "RS256"
	EdDSA = "EdDSA"
)

// AlgorithmOf returns the algorithm by which a key signs, or [ErrKey].
func AlgorithmOf(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return EdDSA, nil
	case *rsa.PublicKey:
		return RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ES256, nil
		case elliptic.P384():
			return ES384, nil
		}
	}
	return "", ErrKey
}

// Sign returns the compact form of header and claims, signed by key. The member alg of
// the header is the caller's to set, as [AlgorithmOf] says. Errors are [ErrKey], those of
// the key, which say that they are of signing, and those of encoding/json.
func Sign(key crypto.Signer, header, claims any) (string, error) {
	alg, err := AlgorithmOf(key.Public())
	if err != nil {
		return "", err
	}
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	input := encode(h) + "." + encode(c)
	signature, err := sign(key, alg, []byte(input))
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return input + "." + encode(signature), nil
}

func sign(key crypto.Signer, alg string, input []byte) ([]byte, error) {
	switch alg {
	case EdDSA: // it signs the message, not a digest of it
		return key.Sign(rand.Reader, input, crypto.Hash(0))
	case ES384:
		digest := sha512.Sum384(input)
		return signECDSA(key, digest[:], crypto.SHA384)
	case ES256:
		digest := sha256.Sum256(input)
		return signECDSA(key, digest[:], crypto.SHA256)
	}
	digest := sha256.Sum256(input)
	return key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

// signECDSA turns the DER that a crypto.Signer returns into R and S side by side, each of
// the size of the curve (RFC 7518 §3.4). For both curves that is the size of the digest.
func signECDSA(key crypto.Signer, digest []byte, hash crypto.Hash) ([]byte, error) {
	der, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, err
	}
	size := len(digest)
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &rs); err != nil || len(rest) > 0 {
		return nil, errors.New("the key returned no ECDSA signature")
	}
	if rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 8*size || rs.S.BitLen() > 8*size {
		return nil, errors.New("the key returned an ECDSA signature out of range")
	}
	out := make([]byte, 2*size)
	rs.R.FillBytes(out[:size])
	rs.S.FillBytes(out[size:])
	return out, nil
}

// Parts are the three parts of a compact form, each still in base64url.
type Parts struct{ Header, Payload, Signature string }

// Split takes a compact form apart. ok is false if it has not three parts.
func Split(text string) (p Parts, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return Parts{}, false
	}
	return Parts{parts[0], parts[1], parts[2]}, true
}

// Decode decodes a part. It takes no padding (RFC 7515 §2). Its error quotes the part.
func Decode(part string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(part) }

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

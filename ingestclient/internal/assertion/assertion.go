// Package assertion signs the JSON Web Tokens with which an OAuth client proves
// who it is (private_key_jwt, RFC 7523 section 2.2). It makes them and nothing
// else: no parsing, no verification, no algorithm that the key does not imply.
package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Type is the client_assertion_type of RFC 7523 section 2.2.
const Type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

const minRSABits = 2048 // RFC 7518 section 3.3

// Claims of one assertion. Issuer and subject are the client, as RFC 7523
// section 3 wants it.
type Claims struct {
	ClientID string
	Audience string        // the token endpoint's URL
	IssuedAt time.Time     // by the clock of the endpoint
	Life     time.Duration // after which it is worthless; whole seconds
}

// Sign returns the assertion in compact serialisation. The key decides the
// algorithm: ES256 for P-256, RS256 for RSA from 2048 bits, EdDSA for Ed25519;
// any other is an error. kid goes into the header unless it is empty. Each
// assertion has an id of its own (jti), so none can be replayed.
func Sign(c Claims, key crypto.Signer, kid string) (string, error) {
	alg, err := algorithm(key)
	if err != nil {
		return "", err
	}
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid,omitempty"`
		Typ string `json:"typ"`
	}{alg, kid, "JWT"})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
		ID       string `json:"jti"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{c.ClientID, c.ClientID, c.Audience, rand.Text(), c.IssuedAt.Unix(), c.IssuedAt.Add(c.Life).Unix()})
	if err != nil {
		return "", err
	}
	input := encode(header) + "." + encode(payload)
	sig, err := sign(key, alg, []byte(input))
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return input + "." + encode(sig), nil
}

// algorithm is the alg of RFC 7518 section 3.1 and RFC 8037 section 3.1.
func algorithm(key crypto.Signer) (string, error) {
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return "ES256", nil
		}
		return "", errors.New("an ECDSA key must be on P-256")
	case *rsa.PublicKey:
		if pub.Size()*8 >= minRSABits {
			return "RS256", nil
		}
		return "", fmt.Errorf("an RSA key must have %d bits at least", minRSABits)
	case ed25519.PublicKey:
		return "EdDSA", nil
	default:
		return "", fmt.Errorf("keys of type %T are not known", pub)
	}
}

func sign(key crypto.Signer, alg string, input []byte) ([]byte, error) {
	if alg == "EdDSA" { // signs the message, not a digest of it
		return key.Sign(rand.Reader, input, crypto.Hash(0))
	}
	digest := sha256.Sum256(input)
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil || alg == "RS256" {
		return sig, err
	}
	return fixed(sig)
}

// fixed turns the DER that crypto.Signer returns into R and S side by side, 32
// bytes each (RFC 7518 section 3.4).
func fixed(der []byte) ([]byte, error) {
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &rs); err != nil || len(rest) > 0 {
		return nil, errors.New("the key returned no ECDSA signature")
	}
	if rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return nil, errors.New("the key returned an ECDSA signature out of range")
	}
	out := make([]byte, 64)
	rs.R.FillBytes(out[:32])
	rs.S.FillBytes(out[32:])
	return out, nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

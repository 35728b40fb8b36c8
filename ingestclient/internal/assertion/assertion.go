// Package assertion signs the JSON Web Tokens by which an OAuth client authenticates
// (private_key_jwt, RFC 7523 §2.2). It neither parses nor verifies them.
package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/jws"
)

// Type is the client_assertion_type of RFC 7523 §2.2.
const Type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

const minRSABits = 2048 // RFC 7518 §3.3

// Claims are the claims of one assertion. Issuer and subject are the client (RFC 7523 §3).
type Claims struct {
	ClientID string
	Audience string        // the token endpoint's URL
	IssuedAt time.Time     // by the clock of the endpoint
	Life     time.Duration // in whole seconds
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
	header := struct {
		Alg string `json:"alg"`
		Kid string `json:"kid,omitempty"`
		Typ string `json:"typ"`
	}{alg, kid, "JWT"}
	claims := struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
		ID       string `json:"jti"`
		IssuedAt int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{c.ClientID, c.ClientID, c.Audience, rand.Text(), c.IssuedAt.Unix(), c.IssuedAt.Add(c.Life).Unix()}
	return jws.Sign(key, header, claims)
}

// algorithm returns how a key signs, if it is one of those that are allowed here.
func algorithm(key crypto.Signer) (string, error) {
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return "", errors.New("an ECDSA key must be on P-256")
		}
	case *rsa.PublicKey:
		if pub.Size()*8 < minRSABits {
			return "", fmt.Errorf("an RSA key must have %d bits at least", minRSABits)
		}
	case ed25519.PublicKey:
	default:
		return "", fmt.Errorf("keys of type %T are not known", pub)
	}
	return jws.AlgorithmOf(key.Public())
}

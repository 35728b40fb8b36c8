package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// TLS refuses an expired certificate in the handshake. An authority that renews
// one all the same wants to see the key in another way: by a token that is signed
// with it and carries the certificate, as "step ca renew" makes it.

// proofLife is the longest that the authority takes. It uses a token once.
const proofLife = 5 * time.Minute

// renewalToken makes a token for one path of the authority at host, by its clock. csr (PEM) is
// the request that it is bound to; nil if there is none.
func (i *identity) renewalToken(host, path string, csr []byte, now time.Time) (secret.String, error) {
	alg, hash, err := algorithm(i.key.Public())
	if err != nil {
		return secret.String{}, fmt.Errorf("making a renewal token: %w", err)
	}
	chain := make([]string, len(i.chain))
	for n, c := range i.chain {
		chain[n] = base64.StdEncoding.EncodeToString(c.Raw)
	}
	claims := map[string]any{
		"iss": stepapi.ProofIssuer, "sub": i.leaf().Subject.CommonName, "aud": "https://" + host + stepapi.Prefix + path,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(proofLife).Unix(), "jti": rand.Text(),
	}
	if block, _ := pem.Decode(csr); block != nil {
		claims["cnf"] = map[string]string{"x5rt#S256": stepapi.RequestFingerprint(block.Bytes)}
	}
	header, err := json.Marshal(map[string]any{"alg": alg, "typ": "JWT", stepapi.ProofHeader: chain})
	if err != nil {
		return secret.String{}, err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return secret.String{}, err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := sign(i.key, hash, []byte(text))
	if err != nil {
		return secret.String{}, fmt.Errorf("making a renewal token: signing: %w", err)
	}
	return secret.New(text + "." + base64.RawURLEncoding.EncodeToString(signature)), nil
}

// algorithm names how a key signs a JWT (RFC 7518 §3.1, RFC 8037 §3.1).
func algorithm(pub crypto.PublicKey) (name string, hash crypto.Hash, err error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return "EdDSA", 0, nil
	case *rsa.PublicKey:
		return "RS256", crypto.SHA256, nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return "ES256", crypto.SHA256, nil
		case 384:
			return "ES384", crypto.SHA384, nil
		}
	}
	return "", 0, errors.New("no JWT algorithm for this kind of key")
}

func sign(key crypto.Signer, hash crypto.Hash, message []byte) ([]byte, error) {
	if hash != 0 {
		h := hash.New()
		_, _ = h.Write(message) // a hash does not fail
		message = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, message, hash)
	pub, ok := key.Public().(*ecdsa.PublicKey)
	if err != nil || !ok {
		return signature, err
	}
	// JWS wants the two numbers side by side, each of the curve's size (RFC 7518 §3.4).
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &rs); err != nil {
		return nil, err
	}
	size := pub.Curve.Params().BitSize / 8
	out := make([]byte, 2*size)
	rs.R.FillBytes(out[:size])
	rs.S.FillBytes(out[size:])
	return out, nil
}

// renewExpired gets a successor of a certificate that cannot be shown in a handshake.
// A refused token is tried once more if the refusal taught us the time.
func (s *Source) renewExpired(ctx context.Context, cur *identity) (*identity, error) {
	before := s.offset()
	i, err := s.renewByToken(ctx, cur)
	if isDenied(err) && (s.offset()-before).Abs() > minLoggedSkew {
		i, err = s.renewByToken(ctx, cur)
	}
	return i, err
}

// renewByToken sends a token for a new key. A stock step-ca takes one for the same key
// only, and says that there is no certificate: that key then has one more life.
func (s *Source) renewByToken(ctx context.Context, cur *identity) (*identity, error) {
	key, csr, err := s.newRekey(cur)
	if err != nil {
		return nil, err
	}
	c, err := s.newDialer().newClient(s.cfg.URL, cur.roots, nil)
	if err != nil {
		return nil, fmt.Errorf("renewing the certificate: %w", err)
	}
	defer c.Close()
	c.TrustDigest = stepapi.TrustDigest(cur.roots)
	send := func(path string, csr []byte) ([]*x509.Certificate, error) {
		req := apiRequest{operation: "renewing the expired certificate", method: http.MethodPost, path: path}
		if csr != nil {
			req.body = stepapi.RekeyRequest{CSR: string(csr)}
		}
		base, err := url.Parse(s.cfg.URL)
		if err == nil {
			req.bearer, err = cur.renewalToken(base.Host, path, csr, s.authority())
		}
		if err != nil {
			return nil, err
		}
		return c.certify(ctx, req)
	}
	chain, err := send(stepapi.PathRekey, csr)
	if e := (*Error)(nil); errors.As(err, &e) && (e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound) {
		key = cur.key
		chain, err = send(stepapi.PathRenew, nil)
	}
	if err != nil {
		return nil, err
	}
	return s.successor(ctx, cur, chain, key)
}

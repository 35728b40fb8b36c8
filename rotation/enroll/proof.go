package enroll

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/artstore/artstore-pki/internal/jws"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// A server refuses an expired certificate in the handshake. An authority that renews such a
// certificate wants another proof that the caller has its key: a token that is signed with
// the key and has the certificate in its header, as "step ca renew" makes it.

// proofLife is the longest life of such a token that the authority accepts. It accepts a
// token once.
const proofLife = 5 * time.Minute

// renewalToken makes a token for one path of the authority at host. now is the time by the
// clock of the authority. csr (PEM) is the request that the token is bound to, or nil.
func (i *identity) renewalToken(host, path string, csr []byte, now time.Time) (secret.String, error) {
	alg, err := jws.AlgorithmOf(i.key.Public())
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
	text, err := jws.Sign(i.key, map[string]any{"alg": alg, "typ": "JWT", stepapi.ProofHeader: chain}, claims)
	if err != nil {
		return secret.String{}, fmt.Errorf("making a renewal token: %w", err)
	}
	return secret.New(text), nil
}

// renewExpired gets a successor of a certificate that cannot be shown in a handshake. If the
// token is refused and the answer shows that the clock here is wrong, it tries once more.
func (s *Source) renewExpired(ctx context.Context, cur *identity) (*identity, error) {
	before := s.offset()
	i, err := s.renewByToken(ctx, cur)
	if isDenied(err) && (s.offset()-before).Abs() > minLoggedSkew {
		i, err = s.renewByToken(ctx, cur)
	}
	return i, err
}

// renewByToken sends a renewal token with a CSR for a new key. A stock step-ca renews only
// the same key this way, and answers 400 or 404: then the old key is used for one more life.
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
	if e, ok := errors.AsType[*Error](err); ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound) {
		key = cur.key
		chain, err = send(stepapi.PathRenew, nil)
	}
	if err != nil {
		return nil, err
	}
	return s.successor(ctx, cur, chain, key)
}

package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/joseheader"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/jws"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/panics"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// TLS refuses an expired certificate in the handshake, so its holder proves in another way
// that it has the key: with a JWT in the Authorization header (RFC 6750 §2.1) that is
// signed with the key and valid for minutes. It is the token of "step ca renew". Profile,
// lineage and record are checked as for a renewal over mutual TLS.
// docs/design/0008-renewal-after-expiry.md

const (
	maxProof     = 24 << 10 // bytes; a token with a chain of two RSA-4096 certificates is below 8 KiB
	maxProofLife = 5 * time.Minute
	bearer       = "Bearer "
)

// renewalToken is a token whose signature fits the certificate in its header. It is not
// known yet whether this authority has issued that certificate.
type renewalToken struct {
	jose.Claims
	Confirmation struct {
		Fingerprint string `json:"x5rt#S256"` // of the certificate request for a new key
	} `json:"cnf"`
	leaf *x509.Certificate
	sum  [sha256.Size]byte // see signedPart
}

// parseProof parses a token and checks its signature by the certificate in its header.
// Its errors are 401 for clients that are not authenticated, and quote nothing of it.
func parseProof(text string) (_ *renewalToken, err error) {
	defer panics.Catch(panics.Into(&err, "the embedded authority"))
	if len(text) > maxProof {
		return nil, denial.Unauthorized("the renewal token is longer than %d bytes", maxProof)
	}
	head, err := joseheader.Compact(text)
	if err != nil {
		return nil, denial.Unauthorized("the renewal token is not a signed JWT: %v", err)
	}
	chain, err := head.Certificates(stepapi.ProofHeader, 1) // the leaf alone: the record has its chain
	if err != nil {
		return nil, denial.Unauthorized("the renewal token was refused: %v", err)
	}
	tok, err := jose.ParseSigned(text)
	if err != nil || len(tok.Headers) != 1 {
		return nil, denial.Unauthorized("the renewal token is not a signed JWT")
	}
	p := &renewalToken{sum: signedPart(text), leaf: chain[0]}
	if err := tok.Claims(p.leaf.PublicKey, p); err != nil { // the key decides which algorithms are accepted, not the header
		return nil, denial.Unauthorized("the renewal token is not signed by the key of its certificate")
	}
	return p, nil
}

// validate checks the claims for the action in which the token is used. A token for
// /renew is refused at /rekey, and the other way round. A token for /rekey is bound to one
// certificate request: a proxy that sees the token must not be able to use it for another
// key. der is that request, nil for /renew.
func (p *renewalToken) validate(st *state, use action, der []byte, now time.Time) error {
	err := p.ValidateWithLeeway(jose.Expected{Issuer: stepapi.ProofIssuer, Subject: p.leaf.Subject.CommonName, Time: now}, tokenLeeway)
	switch {
	case errors.Is(err, jose.ErrInvalidIssuer):
		return denial.Unauthorized("the renewal token was refused: its issuer is not %s", stepapi.ProofIssuer)
	case errors.Is(err, jose.ErrInvalidSubject):
		return denial.Unauthorized("the renewal token was refused: its subject is not that of the certificate")
	case err != nil:
		return denial.Unauthorized("the renewal token was refused: %s; the time here is %s", tokenFault(err), validity.Stamp(now))
	case p.Expiry == nil:
		return denial.Unauthorized("the renewal token has no expiry: it could be used for ever")
	case p.Expiry.Time().Sub(now) > maxProofLife+tokenLeeway:
		return denial.Unauthorized("the renewal token lives longer than %s", maxProofLife)
	case !slices.ContainsFunc(p.Audience, func(a string) bool { return st.isAudience(a, use, "") }):
		return denial.Unauthorized("the renewal token was refused: it is for another purpose")
	}
	if der != nil && p.Confirmation.Fingerprint != stepapi.RequestFingerprint(der) {
		return denial.Unauthorized("the renewal token is not bound to this request")
	}
	return nil
}

// isAudience reports whether the audience of a token is this authority and this action.
// The port is not compared, as step does it: behind a proxy it is another one. fragment is
// the name of a provisioner of type X5C in the form of step, otherwise empty.
func (st *state) isAudience(audience string, use action, fragment string) bool {
	u, err := url.Parse(audience)
	if err != nil || u.Scheme != "https" || u.Fragment != fragment {
		return false
	}
	return strings.TrimPrefix(u.Path, stepapi.Prefix) == "/"+string(use) && st.rules.IsOwnHost(u.Hostname())
}

// verifyProof authenticates a renewal by a token, and returns the token that the commit
// spends. A certificate that has not expired may renew this way too, as with step: behind
// a proxy that terminates TLS there is no other way.
func (a *Authority) verifyProof(ctx context.Context, text string, use action, der []byte) (c caller, entry record.Certificate, spent store.Token, err error) {
	p, err := parseProof(text)
	if err != nil {
		return c, entry, spent, err
	}
	st, now := a.state.Load(), time.Now()
	if entry, err = a.lookUp(ctx, p.leaf); err != nil {
		return c, entry, spent, err
	}
	if err := p.validate(st, use, der, now); err != nil {
		return c, entry, spent, err
	}
	c = callerOf(entry)
	at := now
	if now.After(p.leaf.NotAfter) {
		c.name, at = "expired "+c.name, p.leaf.NotAfter
		err = st.checkGrace(c, p.leaf, now)
	}
	if err == nil {
		err = st.verifyChain(entry, p.leaf, at)
	}
	if err != nil {
		return c, entry, spent, a.recordDenial(ctx, c, accessRequest{action: use}, err)
	}
	return c, entry, store.Token{
		Hash:    p.sum,
		Expires: p.Expiry.Time().Add(2 * tokenLeeway),
	}, nil
}

// checkGrace denies the renewal of a certificate that has expired longer ago than the
// grace of its profile.
func (st *state) checkGrace(c caller, leaf *x509.Certificate, now time.Time) error {
	p, err := st.serviceFor(c)
	if err != nil {
		return err
	}
	grace := p.Grace(leaf.NotAfter.Sub(lifetime.IssuedAt(leaf.NotBefore, leaf.NotAfter)))
	ended := validity.Stamp(leaf.NotAfter)
	if grace == 0 {
		return denial.New(denial.Grace, "the certificate expired at %s, and expired certificates of %s are not renewed: enrol again", ended, c.service)
	}
	if over := now.Sub(leaf.NotAfter); over > grace {
		return denial.New(denial.Grace, "the certificate expired at %s, longer ago than the %s within which it could be renewed: enrol again", ended, grace)
	}
	return nil
}

// verifyChain verifies as a handshake would that the chain ends at a current root
// (RFC 5280 §6) and that its intermediate is not revoked. at is now, or the end of a
// certificate that has expired.
func (st *state) verifyChain(entry record.Certificate, leaf *x509.Certificate, at time.Time) error {
	chain, err := x509.ParseCertificates(entry.Chain)
	if err != nil {
		return err
	}
	opts := x509.VerifyOptions{
		Roots: certs.Pool(st.roots...), Intermediates: certs.Pool(chain...),
		CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return denial.New(denial.Root, "the certificate does not chain to a root of today: enrol again")
	}
	return st.checkIssuers(chains)
}

// signedPart returns a hash of header and payload, by which a token is spent: tokens of
// step have no id. The signature is not hashed, and base64 is decoded first. Both can be
// changed so that the token still verifies, and it would then pass for another token.
func signedPart(text string) [sha256.Size]byte {
	h := sha256.New()
	_, _ = h.Write([]byte("renewal"))
	parts, _ := jws.Split(text) // joseheader.Compact has checked that there are three
	for _, part := range []string{parts.Header, parts.Payload} {
		b, _ := jws.Decode(part) // jose.ParseSigned has decoded both
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		_, _ = h.Write(b) // a hash does not fail
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// bearerToken returns the renewal token of a request, "" if there is none.
func bearerToken(r *http.Request) string {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), bearer)
	if !ok {
		return ""
	}
	return text
}

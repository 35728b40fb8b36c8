package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/joseheader"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/pkcs10"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/panics"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	// tokenLeeway is how far clocks may differ: a token is accepted so long after its
	// expiry, as smallstep does it. Spent tokens are remembered for longer.
	tokenLeeway = time.Minute
	// maxTokenLife bounds how long a token can be used, and with it how long it must be
	// remembered after it was spent.
	maxTokenLife = time.Hour
)

// verifiedRequest is an authenticated request for a certificate. Only the functions that
// verify a credential make one, so nothing else can be prepared.
type verifiedRequest struct {
	caller         caller
	action         action
	names          []string // canonical, sorted
	key            crypto.PublicKey
	keyHash        string
	provisioner    provisioner.Extension
	token          store.Token
	singleUse      bool                // a second use of token is refused, also for the same key
	previous       *record.Certificate // which is renewed, or whose key has signed the token
	order          string              // id of the ACME order, or empty
	proof          validity.Proof      // when the proof of identity ends
	requestedDates validity.Dates      // zero if the request leaves them to the profile
	report         record.TrustReport  // which trust bundle the client has in effect; without a digest if it does not say
	fixtureTime    time.Time           // now of the dates; zero means the clock, other values are for fixtures only
}

// claims are the claims of a token whose signature was checked.
type claims struct {
	jose.Claims
	SANs         []string `json:"sans"`
	Confirmation struct {
		Fingerprint string `json:"x5rt#S256"` // of the request that the token is bound to, or empty
	} `json:"cnf"`
	Actor       *actor                `json:"act"` // the enroller that asked for the token, or nil
	kid         string                // RFC 7515 §4.1.4
	certificate *x509.Certificate     // whose key has signed the token; nil if an enrolment key has
	chains      [][]*x509.Certificate // verified ones of certificate
}

// verifyToken checks signature, issuer, audience and times of a token (RFC 7519 §4.1) for
// one action, and stores nothing: the commit spends the token. smallstep's own path
// spends a token before it has looked at the signature, which lets unauthenticated
// clients fill the database. Errors are 401 and quote nothing of the token.
func verifyToken(st *state, ott string, use action) (_ *claims, err error) {
	defer panics.Catch(panics.Into(&err, "the embedded authority"))
	head, err := joseheader.Compact(ott)
	if err != nil {
		return nil, denial.Unauthorized("the token is not a signed JWT: %v", err)
	}
	tok, err := jose.ParseSigned(ott)
	if err != nil || len(tok.Headers) != 1 {
		return nil, denial.Unauthorized("the token is not a signed JWT")
	}
	c := &claims{kid: tok.Headers[0].KeyID}
	key, issuer, err := c.signingKey(st, tok, head)
	if err != nil {
		return nil, err
	}
	if err := tok.Claims(key, c); err != nil { // the key decides which algorithms are accepted, not the header
		return nil, denial.Unauthorized("the token was refused: %s", tokenFault(err))
	}
	if c.Issuer != issuer {
		return nil, errProvisioner
	}
	now, fragment := time.Now(), ""
	if c.certificate != nil {
		fragment = c.provisioner()
	}
	err = c.ValidateWithLeeway(jose.Expected{Time: now}, tokenLeeway) // the issuer was compared above
	switch {
	case err != nil:
		return nil, denial.Unauthorized("the token was refused: %s", tokenFault(err))
	case !slices.ContainsFunc(c.Audience, func(a string) bool { return st.isAudience(a, use, fragment) }):
		return nil, denial.Unauthorized("the token was refused: it is for another purpose")
	case c.Subject == "":
		return nil, denial.Unauthorized("the token was refused: it has no subject")
	case c.ID == "" || c.Expiry == nil:
		return nil, denial.Unauthorized("the token has no id or no expiry: it could be used for ever")
	case c.Expiry.Time().Sub(now) > maxTokenLife+tokenLeeway:
		return nil, denial.Unauthorized("the token lives longer than %s", maxTokenLife)
	}
	return c, nil
}

// signingKey returns the key that must have signed the token, and the issuer that the
// token must have: the enrolment key that its header names, or the key of the
// certificate in its header. It reads the issuer before the signature is checked, only
// to find the key.
func (c *claims) signingKey(st *state, tok *jose.JSONWebToken, head joseheader.Header) (key crypto.PublicKey, issuer string, err error) {
	now := time.Now()
	if name, key := st.rules.EnrolmentKey(c.kid, "", now); key != nil { // a key id that one provisioner has
		return key, name, nil
	}
	var who struct {
		Issuer string `json:"iss"`
	}
	if err := tok.UnsafeClaimsWithoutVerification(&who); err != nil {
		return nil, "", denial.Unauthorized("the token is not a signed JWT")
	}
	if i := slices.IndexFunc(st.rules.X5Cs, func(p policy.X5C) bool { return p.Name == who.Issuer }); i >= 0 {
		if c.chains, err = tokenChains(st.rules.X5Cs[i], head); err != nil {
			return nil, "", denial.Unauthorized("the token was refused: %v", err)
		}
		c.certificate = c.chains[0][0]
		return c.certificate.PublicKey, who.Issuer, nil
	}
	if name, key := st.rules.EnrolmentKey(c.kid, who.Issuer, now); who.Issuer != "" && key != nil {
		return key, name, nil
	}
	return nil, "", errProvisioner
}

// provisioner returns the id of the provisioner in the form of step.
func (c *claims) provisioner() string {
	if c.certificate != nil {
		return "x5c/" + c.Issuer
	}
	return c.Issuer + ":" + c.kid
}

var errProvisioner = denial.Unauthorized("the token's provisioner is not known here")

// tokenFault says which check has failed. The text of the library is not used: it names
// functions, and quotes the token.
func tokenFault(err error) string {
	text := err.Error()
	for _, f := range []struct{ has, say string }{
		{"(exp)", "it has expired"},
		{"(nbf)", "it is not valid yet"},
		{"(iat)", "it was issued in the future"},
		{"cryptographic primitive", "its signature is wrong"},
	} {
		if strings.Contains(text, f.has) {
			return f.say
		}
	}
	return "it does not verify"
}

// oneTimeToken returns what the commit spends: a hash of issuer and id, and how long it
// must be remembered. A holder of a certificate chooses ids freely, so the certificate
// is hashed as well, and no holder can spend the id of another.
func (c *claims) oneTimeToken() store.Token {
	text := c.provisioner() + "\x00" + c.ID
	if c.certificate != nil {
		text += "\x00" + string(c.certificate.Raw)
	}
	return store.Token{Hash: sha256.Sum256([]byte(text)), Expires: c.Expiry.Time().Add(2 * tokenLeeway)}
}

// verifySign authenticates POST /sign: a token, and a certificate request that its own
// key has signed (RFC 2986 §4.2) and that asks for the names of the token. The cheap
// checks come first; the request is parsed when the token has been verified.
func (a *Authority) verifySign(ctx context.Context, st *state, req stepapi.SignRequest) (v verifiedRequest, err error) {
	c, err := verifyToken(st, req.OTT, actSign)
	if err != nil {
		return v, err
	}
	if v, err = a.enrolment(ctx, st, c); err != nil {
		return v, err
	}
	der, err := pkcs10.Decode(req.CSR)
	if err != nil {
		return v, err
	}
	csr, err := pkcs10.Parse(der)
	if err != nil {
		return v, a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, err)
	}
	if v.requestedDates, err = validity.Asked(req, time.Now()); err != nil {
		return v, err
	}
	if v.names, err = matchRequest(csr, c); err != nil {
		return v, a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, err)
	}
	if err := c.checkHolderNames(v.names); err != nil {
		return v, a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, err)
	}
	v.key, v.keyHash = csr.PublicKey, certs.KeyHash(csr.RawSubjectPublicKeyInfo)
	return v, nil
}

// enrolment begins a verified request from its token: caller, service and provisioner.
// It refuses a provisioner that is not for the service, and a token of an enroller that
// is none any more.
func (a *Authority) enrolment(ctx context.Context, st *state, c *claims) (v verifiedRequest, err error) {
	v = verifiedRequest{
		action:      actSign,
		token:       c.oneTimeToken(),
		provisioner: provisioner.Extension{Type: provisioner.TypeJWK, Name: c.Issuer, CredentialID: c.kid},
	}
	if c.certificate == nil {
		v.caller = caller{
			kind: callerToken, name: "token " + c.Issuer + "/" + c.Subject, service: c.Subject, credentials: tokenCredentials(c, v.token),
		}
	} else if err := a.authenticateX5C(ctx, st, c, &v); err != nil {
		return v, err
	}
	by, ok := st.rules.ScopeOf(c.Issuer)
	if !ok {
		return v, errProvisioner
	}
	err = by.Serves(c.Subject)
	if err == nil && c.Actor != nil && c.certificate == nil {
		v.caller.name += " by " + c.Actor.Service + "/" + c.Actor.Serial
		err = a.stillEnroller(ctx, st, *c.Actor, c.Subject)
	}
	return v, a.recordDenial(ctx, v.caller, accessRequest{action: actSign}, err)
}

// matchRequest returns the names that request and token have in common, which must be
// all names of both. The common name must be one of them or the service.
func matchRequest(csr *x509.CertificateRequest, c *claims) ([]string, error) {
	sans := c.SANs
	if len(sans) == 0 {
		sans = []string{c.Subject} // the meaning that step gives to a token without names
	}
	fromToken, err := names.CanonicalAll(sans)
	if err != nil {
		return nil, denial.New(denial.Names, "%v", err)
	}
	fromCSR, err := names.OfRequest(csr)
	if err != nil {
		return nil, denial.New(denial.Names, "%v", err)
	}
	if !slices.Equal(fromToken, fromCSR) {
		return nil, denial.New(denial.Request, "the request is for %q, the token for %q", fromCSR, fromToken)
	}
	common, err := names.CommonNames(csr)
	if err != nil {
		return nil, denial.New(denial.Names, "%v", err)
	}
	for _, cn := range common {
		if cn != "" && cn != c.Subject && !slices.Contains(sans, cn) {
			return nil, denial.New(denial.Request, "the request's common name %.80q is not in the token", cn)
		}
	}
	if want := c.Confirmation.Fingerprint; want != "" {
		if stepapi.RequestFingerprint(csr.Raw) != want {
			return nil, denial.New(denial.Request, "the token is bound to another request")
		}
	}
	return fromToken, nil
}

// verifyPeer authenticates a client by the certificate of its connection, and returns the
// entry of the certificate. A chain to our roots is not enough: the record must have the
// same bytes, or somebody else has used the key of an intermediate. If the intermediate is
// revoked, no certificate that it signed counts, and the denial is recorded.
func (a *Authority) verifyPeer(ctx context.Context, conn *tls.ConnectionState) (c caller, entry record.Certificate, err error) {
	if conn == nil || len(conn.VerifiedChains) == 0 || len(conn.VerifiedChains[0]) == 0 {
		return c, entry, denial.Unauthorized("this needs a client certificate of this authority")
	}
	cert := conn.VerifiedChains[0][0]
	if entry, err = a.lookUp(ctx, cert); err != nil {
		return c, entry, err
	}
	// The handshake has checked the dates too, but a connection can outlive a certificate.
	if now := time.Now(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return c, entry, denial.Unauthorized("the client certificate expired at %s", validity.Stamp(cert.NotAfter))
	}
	c = callerOf(entry)
	return c, entry, a.recordDenial(ctx, c, accessRequest{action: actAuthenticate}, a.state.Load().checkIssuers(conn.VerifiedChains))
}

// checkIssuers denies a certificate whose intermediate is on the list of its root: the key
// of such an intermediate is in the wrong hands, and the record cannot tell which of its
// certificates were made before. chains are the verified ones, leaf first.
func (st *state) checkIssuers(chains [][]*x509.Certificate) error {
	c := st.rootLists.Blocking(chains)
	if c == nil {
		return nil
	}
	return denial.New(denial.IssuerRevoked, "the issuer %q of the certificate is revoked: enrol again with a new token", c.Subject.CommonName)
}

// lookUp returns the entry of a certificate, by its serial. A certificate that is not in
// the record, or differs from the one there in any byte, is a 401.
func (a *Authority) lookUp(ctx context.Context, cert *x509.Certificate) (record.Certificate, error) {
	entry, err := a.record.Get(ctx, cert.SerialNumber.String())
	if errors.Is(err, record.ErrNotFound) || err == nil && !slices.Equal(entry.DER, cert.Raw) {
		return entry, denial.Unauthorized("the client certificate is not in the record of this authority")
	}
	return entry, err
}

// callerOf returns the caller that has authenticated with a certificate.
func callerOf(entry record.Certificate) caller {
	return caller{
		kind: callerCertificate, name: "certificate " + entry.Service + "/" + entry.Serial, service: entry.Service, serial: entry.Serial,
		credentials: lineageCredentials(entry),
	}
}

// verifyRenewal authenticates POST /renew (csrPEM empty, the key stays) and POST /rekey
// (the key of csrPEM; everything else in it is ignored). The credential is the
// certificate of the connection; without one, a token that is signed with the key of a
// certificate, see verifyProof. The new names are those of the old certificate. csrPEM
// is parsed after its sender was authenticated.
func (a *Authority) verifyRenewal(ctx context.Context, r *http.Request, csrPEM string) (v verifiedRequest, err error) {
	v.action = actRenew
	var der []byte
	if csrPEM != "" {
		v.action = actRekey
		if der, err = pkcs10.Decode(csrPEM); err != nil {
			return v, err
		}
	}
	var entry record.Certificate
	var cert *x509.Certificate
	if text := bearerToken(r); text != "" && (r.TLS == nil || len(r.TLS.PeerCertificates) == 0) {
		v.singleUse = true
		if v.caller, entry, v.token, err = a.verifyProof(ctx, text, v.action, der); err == nil {
			cert, err = x509.ParseCertificate(entry.DER)
		}
	} else if v.caller, entry, err = a.verifyPeer(ctx, r.TLS); err == nil {
		cert = r.TLS.VerifiedChains[0][0] // equal to entry.DER, as verifyPeer has checked
	}
	if err != nil {
		return v, err
	}
	if v.names, err = names.CanonicalAll(entry.Names); err != nil { // older versions issued for names that are refused today
		return v, a.recordDenial(ctx, v.caller, accessRequest{action: v.action}, denial.New(denial.Names, "%v: enrol again", err))
	}
	v.key, v.keyHash, v.previous, v.report = cert.PublicKey, entry.KeyHash, &entry, reportOf(r)
	if ext, ok := provisioner.GetProvisionerExtension(cert); ok {
		v.provisioner = *ext
	}
	if der != nil {
		csr, err := pkcs10.Parse(der)
		if err != nil {
			return v, a.recordDenial(ctx, v.caller, accessRequest{action: v.action}, err)
		}
		v.key, v.keyHash = csr.PublicKey, certs.KeyHash(csr.RawSubjectPublicKeyInfo)
	}
	return v, nil
}

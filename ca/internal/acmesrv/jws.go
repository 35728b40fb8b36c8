package acmesrv

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/joseheader"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/panics"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// This file verifies a request before anything is stored for it. The use of a nonce is
// stored as well, so it comes last: otherwise a sender without a key could fill the table.

// algorithms are the signature algorithms for the kinds of keys in keytype.All. "none" and
// MACs are not among them (RFC 8555 §6.2).
var algorithms = []string{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.EdDSA}

// verify authenticates one request (RFC 8555 §6.2 to §6.5) and sets s.call. The cheap
// checks come first: form, algorithm, nonce and URL, then the key, then the signature.
//
// The nonce is checked early and marked as used last. Of two requests with the same nonce at the
// same time both may get as far as the marking, and one of them fails there.
func (s *session) verify(r *http.Request) error {
	ctx := r.Context()
	body, err := readJWS(r)
	if err != nil {
		return err
	}
	jws, head, err := parseJWS(body)
	if err != nil {
		return err
	}
	nonce := acme.Nonce(head.Nonce)
	if err := s.record.CheckNonce(ctx, nonce); err != nil {
		return err
	}
	call := verifiedJWS{kid: head.KeyID}
	if call.url, err = signedURL(r, head); err != nil {
		return err
	}
	if call.key, call.account, err = s.verificationKey(ctx, r, head); err != nil {
		return err
	}
	if call.payload, err = jws.Verify(call.key); err != nil {
		return malformed("the signature does not verify")
	}
	if err := s.record.DeleteNonce(ctx, nonce); err != nil {
		return err
	}
	s.call = call
	return nil
}

// readJWS returns the body of a request: application/jose+json (RFC 8555 §6.2), no larger
// than the limit of the authority's handler.
func readJWS(r *http.Request) ([]byte, error) {
	if ct := r.Header.Get("Content-Type"); ct != "application/jose+json" {
		return nil, problem.New(problem.Malformed, "the content type must be application/jose+json").With(http.StatusUnsupportedMediaType)
	}
	body, err := io.ReadAll(r.Body) // limitAndRecover limits it
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, problem.New(problem.Malformed, "the body is larger than %d bytes", tooLarge.Limit).With(http.StatusRequestEntityTooLarge)
	}
	if err != nil {
		return nil, malformed("the body was cut")
	}
	return body, nil
}

// parseFlattened reads a JWS in JSON with one signature (RFC 8555 §6.2). what names the
// JWS in errors, which quote nothing of it: it may contain a private key. A panic of the
// parser becomes an error.
func parseFlattened(what string, body []byte) (_ *jose.JSONWebSignature, head jose.Header, err error) {
	defer panics.Catch(panics.Into(&err, "the embedded authority"))
	if err := checkFlattened(what, body); err != nil {
		return nil, head, err
	}
	jws, err := jose.ParseJWS(string(body))
	if err != nil || len(jws.Signatures) != 1 {
		return nil, head, malformed("%s is not a JWS in JSON with one signature", what)
	}
	return jws, jws.Signatures[0].Protected, nil
}

// checkFlattened checks for the one form that ACME allows (RFC 8555 §6.2): a flattened JWS
// (RFC 7515 §7.2.2) without an unprotected header. It comes before the parser of the
// library, which would compute with a private key in the header.
func checkFlattened(what string, body []byte) error {
	var form map[string]json.RawMessage
	var protected string
	if err := json.Unmarshal(body, &form); err != nil {
		return malformed("%s is not a JWS in JSON", what)
	}
	for member := range form {
		switch member {
		case "protected", "payload", "signature":
		case "header":
			return malformed("%s has a header that is not protected", what)
		default:
			return malformed("%s is not a JWS in JSON with one signature", what)
		}
	}
	if err := json.Unmarshal(form["protected"], &protected); err != nil {
		return malformed("%s is not a JWS in JSON", what)
	}
	var all map[string]json.RawMessage
	h, err := joseheader.Decode(protected)
	if err == nil {
		all, err = h.Members()
	}
	if err != nil {
		return malformed("%s is not a JWS: %v", what, err)
	}
	if raw, has := all["jwk"]; has {
		return checkJWK("jwk", raw)
	}
	return nil
}

// checkJWK refuses what is no JSON object, and a JWK with members of a private or a
// symmetric key.
func checkJWK(what string, raw []byte) error {
	var key map[string]json.RawMessage
	if json.Unmarshal(raw, &key) != nil {
		return malformed("%s: not a JSON object", what)
	}
	for _, private := range []string{"d", "p", "q", "k"} { // RFC 7518 §6.2.2, §6.3.2, §6.4.1
		if _, has := key[private]; has {
			return malformed("%s: a private key must never be sent; make a new one", what)
		}
	}
	return nil
}

// parseJWS reads a JWS whose header names a key by exactly one of jwk and kid
// (RFC 8555 §6.2). The signature is not verified yet.
func parseJWS(body []byte) (*jose.JSONWebSignature, jose.Header, error) {
	jws, head, err := parseFlattened("the body", body)
	if err != nil {
		return nil, head, err
	}
	if !slices.Contains(algorithms, head.Algorithm) {
		p := problem.New(problem.BadSignatureAlgorithm, "the algorithm of the signature is none of %s", strings.Join(algorithms, ", "))
		p.Algorithms = algorithms // RFC 8555 §6.2
		return nil, head, p
	}
	if (head.JSONWebKey == nil) == (head.KeyID == "") {
		return nil, head, malformed("want either jwk or kid")
	}
	return jws, head, nil
}

// signedURL returns the URL of the request if the signed header has the same one
// (RFC 8555 §6.4). Otherwise a signed request could be replayed at another address of ours. The
// comparison is of texts: our addresses have one spelling, and clients take them from us.
func signedURL(r *http.Request, head jose.Header) (string, error) {
	want := (&url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path}).String()
	if got, _ := head.ExtraHeaders["url"].(string); got != want {
		return "", problem.New(problem.Unauthorized, "the url that was signed is not that of the request")
	}
	return want, nil
}

// verificationKey returns the key that must have signed the request, and its account. For
// newAccount the key is in the request itself, for revokeCert it may be, and then the
// account is nil; everywhere else kid names an account (RFC 8555 §6.2).
func (s *session) verificationKey(ctx context.Context, r *http.Request, head jose.Header) (*jose.JSONWebKey, *acme.Account, error) {
	name := path.Base(r.URL.Path)
	if key := head.JSONWebKey; key != nil {
		if name != "new-account" && name != "revoke-cert" {
			return nil, nil, malformed("want kid, the address of an account, in place of jwk")
		}
		key, err := accountKey(key)
		return key, nil, err
	}
	if name == "new-account" {
		return nil, nil, malformed("want jwk, the key of the account, in place of kid")
	}
	id, ours := s.accountID(head.KeyID)
	acc, err := s.record.GetAccount(ctx, id)
	if acme.IsErrNotFound(err) || err == nil && !ours {
		return nil, nil, problem.New(problem.AccountDoesNotExist, "there is no account at the address in kid; it may have been unused for too long, then register anew")
	}
	if err != nil {
		return nil, nil, err
	}
	if err := s.active(acc); err != nil {
		return nil, nil, err
	}
	return acc.Key, acc, nil
}

// accountID returns the id in the address of an account, and whether the address is one of
// this authority. The host of the address may be another name of this authority than that
// of the request: a client keeps the address under which it registered.
func (s *session) accountID(kid string) (id string, ours bool) {
	u, err := url.Parse(kid)
	if err != nil || u.Scheme != "https" || !s.rules.IsOwnHost(u.Hostname()) {
		return path.Base(kid), false
	}
	id = path.Base(u.Path)
	return id, u.Path == Prefix+"/"+s.rules.ACME.Name+"/account/"+id
}

// accountKey returns a public key that came with a request, after [pubkey.Check]. Each such
// key goes through here first: with a hostile key one signature check costs as much as
// thousands of ordinary ones.
func accountKey(key *jose.JSONWebKey) (*jose.JSONWebKey, error) {
	if err := pubkey.Check(key.Key); err != nil {
		return nil, problem.New(problem.BadPublicKey, "the key of the account was refused: %v", err)
	}
	return &jose.JSONWebKey{Key: key.Key}, nil
}

// active refuses an account that was deactivated, with 401 (RFC 8555 §7.3.6), and one that
// was registered while the provisioner had another name.
func (s *session) active(acc *acme.Account) error {
	if !acc.IsValid() {
		return problem.New(problem.Unauthorized, "the account is %s", acc.Status).With(http.StatusUnauthorized)
	}
	if acc.ProvisionerName != s.rules.ACME.Name {
		return problem.New(problem.Unauthorized, "the account belongs to another provisioner").With(http.StatusUnauthorized)
	}
	return nil
}

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

// The gate verifies a request before it stores anything, the use of a nonce
// included: otherwise strangers could fill the database.

// algorithms are those of the kinds of keys in keytype.All.
var algorithms = []string{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.EdDSA}

// verify authenticates one request (RFC 8555 §6.2 to §6.5). The nonce is used up
// last, when everything else is known to be right.
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

func readJWS(r *http.Request) ([]byte, error) {
	if ct := r.Header.Get("Content-Type"); ct != "application/jose+json" {
		return nil, problem.New(problem.Malformed, "the content type must be application/jose+json").With(http.StatusUnsupportedMediaType)
	}
	body, err := io.ReadAll(r.Body) // limitAndRecover limits it
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, problem.New(problem.Malformed, "the body is larger than %d bytes", tooLarge.Limit).With(http.StatusRequestEntityTooLarge)
	}
	if err != nil {
		return nil, malformed("the body was cut")
	}
	return body, nil
}

// parseFlattened reads a JWS in JSON with one signature (RFC 8555 §6.2); errors
// quote nothing of it.
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

// checkFlattened wants the one form that ACME allows (RFC 8555 §6.2): a flattened JWS
// without an unprotected header. A private key in the header is refused here.
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

// checkJWK wants a JSON object without the members of a private or a symmetric key.
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

// parseJWS reads a JWS that the key of an account has signed, or is said to have.
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

// signedURL binds a request to its address (RFC 8555 §6.4).
func signedURL(r *http.Request, head jose.Header) (string, error) {
	want := (&url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path}).String()
	if got, _ := head.ExtraHeaders["url"].(string); got != want {
		return "", problem.New(problem.Unauthorized, "the url that was signed is not that of the request")
	}
	return want, nil
}

// verificationKey finds the key that must have signed: that of an account, or, where RFC
// 8555 §6.2 has it so, one in the request itself.
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

// accountID is the id in the address of an account. The address may be under
// another name of this authority than the request: a client keeps the one under
// which it registered.
func (s *session) accountID(kid string) (id string, ours bool) {
	u, err := url.Parse(kid)
	if err != nil || u.Scheme != "https" || !s.rules.IsOwnHost(u.Hostname()) {
		return path.Base(kid), false
	}
	id = path.Base(u.Path)
	return id, u.Path == Prefix+"/"+s.rules.ACME.Name+"/account/"+id
}

// accountKey is the one gate for keys that come with a request: nothing is
// computed with a key that it has not passed.
func accountKey(key *jose.JSONWebKey) (*jose.JSONWebKey, error) {
	if err := pubkey.Check(key.Key); err != nil {
		return nil, problem.New(problem.BadPublicKey, "the key of the account was refused: %v", err)
	}
	return &jose.JSONWebKey{Key: key.Key}, nil
}

// active refuses an account that was deactivated (RFC 8555 §7.3.6) or belongs to
// a provisioner of another name.
func (s *session) active(acc *acme.Account) error {
	if !acc.IsValid() {
		return problem.New(problem.Unauthorized, "the account is %s", acc.Status).With(http.StatusUnauthorized)
	}
	if acc.ProvisionerName != s.rules.ACME.Name {
		return problem.New(problem.Unauthorized, "the account belongs to another provisioner").With(http.StatusUnauthorized)
	}
	return nil
}

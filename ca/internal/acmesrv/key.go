package acmesrv

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// This file is about the keys of accounts: their binding to an external account key from
// the operator, and their change.

// bindingAlgorithms are MACs, which RFC 8555 §7.3.4 requires.
var bindingAlgorithms = []string{jose.HS256, jose.HS384, jose.HS512}

// parseBinding reads an external account binding and checks its form (RFC 8555 §7.3.4): a
// MAC, a kid, no nonce, and the url of the request that it is in. It returns the JWS, whose
// MAC is not verified yet, and the kid. Errors quote nothing of it.
func parseBinding(raw []byte, url string) (jws *jose.JSONWebSignature, kid string, err error) {
	jws, head, err := parseFlattened("externalAccountBinding", raw)
	if err != nil {
		return nil, "", err
	}
	if !slices.Contains(bindingAlgorithms, head.Algorithm) {
		return nil, "", malformed("externalAccountBinding: its algorithm is none of %s", strings.Join(bindingAlgorithms, ", "))
	}
	switch got, _ := head.ExtraHeaders["url"].(string); {
	case head.KeyID == "" || head.JSONWebKey != nil:
		return nil, "", malformed("externalAccountBinding: want kid, the id of the key from the operator")
	case head.Nonce != "":
		return nil, "", malformed("externalAccountBinding: it must not have a nonce")
	case got != url:
		return nil, "", malformed("externalAccountBinding: its url is not that of the request")
	}
	return jws, head.KeyID, nil
}

// verifyBinding returns the id of the external account key whose MAC covers the key of the
// request, or "" if the request has no binding and none is required. Whether the key was
// used before is decided when the account is stored, in the same transaction.
func (s *session) verifyBinding(r *http.Request, raw []byte) (eab string, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		if s.rules.ACME.RequireEAB {
			return "", problem.New(problem.ExternalAccountRequired, "new accounts need an external account binding: ask the operator for a key (artstore-pki acme eab create)")
		}
		return "", nil
	}
	jws, kid, err := parseBinding(raw, s.call.url)
	if err != nil {
		return "", err
	}
	secret, err := s.record.EABSecret(r.Context(), kid)
	if errors.Is(err, acmestore.ErrEABGone) {
		return "", errBindingGone()
	}
	if err != nil {
		return "", err
	}
	payload, err := jws.Verify(secret)
	if err != nil {
		return "", problem.New(problem.Unauthorized, "externalAccountBinding: its MAC does not verify; the HMAC key is not the one of this kid, or was decoded wrongly (it is base64url)")
	}
	if !sameKey(payload, s.call.key) {
		return "", problem.New(problem.Unauthorized, "externalAccountBinding: its payload is not the key of the account")
	}
	return kid, nil
}

// errBindingGone returns one text for an unknown, a used, a revoked and an expired key: a
// client without the MAC key must not learn which keys exist.
func errBindingGone() error {
	return problem.New(problem.Unauthorized, "externalAccountBinding: %s; ask the operator for another one", acmestore.ErrEABGone)
}

// sameKey reports whether text is a JWK with the same thumbprint as key (RFC 7638). Two
// spellings of one key are therefore the same.
func sameKey(text []byte, key *jose.JSONWebKey) bool {
	var got jose.JSONWebKey
	if err := json.Unmarshal(text, &got); err != nil || !got.Valid() {
		return false
	}
	a, err := acme.KeyToID(&got)
	b, err2 := acme.KeyToID(key)
	return err == nil && err2 == nil && a == b
}

// keyChange is the payload of the inner JWS (RFC 8555 §7.3.5).
type keyChange struct {
	Account string          `json:"account"`
	OldKey  json.RawMessage `json:"oldKey"`
}

// parseKeyChange reads the inner JWS of a key change and verifies it with the new key that it
// contains (RFC 8555 §7.3.5). The caller compares the account and the old key in it.
func parseKeyChange(body []byte, url string) (next *jose.JSONWebKey, change keyChange, err error) {
	jws, head, err := parseJWS(body)
	if err != nil {
		return nil, change, err
	}
	switch got, _ := head.ExtraHeaders["url"].(string); {
	case head.JSONWebKey == nil:
		return nil, change, malformed("the inner JWS must have jwk, the new key")
	case head.Nonce != "":
		return nil, change, malformed("the inner JWS must not have a nonce")
	case got != url:
		return nil, change, malformed("the url of the inner JWS is not that of the request")
	}
	if next, err = accountKey(head.JSONWebKey); err != nil {
		return nil, change, err
	}
	payload, err := jws.Verify(next)
	if err != nil {
		return nil, change, malformed("the signature of the inner JWS does not verify with the new key")
	}
	if err := json.Unmarshal(payload, &change); err != nil {
		return nil, change, malformed("the payload of the inner JWS is not {account, oldKey}")
	}
	return next, change, nil
}

// validKey makes the checks of a key that cost too much for each request. They are made once,
// before the key is stored.
func validKey(key *jose.JSONWebKey) error {
	if err := pubkey.Validate(key.Key); err != nil {
		return problem.New(problem.BadPublicKey, "the key of the account was refused: %v", err)
	}
	return nil
}

// postKeyChange replaces the key of an account (RFC 8555 §7.3.5). The old key has signed the
// request and the new key the inner JWS, so neither alone is enough. A key that another
// account has is 409 with the address of that account.
func (s *session) postKeyChange(w http.ResponseWriter, r *http.Request) error {
	acc := s.call.account
	next, change, err := parseKeyChange(s.call.payload, s.call.url)
	if err != nil {
		return err
	}
	if change.Account != s.call.kid {
		return malformed("the account in the inner JWS is not that of the request")
	}
	if err := checkJWK("oldKey", change.OldKey); err != nil {
		return err
	}
	if !sameKey(change.OldKey, acc.Key) {
		return malformed("oldKey is not the key of the account")
	}
	if err := validKey(next); err != nil {
		return err
	}
	err = s.record.ChangeKey(r.Context(), acc.ID, acc.Key, next)
	taken, inUse := errors.AsType[*acmestore.KeyInUseError](err)
	switch {
	case inUse:
		p := problem.New(problem.Malformed, "an account has the new key already").With(http.StatusConflict)
		p.Location = s.link("account", taken.Account)
		return p
	case acme.IsErrNotFound(err):
		return problem.New(problem.Unauthorized, "the account was changed by another request").With(http.StatusConflict)
	case err != nil:
		return err
	}
	s.logger.InfoContext(r.Context(), "key of an ACME account changed", "account", acc.ID)
	return s.writeAccount(w, http.StatusOK, acc)
}

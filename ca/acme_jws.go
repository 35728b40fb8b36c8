package ca

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// smallstep uses up a nonce before it has looked at the signature, which lets
// strangers fill the database. The gate here verifies first and stores then;
// smallstep verifies once more behind it.

// acmeCall is a request whose signature was verified.
type acmeCall struct {
	body    []byte
	nonce   acme.Nonce
	account *acme.Account    // nil: signed by a key that need not have one
	key     *jose.JSONWebKey // that verified
	payload []byte
}

// acmeAlgorithms are those of the kinds of keys in allKeyTypes.
var acmeAlgorithms = []string{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.EdDSA}

// verify authenticates one request (RFC 8555 §6.2 to §6.5). The nonce is used up
// last, when everything else is known to be right.
func (s *acmeSession) verify(r *http.Request) error {
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
	if err := s.CheckNonce(ctx, nonce); err != nil {
		return err
	}
	if err := s.checkURL(r, head); err != nil {
		return err
	}
	call := acmeCall{body: body, nonce: nonce}
	if call.key, call.account, err = s.signer(ctx, r, head); err != nil {
		return err
	}
	if call.payload, err = jws.Verify(call.key); err != nil {
		return malformed("the signature does not verify")
	}
	if err := s.ACME.DeleteNonce(ctx, nonce); err != nil {
		return err
	}
	s.call = call
	return nil
}

// DeleteNonce is what smallstep calls, after the gate has used up the nonce.
func (s *acmeSession) DeleteNonce(_ context.Context, nonce acme.Nonce) error {
	if nonce == "" || nonce != s.call.nonce {
		return acme.NewDetailedError(acme.ErrorBadNonceType, "it is not that of this request")
	}
	return nil
}

func malformed(format string, args ...any) error {
	return acme.NewDetailedError(acme.ErrorMalformedType, format, args...)
}

func readJWS(r *http.Request) ([]byte, error) {
	if ct := r.Header.Get("Content-Type"); ct != "application/jose+json" {
		p := acme.NewDetailedError(acme.ErrorMalformedType, "want application/jose+json")
		p.Status = http.StatusUnsupportedMediaType
		return nil, p
	}
	body, err := io.ReadAll(r.Body) // the guard limits it
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		p := acme.NewDetailedError(acme.ErrorMalformedType, "the body is larger than %d bytes", tooLarge.Limit)
		p.Status = http.StatusRequestEntityTooLarge
		return nil, p
	}
	if err != nil {
		return nil, malformed("the body was cut")
	}
	return body, nil
}

// parseJWS reads a body and checks its form; errors quote nothing of it.
func parseJWS(body []byte) (_ *jose.JSONWebSignature, head jose.Header, err error) {
	defer recovered(&err)
	if err := checkFlattened(body); err != nil {
		return nil, head, err
	}
	jws, err := jose.ParseJWS(string(body))
	if err != nil || len(jws.Signatures) != 1 {
		return nil, head, malformed("the body is not a JWS in JSON with one signature")
	}
	head = jws.Signatures[0].Protected
	if !slices.Contains(acmeAlgorithms, head.Algorithm) {
		return nil, head, acme.NewDetailedError(acme.ErrorBadSignatureAlgorithmType, "want one of %s", strings.Join(acmeAlgorithms, ", "))
	}
	if (head.JSONWebKey == nil) == (head.KeyID == "") {
		return nil, head, malformed("want either jwk or kid")
	}
	return jws, head, nil
}

// checkURL binds a request to its address. The host must be one of ours: it goes
// into every link that a client is told to follow.
func (s *acmeSession) checkURL(r *http.Request, head jose.Header) error {
	want := &url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path}
	if got, _ := head.ExtraHeaders["url"].(string); got != want.String() {
		return acme.NewDetailedError(acme.ErrorUnauthorizedType, "the url that was signed is not that of the request") // RFC 8555 §6.4
	}
	host, err := names.Canonical(want.Hostname())
	if err != nil || !slices.Contains(s.st.rules.own.names, host) {
		return malformed("the host is none of this authority's names")
	}
	return nil
}

// signer finds the key that must have signed: that of an account, or, where RFC
// 8555 §6.2 has it so, one in the request itself.
func (s *acmeSession) signer(ctx context.Context, r *http.Request, head jose.Header) (*jose.JSONWebKey, *acme.Account, error) {
	if key := head.JSONWebKey; key != nil {
		if name := path.Base(r.URL.Path); name != "new-account" && name != "revoke-cert" {
			return nil, nil, malformed("want kid, the address of an account")
		}
		if err := pubkey.Check(key.Key); err != nil {
			return nil, nil, acme.NewDetailedError(acme.ErrorBadPublicKeyType, "%v", err)
		}
		return &jose.JSONWebKey{Key: key.Key}, nil, nil
	}
	acc, err := s.GetAccount(ctx, path.Base(head.KeyID))
	if acme.IsErrNotFound(err) || err == nil && acc.GetLocation() != head.KeyID {
		return nil, nil, acme.NewDetailedError(acme.ErrorAccountDoesNotExistType, "there is no account at the address in kid")
	}
	if err != nil {
		return nil, nil, err
	}
	if !acc.IsValid() || acc.ProvisionerName != s.st.rules.acme.name {
		return nil, nil, acme.NewDetailedError(acme.ErrorUnauthorizedType, "the account is not active here")
	}
	return acc.Key, acc, nil
}

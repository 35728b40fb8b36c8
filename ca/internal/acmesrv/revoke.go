package acmesrv

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/internal/certs"
)

// postRevoke revokes a certificate (RFC 8555 §7.6) for the account that ordered it, or for
// the holder of its key.
//
// RFC 8555 §7.6 also requires it for accounts that hold authorizations for all the names.
// That is refused on purpose: an attacker who controls a name for a moment could revoke
// certificates that were obtained in another way, and with them their whole lineages.
func (s *session) postRevoke(w http.ResponseWriter, r *http.Request) error {
	cert, reason, err := parseRevoke(s.call.payload)
	if err != nil {
		return err
	}
	entry, err := s.authority.Recorded(r.Context(), cert)
	if _, unknown := errors.AsType[*denial.RequestError](err); unknown {
		return problem.New(problem.Unauthorized, "the certificate is not in the record of this authority")
	}
	if err != nil {
		return err
	}
	account, err := s.authenticateRevoker(r.Context(), entry)
	if err != nil {
		return err
	}
	if entry.Revocation != nil {
		return alreadyRevoked()
	}
	err = s.authority.Revoke(r.Context(), Revocation{Entry: entry, Account: account, Reason: reason})
	if _, revoked := errors.AsType[*denial.RequestError](err); revoked { // another request has revoked it since it was looked up
		return alreadyRevoked()
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// alreadyRevoked returns the problem for a second revocation (RFC 8555 §7.6).
func alreadyRevoked() error {
	return problem.New(problem.AlreadyRevoked, "the certificate was revoked before; nothing was changed")
}

// parseRevoke returns the certificate to revoke, whose signature is not checked, and the
// reason (RFC 5280 §5.3.1). Whether the certificate is ours is for the record to say.
func parseRevoke(payload []byte) (*x509.Certificate, int, error) {
	var req struct {
		Certificate string `json:"certificate"`
		Reason      int    `json:"reason"`
	}
	if err := json.Unmarshal(payload, &req); err != nil {
		return nil, 0, malformed("the payload is not {certificate, reason}")
	}
	if reasons.Check(req.Reason) != nil {
		return nil, 0, problem.New(problem.BadRevocationReason, "%d is not a reason that this authority takes (RFC 5280 §5.3.1)", req.Reason)
	}
	der, err := base64.RawURLEncoding.DecodeString(req.Certificate)
	if err != nil {
		return nil, 0, malformed("certificate: not base64url")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, 0, malformed("certificate: it does not parse")
	}
	return cert, req.Reason, nil
}

// authenticateRevoker returns the account that ordered the certificate, or "" if the
// key of the certificate signed the request. It refuses all others.
func (s *session) authenticateRevoker(ctx context.Context, entry record.Certificate) (account string, err error) {
	if acc := s.call.account; acc != nil {
		ordered, err := s.record.GetCertificate(ctx, entry.Serial)
		if err == nil && ordered.AccountID == acc.ID {
			return acc.ID, nil
		}
		if _, ok := errors.AsType[*acme.Error](err); err != nil && !ok {
			return "", err
		}
		return "", forbidden("the account did not order this certificate")
	}
	spki, err := x509.MarshalPKIXPublicKey(s.call.key.Key)
	if err != nil || certs.KeyHash(spki) != entry.KeyHash {
		return "", forbidden("the request is not signed by the key of this certificate")
	}
	return "", nil
}

// forbidden returns a problem of type unauthorized, whose status is 403.
func forbidden(why string) error { return problem.New(problem.Unauthorized, "%s", why) }

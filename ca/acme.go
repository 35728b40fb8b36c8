package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca/internal/acmesrv"
	"github.com/artstore/artstore-pki/ca/internal/ari"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/secret"
)

// acmeAuthority is what the ACME server of one state may ask of the authority. It makes a
// verifiedRequest of an order that is ready (RFC 8555 §7.4), which is issued like any
// other.
type acmeAuthority struct {
	a  *Authority
	st *state
}

// newACME makes the ACME server of a state. Its counts of new accounts are those of the
// server before.
func (a *Authority) newACME(st *state) *acmesrv.Server {
	var former *acmesrv.Server
	if old := a.state.Load(); old != nil {
		former = old.acme
	}
	return acmesrv.New(acmesrv.Config{
		Rules: st.rules, Host: st.config.PublicHost(), Record: a.acmeRecord, Authority: acmeAuthority{a, st}, Logger: a.logger,
	}, former)
}

func (b acmeAuthority) CheckDates(p *policy.Service, notBefore, notAfter time.Time) error {
	_, err := validity.Decide(p, validity.Dates{NotBefore: notBefore, NotAfter: notAfter}, validity.Bounds{Now: time.Now(), Issuing: b.st.intermediates[0]})
	return err
}

// Issue issues for the service that has the names of the order. An account has proved
// nothing but names, so its denials are counted by the service.
func (b acmeAuthority) Issue(ctx context.Context, req acmesrv.Request) error {
	o := req.Order
	_, err := b.a.issue(ctx, b.st, verifiedRequest{
		caller:         caller{kind: callerAccount, name: "acme " + o.AccountID, service: req.Service, credentials: []credential{{"service " + req.Service, refusalsPerHour}}},
		action:         actSign,
		names:          req.Names,
		key:            req.CSR.PublicKey,
		keyHash:        certs.KeyHash(req.CSR.RawSubjectPublicKeyInfo),
		provisioner:    provisioner.Extension{Type: provisioner.TypeACME, Name: b.st.rules.ACME.Name},
		order:          o.ID,
		requestedDates: validity.Dates{NotBefore: o.NotBefore, NotAfter: o.NotAfter},
		// An order is spent like a token: a second request with the same key gets the same certificate.
		token: store.Token{Hash: sha256.Sum256([]byte("acme order\x00" + o.ID)), Expires: o.ExpiresAt.Add(2 * tokenLeeway)},
	})
	return err
}

func (b acmeAuthority) RenewalInfo(ctx context.Context, id ari.ID) (ari.Info, error) {
	return b.a.renewalInfo(ctx, id)
}

func (b acmeAuthority) Recorded(ctx context.Context, cert *x509.Certificate) (record.Certificate, error) {
	return b.a.lookUp(ctx, cert)
}

func (b acmeAuthority) Revoke(ctx context.Context, req acmesrv.Revocation) error {
	c := callerOf(req.Entry)
	if req.Account != "" {
		c.kind, c.name = callerAccount, "acme "+req.Account
	}
	return b.a.revoke(ctx, c, store.RevokeRequest{
		Revocation: record.Revocation{Serial: req.Entry.Serial, RevokedAt: time.Now(), Reason: req.Reason, Caller: c.name},
	})
}

func (b acmeAuthority) CountDenial(err error) {
	if denied, ok := errors.AsType[*denial.Error](err); ok {
		b.a.metrics.refused.WithLabelValues(string(denied.Rule)).Inc()
	}
}

func (b acmeAuthority) Charge(r *http.Request) { b.a.charge(r) }

func (b acmeAuthority) Life() context.Context { return b.a.life }

// proofEndFor returns when the proof ends by which a certificate is issued. For a first
// certificate the function that has authenticated it knows the end. A renewal inherits
// it, because it proves nothing but the possession of the key.
func (a *Authority) proofEndFor(ctx context.Context, p *policy.Service, v verifiedRequest) (validity.Proof, error) {
	if v.action == actSign {
		return v.proof, nil
	}
	out := validity.Proof{End: v.previous.ProofUntil, What: "the certificate that vouched for this lineage", Remedy: "sign a token with a newer one"}
	switch v.provisioner.Type {
	case provisioner.TypeACME:
		out.What, out.Remedy = "the proof of the names", "prove the names again, with an order"
		if out.End.IsZero() { // an older version has issued it, and kept no end
			first, err := a.firstOf(ctx, *v.previous)
			if err != nil {
				return out, err
			}
			out.End = p.NamesUntil(first.IssuedAt, first.NotAfter)
		}
	case provisioner.TypeX5C:
		if out.End.IsZero() { // likewise; the certificate behind the token is not known any more, so the end is that of this one
			out.End = v.previous.NotAfter
		}
	}
	return out, nil
}

// firstOf returns the first certificate of the lineage of entry.
func (a *Authority) firstOf(ctx context.Context, entry record.Certificate) (record.Certificate, error) {
	if entry.Serial == entry.Lineage {
		return entry, nil
	}
	first, err := a.record.Get(ctx, entry.Lineage)
	if err != nil {
		return first, fmt.Errorf("reading the first certificate of a lineage: %w", err)
	}
	return first, nil
}

// Bounds of the life of external account keys. They are made to be used soon, because
// their secret is in the record until then.
const (
	DefaultEABLife = 7 * 24 * time.Hour
	MaxEABLife     = 90 * 24 * time.Hour
)

// EABOptions describe an external account key.
type EABOptions struct {
	// Profiles are the services whose certificates the account may order. At least
	// one, and each must have acme: true.
	Profiles []string
	// Life is how long an account may be bound; 0 means DefaultEABLife. The account
	// itself has no such end.
	Life time.Duration
	// Note is a text of the operator, such as for whom the key is.
	Note string
}

// NewEABKey makes a key that binds one ACME account to services (RFC 8555 §7.3.4). It
// returns the HMAC key in base64url, as clients want it. No other call returns it again.
func (r *Record) NewEABKey(ctx context.Context, opt EABOptions) (record.EABKey, secret.String, error) {
	none := func(format string, args ...any) (record.EABKey, secret.String, error) {
		return record.EABKey{}, secret.String{}, fmt.Errorf("making an external account key: "+format, args...)
	}
	if opt.Life == 0 {
		opt.Life = DefaultEABLife
	}
	if opt.Life < 0 || opt.Life > MaxEABLife {
		return none("a life of %s is not between 0 and %s", opt.Life, MaxEABLife)
	}
	cfg, err := policy.Load(string(r.dir))
	if err != nil {
		return record.EABKey{}, secret.String{}, err
	}
	rules, err := cfg.Parse()
	if err != nil {
		return record.EABKey{}, secret.String{}, err
	}
	if rules.ACME == nil {
		return none("pki.yaml has no provisioner of type ACME")
	}
	if len(opt.Profiles) == 0 {
		return none("want at least one profile")
	}
	for _, service := range opt.Profiles {
		if p := rules.Services[service]; p == nil || !p.ACME {
			return none("%.80q is no profile with acme: true, only %s", service, strings.Join(rules.ACMEServices(), ", "))
		}
	}
	profiles := slices.Compact(slices.Sorted(slices.Values(opt.Profiles)))
	now := time.Now().UTC()
	k, key, err := r.acme.NewEABKey(ctx, operator, record.EABKey{Profiles: profiles, Note: clip(opt.Note), Created: now, Expires: now.Add(opt.Life)})
	if err != nil {
		return k, secret.String{}, err
	}
	return k, secret.New(base64.RawURLEncoding.EncodeToString(key)), nil
}

// EABKeys lists the external account keys, the oldest first.
func (r *Record) EABKeys(ctx context.Context) ([]record.EABKey, error) { return r.acme.EABKeys(ctx) }

// RevokeEABKey revokes a key: it binds no account any more, and the account that it has
// bound can order nothing more. The certificates of that account stay valid. A key that is
// unknown, or was revoked before, is [record.ErrNotFound].
func (r *Record) RevokeEABKey(ctx context.Context, id string) error {
	return r.acme.RevokeEABKey(ctx, operator, id, time.Now())
}

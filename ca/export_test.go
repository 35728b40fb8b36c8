package ca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/auditlog"
	"github.com/artstore/artstore-pki/ca/internal/enrolkey"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// Hooks for the external tests.

// VerifySign runs the first step of signing against the current state.
func (a *Authority) VerifySign(ctx context.Context, req stepapi.SignRequest) error {
	_, err := a.verifySign(ctx, a.state.Load(), req)
	return err
}

// CloseRecord makes every later commit fail, as a full disk would.
func (a *Authority) CloseRecord() error { return a.record.Close() }

// Quota bounds how many refusals of a credential are recorded.
type Quota struct{ q quota }

// Take takes one refusal of a credential that may have so many in an hour.
func (q *Quota) Take(id string, most int, now time.Time) bool {
	return q.q.allow([]credential{{id, most}}, now)
}

// Len returns how many credentials are remembered.
func (q *Quota) Len() int { return q.q.counts.Size() }

// TokenAt returns an enrolment token for all names of a service, as StateDir.NewToken
// would have made it at another moment. It names the given issuer, and is signed with
// the key of "enrolment". The keys in dir must be plain.
func TokenAt(dir, issuer, service string, issued time.Time, life time.Duration) (secret.String, error) {
	return tokenWith(dir, func(r *policy.Rules, c *newClaims) (err error) {
		c.Subject, c.Issuer = service, issuer
		c.IssuedAt, c.NotBefore, c.Expiry = jose.NewNumericDate(issued), jose.NewNumericDate(issued), jose.NewNumericDate(issued.Add(life))
		c.SANs, err = r.TokenNames(service, nil)
		return err
	})
}

// TokenFor returns an enrolment token for names that its service may not have.
func TokenFor(dir, service string, asked ...string) (secret.String, error) {
	return tokenWith(dir, func(_ *policy.Rules, c *newClaims) error {
		c.Subject, c.SANs = service, asked
		return nil
	})
}

func tokenWith(dir string, change func(*policy.Rules, *newClaims) error) (secret.String, error) {
	cfg, err := policy.Load(dir)
	if err != nil {
		return secret.String{}, err
	}
	r, err := cfg.Parse()
	if err != nil {
		return secret.String{}, err
	}
	c, err := freshClaims(0)
	if err != nil {
		return secret.String{}, err
	}
	root, err := StateDir(dir).ActiveRoot()
	if err != nil {
		return secret.String{}, err
	}
	key, err := enrolkey.Read(statedir.Dir{Path: dir}, r, enrolkey.Want{Provisioner: "enrolment", Any: true})
	if err != nil {
		return secret.String{}, err
	}
	if err := change(r, &c); err != nil {
		return secret.String{}, err
	}
	if c.Issuer == "" {
		c.Issuer = key.Provisioner
	}
	return key.Sign(c.at(cfg, stepapi.PathSign, root))
}

// RenewByProof renews for the same key by a token, up to the commit.
func (a *Authority) RenewByProof(ctx context.Context, token string) error {
	v, err := a.verifyRenewal(ctx, &http.Request{Header: http.Header{"Authorization": {bearer + token}}}, "")
	if err == nil {
		_, err = a.issue(ctx, a.state.Load(), v)
	}
	return err
}

// RenewChain renews a certificate as if a handshake had verified it, also after its
// end.
func (a *Authority) RenewChain(ctx context.Context, chain []*x509.Certificate) error {
	entry, err := a.lookUp(ctx, chain[0])
	if err != nil {
		return err
	}
	_, err = a.issue(ctx, a.state.Load(), verifiedRequest{
		caller: callerOf(entry), action: actRenew, names: entry.Names, key: chain[0].PublicKey, keyHash: entry.KeyHash, previous: &entry,
	})
	return err
}

// Retire drops all intermediates but the issuing one, as if their last leaves had expired.
func (a *Authority) Retire() error {
	return a.update(a.life, func(next *state) error {
		next.intermediates = next.intermediates[:1]
		return nil
	})
}

// HandOutAgain returns the certificate for a spent token again.
func (a *Authority) HandOutAgain(ctx context.Context, entry record.Certificate) error {
	_, err := a.returnEarlier(ctx, verifiedRequest{caller: caller{kind: callerToken, name: "token", service: entry.Service}, action: actSign}, entry)
	return err
}

// Forge signs with the issuing key a certificate that is not recorded.
func (a *Authority) Forge(t *x509.Certificate) ([]byte, error) {
	st := a.state.Load()
	return x509.CreateCertificate(rand.Reader, t, st.intermediates[0], t.PublicKey, st.signer)
}

// CRLMade returns how many entries the list of the issuing intermediate has, and when
// it was made.
func (a *Authority) CRLMade(ctx context.Context, exact bool) (entries int, made time.Time, err error) {
	st := a.state.Load()
	c, err := a.currentCRL(ctx, st, st.intermediates[0], exact)
	if err != nil {
		return 0, made, err
	}
	return c.Entries(), c.Made(), nil
}

// Addressed returns the prefix by which the requests of an address are counted.
func Addressed(remote string) string { return addressOf(&http.Request{RemoteAddr: remote}).String() }

// ForgetLive drops all counts, so that the next first certificate of each service
// counts anew.
func (a *Authority) ForgetLive() { a.live.Forget() }

// IssueOwn issues to the authority itself, as Watch does.
func (a *Authority) IssueOwn(ctx context.Context) error {
	_, err := a.issueOwn(ctx, a.state.Load())
	return err
}

// BreakAuditLog makes each later line fail, as a full disk would.
func (a *Authority) BreakAuditLog() { _ = a.audit.Close() }

// Tell writes a line to the audit log.
func (a *Authority) Tell(ctx context.Context) {
	a.writeAudit(ctx, caller{name: "test"}, auditlog.Line{Action: string(actSign), Outcome: auditlog.Done})
}

// ParseRecordQuery parses the parameters of GET /records/certificates.
func ParseRecordQuery(raw string) (record.Query, error) {
	q, err := parseRecordQuery(raw, time.Now())
	return q.Query, err
}

// SequenceLog gives all committed events their places, as KeepLog does each second.
func (a *Authority) SequenceLog(ctx context.Context) error { return a.sequence(ctx) }

// PublishedKey returns the key that publish_encrypted_key serves.
func PublishedKey(dir string) (string, error) {
	return statedir.Dir{Path: dir}.ReadJWE("enrolment", nil)
}

// Mark writes the marker if it is due.
func (a *Authority) Mark(ctx context.Context) { a.mark(ctx, false) }

// MarkEvery sets the shortest time between two markers.
func (a *Authority) MarkEvery(d time.Duration) {
	a.marker.mu.Lock()
	defer a.marker.mu.Unlock()
	a.marker.every = d
}

// Watchers is how many requests of GET /watch wait.
func (a *Authority) Watchers() int { return a.watchers.Waiting() }

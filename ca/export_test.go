package ca

import (
	"context"
	"crypto/x509"
	"net/http"
	"slices"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/secret"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Hooks for the external tests.

// VerifySign runs the first step of signing against the current state.
func (a *Authority) VerifySign(ctx context.Context, req stepapi.SignRequest) error {
	_, err := a.verifySign(ctx, a.state.Load(), req)
	return err
}

// CloseRecord makes every later commit fail, as a full disk would.
func (a *Authority) CloseRecord() error { return a.record.Close() }

// ParseConfig is the parser of pki.yaml.
func ParseConfig(data []byte) error {
	_, err := parseConfig(data)
	return err
}

// TakeRefusals counts how many of n refusals of one caller would be recorded.
func TakeRefusals(n int, now time.Time) (recorded int) {
	var q quota
	for range n {
		if q.take("caller", now) {
			recorded++
		}
	}
	return recorded
}

// TokenAt is an enrolment token for all names of a service, as NewToken would
// have made it at another moment. The keys in dir must be plain.
func TokenAt(dir, service string, issued time.Time, life time.Duration) (secret.String, error) {
	cfg, err := LoadConfig(dir)
	if err != nil {
		return secret.String{}, err
	}
	r, err := cfg.parse()
	if err != nil {
		return secret.String{}, err
	}
	c, err := tokenClaims(r, TokenOptions{Service: service})
	if err != nil {
		return secret.String{}, err
	}
	c.Audience = jose.Audience{"https://" + urlHost(cfg.DNSNames) + stepapi.Prefix + stepapi.PathSign}
	c.IssuedAt, c.NotBefore, c.Expiry = jose.NewNumericDate(issued), jose.NewNumericDate(issued), jose.NewNumericDate(issued.Add(life))
	p, err := r.provisioner("")
	if err != nil {
		return secret.String{}, err
	}
	c.Issuer = p.name
	key, err := files{dir: dir}.readJWK(p.name)
	if err != nil {
		return secret.String{}, err
	}
	return signToken(c, key, p.key.KeyID)
}

// RenewByProof runs a renewal for the same key by a token, to the end.
func (a *Authority) RenewByProof(ctx context.Context, token string) error {
	v, err := a.verifyRenewal(ctx, &http.Request{Header: http.Header{"Authorization": {bearer + token}}}, "")
	if err == nil {
		_, err = a.issue(ctx, a.state.Load(), v)
	}
	return err
}

// DropRoot removes a root that expired certificates still chain to.
func (a *Authority) DropRoot(fingerprint string) error {
	return a.change(a.life, func(next *state) error {
		i, err := findRoot(next.roots, fingerprint)
		if err != nil {
			return err
		}
		gone := next.roots[i]
		next.intermediates = slices.DeleteFunc(slices.Clone(next.intermediates), func(c *x509.Certificate) bool { return c.CheckSignatureFrom(gone) == nil })
		next.roots = slices.Delete(slices.Clone(next.roots), i, i+1)
		return nil
	})
}

// HandOutAgain answers a spent token with the certificate it bought.
func (a *Authority) HandOutAgain(ctx context.Context, entry store.Certificate) error {
	_, err := a.handOutAgain(ctx, verified{caller: caller{kind: byToken, name: "token", service: entry.Service}, action: actSign}, entry)
	return err
}

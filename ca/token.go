package ca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/enrolkey"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// TokenOptions say what a one-time token is for.
type TokenOptions struct {
	// Password decrypts the enrolment key; empty reads secrets/password.
	Password secret.String
	// Service is the profile; with Revoke, the serial of the certificate to revoke.
	Service string
	// Names default to the names that the profile lists. A profile with patterns and
	// wildcards only has no default: those say what may be asked for.
	Names []string
	// Lifetime is how long the token can be used: 5 min if 0, 1 h at most.
	Lifetime time.Duration
	// Provisioner is one of type JWK; it defaults to the first of pki.yaml that is
	// for the service and whose private key is in the state directory.
	Provisioner string
	// Revoke makes a token for /revoke instead of /sign.
	Revoke bool
}

const defaultTokenLife = 5 * time.Minute

// NewToken makes a one-time token from the state directory alone; the authority
// need not run. It refuses what the authority would refuse, with the same rule.
// The token has the form that step makes and accepts.
func (d StateDir) NewToken(ctx context.Context, opt TokenOptions) (secret.String, error) {
	if err := ctx.Err(); err != nil { // decrypting cannot be interrupted
		return secret.String{}, err
	}
	cfg, err := policy.Load(string(d))
	if err != nil {
		return secret.String{}, err
	}
	r, err := cfg.Parse()
	if err != nil {
		return secret.String{}, err
	}
	c, err := tokenClaims(r, opt)
	if err != nil {
		return secret.String{}, err
	}
	use := stepapi.PathSign
	if opt.Revoke {
		use = stepapi.PathRevoke
	}
	root, err := d.ActiveRoot()
	if err != nil {
		return secret.String{}, err
	}
	f := statedir.Dir{Path: string(d), Password: opt.Password}
	key, err := enrolkey.Read(f, r, enrolkey.Want{Service: opt.Service, Provisioner: opt.Provisioner, Any: opt.Revoke})
	if err != nil {
		return secret.String{}, err
	}
	c.Issuer = key.Provisioner
	return key.Sign(c.at(cfg, use, root))
}

// at returns the claims with the audience and the fingerprint of the root, by which
// the holder finds and trusts the authority.
func (c newClaims) at(cfg policy.Config, path string, root *x509.Certificate) newClaims {
	c.Audience = jose.Audience{"https://" + cfg.PublicHost() + stepapi.Prefix + path}
	c.RootFingerprint = certs.Fingerprint(root)
	return c
}

// newClaims are the claims of a token as step writes them.
type newClaims struct {
	jose.Claims
	SANs            []string `json:"sans,omitempty"`
	RootFingerprint string   `json:"sha"` // SHA-256 of the root in hex, which the holder trusts
	Actor           *actor   `json:"act,omitempty"`
}

// actor is the enroller that asked the authority for a token (RFC 8693 §4.1).
type actor struct {
	Service string `json:"sub"`
	Serial  string `json:"serial"` // of its certificate, decimal
}

// tokenClaims returns the claims that the options ask for, without issuer and audience.
// A token that revokes has the serial as its subject and no names.
func tokenClaims(r *policy.Rules, opt TokenOptions) (newClaims, error) {
	c, err := freshClaims(opt.Lifetime)
	if err != nil {
		return c, err
	}
	if opt.Revoke {
		c.Subject, err = certs.ParseSerial(opt.Service)
		return c, err
	}
	c.Subject = opt.Service
	c.SANs, err = r.TokenNames(opt.Service, opt.Names)
	return c, err
}

// freshClaims returns the claims that every token has: a random id and its times. life
// 0 is the default; one that is negative or above an hour is an error.
func freshClaims(life time.Duration) (c newClaims, err error) {
	if life == 0 {
		life = defaultTokenLife
	}
	if life < 0 || life > maxTokenLife {
		return c, fmt.Errorf("token lifetime %s: want more than nothing and %s at most", life, maxTokenLife)
	}
	id := make([]byte, 32)
	if _, err := rand.Read(id); err != nil {
		return c, fmt.Errorf("drawing a token id: %w", err)
	}
	now := time.Now()
	c.ID = hex.EncodeToString(id)
	c.IssuedAt, c.NotBefore, c.Expiry = jose.NewNumericDate(now), jose.NewNumericDate(now), jose.NewNumericDate(now.Add(life))
	return c, nil
}

// sweepEvery is the shortest time between two sweeps.
const sweepEvery = 10 * time.Minute

// sweep deletes the spent tokens that have expired. It is called after a certificate was
// issued, because an authority without requests has nothing to sweep.
func (a *Authority) sweep(ctx context.Context) {
	now := time.Now()
	if !a.swept.Due(now, sweepEvery) {
		return
	}
	if err := a.record.SweepTokens(context.WithoutCancel(ctx), now); err != nil {
		a.logger.WarnContext(ctx, "spent tokens not swept", "err", err)
	}
}

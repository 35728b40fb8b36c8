package ca

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/secret"
)

// Bounds of external account keys. They are made to be used soon: until then their
// secret lies in the record.
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

// NewEABKey makes a key that binds one ACME account to services (RFC 8555 §7.3.4).
// The HMAC key, in base64url as clients want it, is returned here and never again.
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
	cfg, err := policy.Load(r.dir)
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

// RevokeEABKey ends a key, and what the account that it bound may order; its
// certificates stay as they are. One that is unknown, or was revoked before, is
// [record.ErrNotFound].
func (r *Record) RevokeEABKey(ctx context.Context, id string) error {
	return r.acme.RevokeEABKey(ctx, operator, id, time.Now())
}

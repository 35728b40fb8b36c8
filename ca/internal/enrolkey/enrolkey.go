// Package enrolkey finds the enrolment keys in a state directory and signs tokens
// with them. Which claims a token has is the business of the caller.
//
// Invariants; their tests are in package ca:
//
//   - A key signs for a service only if its provisioner is for that service
//     (TestTokenChoosesItsKey, TestProvisionerProfiles).
package enrolkey

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/secret"
)

// Want says what a token is for.
type Want struct {
	Service     string
	Provisioner string // "" is the first one that fits
	Any         bool   // the token is for a certificate of any service
}

// Key is an enrolment key.
type Key struct {
	Provisioner string // the issuer of its tokens
	id          string
	private     *jose.JSONWebKey
}

// choose picks the provisioner of a token: the one that is asked for, or else
// the first of pki.yaml that is for the service and whose private key is here.
func choose(f statedir.Dir, r *policy.Rules, want Want) (policy.JWK, error) {
	var why error
	for _, j := range r.JWKs {
		if want.Provisioner != "" && j.Name != want.Provisioner {
			continue
		}
		var err error
		if !want.Any { // whose certificate it is, the authority knows
			err = j.Serves(want.Service)
		}
		if err == nil && want.Provisioner == "" {
			_, err = os.Stat(f.JWEPath(j.Name))
		}
		if err == nil {
			return j, nil
		}
		if why == nil {
			why = err
		}
	}
	switch {
	case want.Provisioner != "" && why == nil:
		return policy.JWK{}, fmt.Errorf("provisioner %.80q of type JWK is not in %s", want.Provisioner, statedir.ConfigFile)
	case why == nil:
		return policy.JWK{}, fmt.Errorf("no provisioner of type JWK is in %s", statedir.ConfigFile)
	}
	return policy.JWK{}, fmt.Errorf("choosing an enrolment key: %w", why)
}

// Read returns the key that a token is signed with: that of the provisioner that is
// asked for, or else of the first in pki.yaml that is for the service and whose
// private key is in the directory.
func Read(f statedir.Dir, r *policy.Rules, want Want) (Key, error) {
	p, err := choose(f, r, want)
	if err != nil {
		return Key{}, err
	}
	key, err := f.ReadJWK(p.Name, p.Key)
	return Key{p.Name, p.Key.KeyID, key}, err
}

// Sign makes a token of claims, as a JWT. Errors do not quote the library: its texts
// may quote the claims.
func (k Key) Sign(claims any) (secret.String, error) {
	opts := new(jose.SignerOptions).WithType("JWT").WithHeader("kid", k.id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.private.Algorithm), Key: k.private.Key}, opts)
	if err != nil {
		return secret.String{}, errors.New("signing a token: the key cannot sign")
	}
	text, err := jose.Signed(signer).Claims(claims).CompactSerialize()
	if err != nil {
		return secret.String{}, errors.New("signing a token: the library refused it")
	}
	return secret.New(text), nil
}

// ForEnrollers reads the enrolment keys that sign tokens for enrollers, by the service that a
// token is for. If pki.yaml has no enrollers, it reads none.
func ForEnrollers(f statedir.Dir, r *policy.Rules) (map[string]Key, error) {
	out := make(map[string]Key)
	read := make(map[string]Key) // by provisioner: decrypting takes a moment
	for _, enroller := range slices.Sorted(maps.Keys(r.Enrollers)) {
		for _, service := range r.Enrollers[enroller] {
			p, err := choose(f, r, Want{Service: service})
			if err != nil {
				return nil, fmt.Errorf("enrollers.%s: %w", enroller, err)
			}
			if _, ok := read[p.Name]; !ok {
				if read[p.Name], err = Read(f, r, Want{Service: service, Provisioner: p.Name}); err != nil {
					return nil, fmt.Errorf("enrollers.%s: %w", enroller, err)
				}
			}
			out[service] = read[p.Name]
		}
	}
	return out, nil
}

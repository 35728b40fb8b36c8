package crl

import (
	"crypto"
	"crypto/x509"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/record"
)

// Hooks for the external tests.

// Sign makes a list of the given entries.
func Sign(cert *x509.Certificate, key crypto.Signer, template *x509.RevocationList, listed []record.RevokedEntry) ([]byte, error) {
	var e entries
	for _, l := range listed {
		if err := e.add(l); err != nil {
			return nil, err
		}
	}
	e.expire(template.ThisUpdate)
	return sign(cacert.Issuer{Cert: cert, Key: key}, head{template.Number, template.ThisUpdate, template.NextUpdate}, &e)
}

// SetClock pretends that the list of an issuer was made at another time.
func (m *Lists) SetClock(issuing *x509.Certificate, made time.Time) {
	g := m.forIssuer(cacert.KeyID(issuing))
	c := *g.current.Load()
	c.made = made
	g.current.Store(&c)
}

// SwapKey has another key sign the list of an issuer, and returns the one before.
func (m *Lists) SwapKey(issuing *x509.Certificate, key crypto.Signer) (before crypto.Signer) {
	g := m.forIssuer(cacert.KeyID(issuing))
	g.sem <- struct{}{}
	defer func() { <-g.sem }()
	before, g.issuing.Key = g.issuing.Key, key
	return before
}

package enroll

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/rotation"
)

// identity is a certificate with its key and its trust: the content of a generation on
// disk. It is not changed once published; a renewal or a new bundle makes another one.
type identity struct {
	chain []*x509.Certificate // leaf first
	key   crypto.Signer
	roots []*x509.Certificate
	lists lists
	kept  *revocation.Kept // certificates that only earlier lists named

	byToken      bool // enrolled, not renewed
	newAuthority bool // of another authority than its predecessor, so nothing of that one is taken over
}

func (i *identity) leaf() *x509.Certificate { return i.chain[0] }

// certificate returns the form that crypto/tls takes.
func (i *identity) certificate() tls.Certificate {
	raw := make([][]byte, len(i.chain))
	for n, c := range i.chain {
		raw[n] = c.Raw
	}
	return tls.Certificate{Certificate: raw, PrivateKey: i.key, Leaf: i.leaf()}
}

// material returns the form that package rotation takes.
func (i *identity) material() rotation.Material {
	return rotation.Material{
		Certificate: i.certificate(), Roots: i.roots, Version: certs.Serial(i.leaf()),
		Revoked: i.lists.raw(), Issuers: i.lists.issuers(i), Kept: i.kept.Encode(),
	}
}

// newIdentity is the inverse of material.
func newIdentity(m rotation.Material) (*identity, error) {
	key, ok := m.Certificate.PrivateKey.(crypto.Signer)
	if !ok || len(m.Certificate.Certificate) == 0 || len(m.Roots) == 0 {
		return nil, errors.New("the material lacks a key, a certificate or roots")
	}
	i := &identity{key: key, roots: m.Roots}
	for _, der := range m.Certificate.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parsing the chain: %w", err)
		}
		i.chain = append(i.chain, c)
	}
	for _, l := range m.Revoked {
		signed, err := signedBy(l, slices.Concat(i.chain[1:], i.roots, m.Issuers))
		if err != nil {
			return nil, err
		}
		i.lists = append(i.lists, signed)
	}
	kept, err := revocation.ParseKept(m.Kept)
	if err != nil {
		return nil, fmt.Errorf("parsing the revoked certificates that are kept: %w", err)
	}
	i.kept = kept
	return i, nil
}

// carryOver copies into i what a renewal does not bring: bundle, lists and kept
// certificates of from, the identity in effect. They may be newer than those at the begin
// of the renewal. It copies nothing if from is nil or of another authority: then bundle,
// lists and the head of the log begin again together.
func (i *identity) carryOver(from *identity, now time.Time) (err error) {
	if from == nil {
		return nil
	}
	if i.byToken && !slices.ContainsFunc(i.roots, func(r *x509.Certificate) bool { return slices.ContainsFunc(from.roots, r.Equal) }) {
		i.newAuthority = true
		return nil
	}
	if i.roots == nil {
		i.roots = from.roots
	}
	i.lists = from.lists.stillVerifiable(i, now)
	i.kept, err = from.keepRevoked(i.lists, now)
	return err
}

// verify checks an identity that the authority has issued, before it replaces another one.
func (i *identity) verify(now time.Time) error {
	leaf := i.leaf()
	if !certs.Fits(leaf, i.key) {
		return errors.New("the certificate issued is for another key")
	}
	if !now.Before(leaf.NotAfter) {
		return fmt.Errorf("the certificate issued is over since %s: compare the clocks", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	opts := x509.VerifyOptions{
		Roots: certs.Pool(i.roots...), Intermediates: certs.Pool(i.chain[1:]...),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // package rotation checks the usages
		// Not the present: the clock here may be slow. NotBefore is within the validity of the whole chain.
		CurrentTime: leaf.NotBefore,
	}
	if _, err := leaf.Verify(opts); err != nil {
		return fmt.Errorf("verifying the certificate issued: %w", err)
	}
	return nil
}

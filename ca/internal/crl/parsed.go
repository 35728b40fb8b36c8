package crl

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
)

// Parsed are the lists of several issuers, for the authority's own verification of clients. A
// list stays when its issuer leaves the configuration, as long as its certificates still
// verify: without the list the revoked ones would be accepted. Not for concurrent use.
type Parsed struct {
	// Spent is how long the last Refresh parsed.
	Spent time.Duration

	lists []parsedList
}

type parsedList struct {
	issuer *x509.Certificate
	sum    [sha256.Size]byte // of the DER
	list   *x509.RevocationList
}

// Refresh takes the list of each issuer, an intermediate or a root, from get, which returns
// nil for an issuer without one. It drops lists of expired and removed issuers, and reports
// whether any list changed. An error is about some of the lists; the others are refreshed
// all the same.
func (l *Parsed) Refresh(get func(issuing *x509.Certificate) (*List, error), issuers, roots []*x509.Certificate) (changed bool, err error) {
	l.Spent = 0
	for _, issuing := range issuers {
		c, one := get(issuing)
		if one == nil && c != nil {
			var now bool
			now, one = l.take(issuing, c)
			changed = changed || now
		}
		err = errors.Join(err, one)
	}
	before := len(l.lists)
	l.lists = slices.DeleteFunc(l.lists, func(o parsedList) bool {
		return time.Now().After(o.issuer.NotAfter) || cacert.RootOf(o.issuer, roots) == nil
	})
	return changed || len(l.lists) != before, err
}

func (l *Parsed) take(issuing *x509.Certificate, c *List) (changed bool, err error) {
	i := slices.IndexFunc(l.lists, func(o parsedList) bool { return o.issuer.Equal(issuing) })
	if i >= 0 && l.lists[i].sum == c.sum {
		return false, nil
	}
	defer func(began time.Time) { l.Spent += time.Since(began) }(time.Now())
	list, err := x509.ParseRevocationList(c.der)
	if err != nil {
		return false, fmt.Errorf("reading the own revoked list of %q: %w", issuing.Subject.CommonName, err)
	}
	next := parsedList{issuing, c.sum, list}
	if i >= 0 {
		l.lists[i] = next
	} else {
		l.lists = append(l.lists, next)
	}
	return true, nil
}

// Has reports whether a certificate is on the list of its issuer.
func (l *Parsed) Has(leaf *x509.Certificate) bool {
	if leaf == nil {
		return false
	}
	return slices.ContainsFunc(l.lists, func(o parsedList) bool {
		return bytes.Equal(o.issuer.SubjectKeyId, leaf.AuthorityKeyId) &&
			slices.ContainsFunc(o.list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
				return e.SerialNumber.Cmp(leaf.SerialNumber) == 0
			})
	})
}

// All are the lists, and the issuer of each.
func (l *Parsed) All() (lists []*x509.RevocationList, issuers []*x509.Certificate) {
	for _, o := range l.lists {
		lists, issuers = append(lists, o.list), append(issuers, o.issuer)
	}
	return lists, issuers
}

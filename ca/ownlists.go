package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
)

// ownLists are the revoked lists for the authority's own listener: those that
// peers fetch from /revoked, parsed. A list stays when its issuer leaves the
// configuration, as long as its certificates could verify: without it they would be good again.
type ownLists struct {
	lists []ownList
	spent time.Duration // on parsing, by the last refresh
}

type ownList struct {
	issuer *x509.Certificate
	sum    [sha256.Size]byte // of the DER
	list   *x509.RevocationList
}

// refresh brings the list of each issuer up to date and reports whether any
// changed. An error is about some of them; the others are refreshed all the same.
func (l *ownLists) refresh(ctx context.Context, a *Authority, st *state) (changed bool, err error) {
	l.spent = 0
	for _, issuing := range st.intermediates {
		c, one := a.currentCRL(ctx, st, issuing, true)
		if one == nil {
			var now bool
			now, one = l.take(issuing, c)
			changed = changed || now
		}
		err = errors.Join(err, one)
	}
	before := len(l.lists)
	l.lists = slices.DeleteFunc(l.lists, func(o ownList) bool {
		return time.Now().After(o.issuer.NotAfter) || cacert.RootOf(o.issuer, st.roots) == nil
	})
	return changed || len(l.lists) != before, err
}

func (l *ownLists) take(issuing *x509.Certificate, c *List) (changed bool, err error) {
	i := slices.IndexFunc(l.lists, func(o ownList) bool { return o.issuer.Equal(issuing) })
	if i >= 0 && l.lists[i].sum == c.sum {
		return false, nil
	}
	defer func(began time.Time) { l.spent += time.Since(began) }(time.Now())
	list, err := x509.ParseRevocationList(c.der)
	if err != nil {
		return false, fmt.Errorf("reading the own revoked list of %q: %w", issuing.Subject.CommonName, err)
	}
	next := ownList{issuing, c.sum, list}
	if i >= 0 {
		l.lists[i] = next
	} else {
		l.lists = append(l.lists, next)
	}
	return true, nil
}

// have reports whether a certificate is on the list of its issuer.
func (l *ownLists) have(leaf *x509.Certificate) bool {
	if leaf == nil {
		return false
	}
	return slices.ContainsFunc(l.lists, func(o ownList) bool {
		return bytes.Equal(o.issuer.SubjectKeyId, leaf.AuthorityKeyId) &&
			slices.ContainsFunc(o.list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
				return e.SerialNumber.Cmp(leaf.SerialNumber) == 0
			})
	})
}

func (l *ownLists) all() (lists []*x509.RevocationList, issuers []*x509.Certificate) {
	for _, o := range l.lists {
		lists, issuers = append(lists, o.list), append(issuers, o.issuer)
	}
	return lists, issuers
}

// broadcast wakes everyone who waits for the next event.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{} // closed by the next event; nil without waiters
}

func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

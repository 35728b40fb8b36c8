package proxy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// allowList has the names of peers that are admitted.
type allowList []string

// newAllowList refuses an empty list, and names that a header could not hold as they are.
func newAllowList(names []string) (allowList, error) {
	if len(names) == 0 {
		return nil, errors.New("the list of peers that are allowed is empty")
	}
	for _, n := range names {
		if n == "" || strings.ContainsFunc(n, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`",;`, r) }) {
			return nil, fmt.Errorf("the allowed name %q: want a DNS name or a URI, without blanks and commas", n)
		}
	}
	return slices.Clone(names), nil
}

// match returns the first name of the list that the certificate has as a DNS or URI subject
// alternative name, or "". It is what a service is told of the peer: so the service sees
// names that the operator wrote, and no other text of a certificate.
func (l allowList) match(leaf *x509.Certificate) string {
	for _, name := range l {
		if slices.Contains(leaf.DNSNames, name) {
			return name
		}
		for _, u := range leaf.URIs {
			if u.String() == name {
				return name
			}
		}
	}
	return ""
}

// checkHeaderName refuses what is no name of a header, and names that HTTP, or this proxy,
// gives a meaning.
func checkHeaderName(name string) error {
	plain := plainName(name)
	if !strings.EqualFold(plain, name) || !strings.HasPrefix(plain, "x-") || hasAnyPrefix(plain, forwarded) || hasAnyPrefix(plain, foreign) {
		return fmt.Errorf("the header with the identity is called %q: want letters, digits and - after X-, and no name that has a meaning already", name)
	}
	return nil
}

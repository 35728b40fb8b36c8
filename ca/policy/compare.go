package policy

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// Deviations returns the differences between a certificate and the one that its service would
// get now, in words: names, usages, kind of key, length of life. If there is none, issuing
// again would change only key and dates. chain is leaf first. With the issuer in it, a life
// that ends with the issuer is no difference. A service without a profile is an error.
func (c Config) Deviations(service string, chain []*x509.Certificate) ([]string, error) {
	r, err := c.Parse()
	if err != nil {
		return nil, err
	}
	p, ok := r.Services[service]
	if !ok {
		return nil, denial.New(denial.Profile, "service %.80q has no profile", service)
	}
	return p.deviations(chain), nil
}

func (p *Service) deviations(chain []*x509.Certificate) (out []string) {
	leaf := chain[0]
	if leaf.Subject.CommonName != p.Name {
		out = append(out, fmt.Sprintf("issued to %q", leaf.Subject.CommonName))
	}
	has := slices.DeleteFunc(certs.Names(leaf), func(n string) bool { return !slices.Contains(p.Names, n) && p.has(n) }) // asked for, and allowed
	if text := difference(p.Names, has); text != "" {
		out = append(out, "names changed: "+text)
	}
	if text := difference(usageNames(p.Usages), usageNames(leaf.ExtKeyUsage)); text != "" {
		out = append(out, "usages changed: "+text)
	}
	if kind := keytype.Of(leaf.PublicKey); !slices.Contains(p.keyTypes, kind) {
		out = append(out, "key type "+kind+" is not allowed any more")
	}
	if !p.lifetimeMatches(chain) {
		life := leaf.NotAfter.Sub(leaf.NotBefore) - lifetime.Backdate(p.Lifetimes.Default)
		out = append(out, fmt.Sprintf("lifetime changed: %s instead of %s", p.Lifetimes.Default, life))
	}
	return out
}

// lifetimeMatches compares the life with the profile's default, in whole seconds. A life that
// was shortened to the dates of its issuer matches.
func (p *Service) lifetimeMatches(chain []*x509.Certificate) bool {
	leaf := chain[0]
	if len(chain) > 1 && (leaf.NotAfter.Equal(chain[1].NotAfter) || leaf.NotBefore.Equal(chain[1].NotBefore)) {
		return true
	}
	off := leaf.NotAfter.Sub(leaf.NotBefore) - p.Lifetimes.Default - lifetime.Backdate(p.Lifetimes.Default)
	return off.Abs() <= time.Second
}

func usageNames(usages []x509.ExtKeyUsage) (names []string) {
	for _, u := range usages {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			names = append(names, usageServer)
		case x509.ExtKeyUsageClientAuth:
			names = append(names, usageClient)
		default:
			names = append(names, fmt.Sprintf("usage %d", u))
		}
	}
	return names
}

// difference lists what has to come to has, and what has to go, for it to be want.
func difference(want, has []string) string {
	var out []string
	for _, n := range want {
		if !slices.Contains(has, n) && !slices.Contains(out, "+ "+n) {
			out = append(out, "+ "+n)
		}
	}
	for _, n := range has {
		if !slices.Contains(want, n) {
			out = append(out, "- "+n)
		}
	}
	return strings.Join(out, ", ")
}

// Package names is about the names that certificates carry: DNS names, IP
// addresses and URIs (subjectAltName, RFC 5280 §4.2.1.6).
//
//	all, err := names.OfRequest(csr)      // canonical, sorted; an error for kinds that services do not have
//	name, err := names.Canonical("::0001") // "::1"
//	err = names.Set(template, all)        // each name in the field of its kind
//	p, err := names.ParsePattern("**.workers.internal")
//	p.Match("a.b.workers.internal")       // true
//
// Two names are the same if their canonical forms are equal as text. A caller that compares
// names must have them from [Canonical] or [CanonicalAll].
package names

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// dnsName is the form of DNS names in certificates: letters, digits, hyphens and underscores.
// Host names have no underscores (RFC 952), but ArtStore's container names do, and TLS
// libraries compare them as text.
var dnsName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// dottedDecimal has the form of an IPv4 address. No DNS name has it
// (RFC 1123 §2.1), so 10.0.0.256 is a mistake and no name.
var dottedDecimal = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$`)

const (
	maxDNS = 253 // RFC 1035 §2.3.4, without the dot at the end
	maxURI = 2048

	wildcard = "*."
)

// IsDNS reports whether text is a DNS name in lower case, of any length.
func IsDNS(text string) bool { return dnsName.MatchString(text) }

// IsWildcard reports whether a canonical name is a wildcard: a DNS name whose
// left-most label is "*" and stands for one label (RFC 9525 §6.3).
func IsWildcard(name string) bool { return strings.HasPrefix(name, wildcard) }

// Canonical returns the one spelling by which names are compared, so that
// "::1" and "0:0:0:0:0:0:0:1", or "Ingester" and "ingester", are one name.
// An internationalised name must be in its A-label form. The error for another spelling
// contains the A-label form and does not use it, because a name with similar letters of
// another script would be accepted unnoticed otherwise.
func Canonical(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), nil
	}
	if strings.Contains(text, "://") {
		return canonicalURI(text)
	}
	base, isWildcard := strings.CutPrefix(text, wildcard)
	name, err := canonicalDNS(base)
	if err != nil {
		return "", fmt.Errorf("name %.80q %w", text, err)
	}
	if isWildcard {
		name = wildcard + name
	}
	if len(name) > maxDNS {
		return "", fmt.Errorf("name %.80q is longer than %d characters", text, maxDNS)
	}
	return name, nil
}

// canonicalDNS returns an error that continues a sentence about the name.
func canonicalDNS(text string) (string, error) {
	name := strings.ToLower(text)
	switch {
	case !isASCII(text):
		if ascii := aLabels(text); ascii != "" {
			return "", fmt.Errorf("has letters beyond ASCII: write its A-label form %s", ascii)
		}
		return "", errors.New("has letters beyond ASCII, and has no A-label form")
	case strings.Contains(name, "*"):
		return "", errors.New(`is no DNS name: a wildcard is one "*" as the whole left-most label`)
	case len(name) > maxDNS, !dnsName.MatchString(name):
		return "", errors.New("is neither a DNS name, nor an IP address, nor a URI")
	case endsInDigit(name) && dottedDecimal.MatchString(name):
		return "", errors.New("looks like an IP address and is none")
	}
	for label := range strings.SplitSeq(name, ".") {
		if strings.HasPrefix(label, acePrefix) && !isALabel(label) {
			return "", fmt.Errorf("has %s, which is no A-label of an internationalised name (RFC 5891)", label)
		}
	}
	return name, nil
}

// endsInDigit reports whether dottedDecimal can match at all. It is faster than the regular
// expression, which runs for each name of each issuance otherwise.
func endsInDigit(name string) bool { last := name[len(name)-1]; return '0' <= last && last <= '9' }

// canonicalURI takes URIs with a host, and nothing after the path. Scheme and
// host are the same in upper and lower case (RFC 3986 §6.2.2.1), paths are not.
func canonicalURI(text string) (string, error) {
	refused := fmt.Errorf("name %.80q is not a URI with a host and nothing after the path", text)
	if len(text) > maxURI || !isASCII(text) { // RFC 5280 §4.2.1.6: IA5String
		return "", refused
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" || u.ForceQuery {
		return "", refused
	}
	if host := u.Hostname(); strings.Contains(host, "*") {
		return "", refused
	} else if _, err := Canonical(host); err != nil {
		return "", refused
	}
	u.Host = strings.ToLower(u.Host)
	return u.String(), nil
}

// CanonicalAll returns the canonical names, sorted and without duplicates, so that two lists
// with the same names are equal.
func CanonicalAll(list []string) ([]string, error) {
	out := make([]string, 0, len(list))
	for _, n := range list {
		name, err := Canonical(n)
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Set puts each name into the field of its kind (RFC 5280 §4.2.1.6).
func Set(t *x509.Certificate, list []string) error {
	for _, n := range list {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		if !strings.Contains(n, "://") {
			t.DNSNames = append(t.DNSNames, n)
			continue
		}
		u, err := url.Parse(n)
		if err != nil {
			return fmt.Errorf("name %q: %w", n, err)
		}
		t.URIs = append(t.URIs, u)
	}
	return nil
}

// URLHost takes the first name that needs no brackets in a URL.
func URLHost(list []string) string {
	for _, n := range list {
		if addr, err := netip.ParseAddr(n); err != nil || addr.Is4() {
			return n
		}
	}
	return "[" + list[0] + "]"
}

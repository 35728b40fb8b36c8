// Package names is about the names that certificates carry: DNS names, IP
// addresses and URIs (subjectAltName, RFC 5280 §4.2.1.6).
//
//	all, err := names.OfRequest(csr)      // canonical, sorted; an error for kinds that services do not have
//	name, err := names.Canonical("::0001") // "::1"
//	err = names.Set(template, all)        // each name in the field of its kind
//
// Two names are the same if their canonical forms are equal as text, so every
// list that is compared with another one went through [Canonical] first.
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

// dnsName is what we put into a certificate: letters, digits, hyphens,
// underscores. Underscores are not host names (RFC 952) but ArtStore's container
// names have them, and every TLS library compares them as text.
var dnsName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// IsDNS reports whether text is a DNS name in lower case, of any length.
func IsDNS(text string) bool { return dnsName.MatchString(text) }

// Canonical gives the one spelling by which names are compared, so that
// "::1" and "0:0:0:0:0:0:0:1", or "Ingester" and "ingester", are one name.
func Canonical(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), nil
	}
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
			return "", fmt.Errorf("name %.80q is not a URI with a host and nothing after the path", text)
		}
		return u.String(), nil
	}
	name := strings.ToLower(text)
	if len(name) > 253 || !dnsName.MatchString(name) {
		return "", fmt.Errorf("name %.80q is neither a DNS name without wildcard, nor an IP address, nor a URI", text)
	}
	return name, nil
}

// CanonicalAll sorts and drops duplicates: two lists are the same set if they are equal.
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

// OfRequest returns all names of a request. The kinds that we never issue are an
// error, because they must not silently fall away.
func OfRequest(csr *x509.CertificateRequest) ([]string, error) {
	if len(csr.EmailAddresses) > 0 {
		return nil, errors.New("the request has e-mail addresses; services have none")
	}
	list := slices.Clone(csr.DNSNames)
	for _, ip := range csr.IPAddresses {
		list = append(list, ip.String())
	}
	for _, u := range csr.URIs {
		list = append(list, u.String())
	}
	return CanonicalAll(list)
}

// Set puts each name where its kind belongs (RFC 5280 §4.2.1.6).
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

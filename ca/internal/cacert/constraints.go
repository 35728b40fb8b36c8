package cacert

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
)

// noHost is a name that no host has (RFC 6761 §6.4). A permitted subtree of URIs with this
// host permits no URI. There is no other way to say so: an empty excluded subtree means all
// URIs to some programs, and none to others.
const noHost = "invalid"

// Constraints are the names that certificates below a CA certificate may have
// (RFC 5280 §4.2.1.10). The zero value permits all names.
type Constraints struct {
	of *x509.Certificate // of its fields, those of name constraints are used; nil permits all
}

// ParseConstraints reads a list of permitted names: a DNS name such as artstore.internal, which
// permits the names below it too; an IP address or a network such as 10.20.0.0/16; and
// spiffe://artstore or a URI of another scheme, which permits every URI with this host. A host
// that begins with a dot stands for the hosts below it; crypto/x509 permits those below a host
// without the dot too, which RFC 5280 does not. An empty list permits everything.
//
// In an extension, a kind of name without an entry is not limited. Here, a list that has an
// entry of one kind permits no name of the other two kinds. E-mail addresses are not limited,
// because no profile can have one.
func ParseConstraints(permit []string) (Constraints, error) {
	if len(permit) == 0 {
		return Constraints{}, nil
	}
	c := &x509.Certificate{PermittedDNSDomainsCritical: true}
	for _, text := range permit {
		if err := addPermitted(c, text); err != nil {
			return Constraints{}, fmt.Errorf("permitted name %.80q: %w", text, err)
		}
	}
	if len(c.PermittedDNSDomains) == 0 {
		c.ExcludedDNSDomains = []string{""} // CA/B BR §7.1.5: a zero-length name excludes all
	}
	if len(c.PermittedIPRanges) == 0 {
		c.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	}
	if len(c.PermittedURIDomains) == 0 {
		c.PermittedURIDomains = []string{noHost}
	}
	return Constraints{c}, nil
}

func addPermitted(c *x509.Certificate, text string) error {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		text = netip.PrefixFrom(addr, addr.BitLen()).String()
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		if prefix != prefix.Masked() {
			return fmt.Errorf("bits are set behind the prefix; the network is %s", prefix.Masked())
		}
		c.PermittedIPRanges = append(c.PermittedIPRanges, &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())})
		return nil
	}
	if scheme, host, isURI := strings.Cut(text, "://"); isURI {
		if u, err := url.Parse(text); err != nil || u.Host != host || scheme == "" {
			return errors.New("a permitted URI has a scheme and a host, and nothing behind it")
		}
		if !isDomain(strings.TrimPrefix(host, ".")) {
			return errors.New("the host is no DNS name")
		}
		c.PermittedURIDomains = append(c.PermittedURIDomains, host)
		return nil
	}
	if !isDomain(text) {
		return errors.New("want a DNS name, an IP address, a network or scheme://host")
	}
	c.PermittedDNSDomains = append(c.PermittedDNSDomains, text)
	return nil
}

// isDomain reports whether text can be a lower-case DNS name in a constraint.
func isDomain(text string) bool {
	if text == "" || len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

func (n Constraints) put(t *x509.Certificate) {
	if n.of == nil {
		return
	}
	t.PermittedDNSDomainsCritical = true // RFC 5280 §4.2.1.10: CAs MUST mark it critical
	t.PermittedDNSDomains, t.ExcludedDNSDomains = n.of.PermittedDNSDomains, n.of.ExcludedDNSDomains
	t.PermittedIPRanges, t.ExcludedIPRanges = n.of.PermittedIPRanges, n.of.ExcludedIPRanges
	t.PermittedEmailAddresses, t.ExcludedEmailAddresses = n.of.PermittedEmailAddresses, n.of.ExcludedEmailAddresses
	t.PermittedURIDomains, t.ExcludedURIDomains = n.of.PermittedURIDomains, n.of.ExcludedURIDomains
}

func (n Constraints) limited() bool {
	if n.of == nil {
		return false
	}
	c := n.of
	return len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges)+
		len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0
}

// Outside returns those of the names, in their order, that the constraints of a chain of CA
// certificates do not permit. A client would refuse a leaf with such a name. Names are
// DNS names, IP addresses and URIs. The verdict is that of crypto/x509, on certificates that
// are made for it and thrown away. An error is one of making them.
func Outside(chain []*x509.Certificate, names []string) (outside []string, err error) {
	chain = slices.DeleteFunc(slices.Clone(chain), func(c *x509.Certificate) bool { return !Constraints{c}.limited() })
	if len(chain) == 0 {
		return nil, nil
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("trying name constraints: %w", err)
	}
	for _, name := range names {
		permitted := true
		for _, c := range chain {
			ok, err := permits(Constraints{c}, name, key)
			if err != nil {
				return nil, fmt.Errorf("trying name constraints on %q: %w", name, err)
			}
			permitted = permitted && ok
		}
		if !permitted {
			outside = append(outside, name)
		}
	}
	return outside, nil
}

// permits makes a root with the constraints and a leaf with the name, and verifies the leaf.
func permits(limits Constraints, name string, key ed25519.PrivateKey) (bool, error) {
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, SubjectKeyId: []byte{1},
	}
	root.Subject.CommonName = "root"
	limits.put(root)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter}
	if ip := net.ParseIP(name); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else if strings.Contains(name, "://") {
		u, err := url.Parse(name)
		if err != nil {
			return false, err
		}
		leaf.URIs = []*url.URL{u}
	} else {
		leaf.DNSNames = []string{name}
	}
	made := make([]*x509.Certificate, 2)
	for i, t := range []*x509.Certificate{root, leaf} {
		der, err := x509.CreateCertificate(rand.Reader, t, root, key.Public(), key)
		if err == nil {
			made[i], err = x509.ParseCertificate(der)
		}
		if err != nil {
			return false, err
		}
	}
	_, err := made[1].Verify(x509.VerifyOptions{Roots: certs.Pool(made[0]), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.CANotAuthorizedForThisName {
		return false, nil
	}
	return err == nil, err
}

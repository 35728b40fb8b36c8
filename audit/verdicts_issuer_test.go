package audit_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// below makes chains of root, intermediate and leaf with these options for each.
func below(ofRoot, ofMid, ofLeaf option) func(pki) *madeFiles {
	return func(p pki) *madeFiles {
		p.Helper()
		root := p.root("Root", ofRoot)
		mid := p.ca(root, "Intermediate", ofMid)
		return p.chain(p.leaf(mid, ofLeaf), mid).trust(root)
	}
}

func withoutPath(*certPlan) {}

func both(options ...option) option {
	return func(r *certPlan) {
		for _, o := range options {
			o(r)
		}
	}
}

// authorityCases are issuers that may not issue, or look like others.
func authorityCases() []verdictCase {
	return []verdictCase{
		{"the intermediate is CA:FALSE", below(withoutPath, notCA, withoutPath), ""},
		{"the root is CA:FALSE", below(notCA, withoutPath, withoutPath), ""},
		{"the intermediate has no basicConstraints", below(withoutPath, dropExtension(oidBasicConstraints), withoutPath), ""},
		{"the root has no basicConstraints", below(dropExtension(oidBasicConstraints), withoutPath, withoutPath),
			"RFC 5280 section 4.2.1.9: without them its key must not verify certificates, and peers in Go refuse the chain"},
		{"the intermediate has empty basicConstraints", below(withoutPath, extension(oidBasicConstraints, true, 0x30, 0), withoutPath), ""},
		{"the basicConstraints of the intermediate are not critical", below(withoutPath, extension(oidBasicConstraints, false, 0x30, 3, 1, 1, 0xff), withoutPath), ""},
		{"the intermediate may not sign certificates", below(withoutPath, keyUses(x509.KeyUsageDigitalSignature), withoutPath), ""},
		{"the root may not sign certificates", below(keyUses(x509.KeyUsageCRLSign), withoutPath, withoutPath), ""},
		{"the intermediate has no keyUsage", below(withoutPath, keyUses(0), withoutPath), ""},
		{"the root has no keyUsage", below(keyUses(0), withoutPath, withoutPath), ""},
		{"the keyUsage of the intermediate has no bit", below(withoutPath, extension(oidKeyUsage, true, 3, 1, 0), withoutPath), ""},
		{"the keyUsage of the root has no bit", below(extension(oidKeyUsage, true, 3, 1, 0), withoutPath, withoutPath), ""},
		{"path length 0 of the intermediate, obeyed", below(withoutPath, pathLength(0), withoutPath), ""},
		{"path length 0 of the root, exceeded", below(pathLength(0), withoutPath, withoutPath), ""},
		{"path length 1 of the root, obeyed", below(pathLength(1), withoutPath, withoutPath), ""},
		{"path length 0 of the intermediate, exceeded", func(p pki) *madeFiles {
			root := p.root("Root")
			mid := p.ca(root, "Intermediate", pathLength(0))
			low := p.ca(mid, "Lower")
			return p.chain(p.leaf(low), low, mid).trust(root)
		}, ""},
		{"path length 0, and a self-issued intermediate below", func(p pki) *madeFiles {
			root := p.root("Root")
			mid := p.ca(root, "Intermediate", pathLength(0))
			low := p.ca(mid, "Intermediate")
			return p.chain(p.leaf(low), low, mid).trust(root)
		}, ""},
		{"a negative path length", below(withoutPath, extension(oidBasicConstraints, true, 0x30, 6, 1, 1, 0xff, 2, 1, 0xff), withoutPath), ""},
		{"a path length at a leaf", below(withoutPath, withoutPath, extension(oidBasicConstraints, true, 0x30, 3, 2, 1, 0)), ""},
		{"an authority of version 1 as intermediate", below(withoutPath, both(atVersion(1), noExtensions), withoutPath), ""},
		{"an authority of version 1 as root", below(both(atVersion(1), noExtensions), withoutPath, withoutPath), ""},
		{"an empty subject of the intermediate", func(p pki) *madeFiles {
			root := p.root("Root")
			mid := p.ca(root, "", edit(func(t *tbsCertificate) { t.Subject = raw(asn1.TagSequence) }))
			return p.chain(p.leaf(mid), mid).trust(root)
		}, ""},
		{"key identifiers that do not match", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			return p.chain(p.leaf(mid, extension(oidAuthorityKeyID, false, 0x30, 6, 0x80, 4, 1, 2, 3, 4)), mid).trust(root)
		}, ""},
		{"key identifiers that do not match at the root", func(p pki) *madeFiles {
			root := p.root("Root")
			mid := p.ca(root, "Intermediate", extension(oidAuthorityKeyID, false, 0x30, 6, 0x80, 4, 1, 2, 3, 4))
			return p.chain(p.leaf(mid), mid).trust(root)
		}, ""},
		{"the root names another key of its own", func(p pki) *madeFiles {
			root := p.root("Root", extension(oidAuthorityKeyID, false, 0x30, 6, 0x80, 4, 1, 2, 3, 4))
			return p.chain(p.leaf(root)).trust(root)
		}, ""},
		{"the authority key identifier names another serial number", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			issuer := p.der(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true,
				Bytes: p.der(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: root.name})})
			other := append(issuer, 0x82, 1, 7)
			return p.chain(p.leaf(mid, extension(oidAuthorityKeyID, false, append([]byte{0x30, byte(len(other))}, other...)...)), mid).trust(root)
		}, ""},
		{"no key identifiers anywhere", below(noKeyIDs(), noKeyIDs(), noKeyIDs()), ""},
		{"the issuer's name in other letters", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			low := *mid
			low.name = p.root("INTERMEDIATE").name
			return p.chain(p.leaf(&low), mid).trust(root)
		}, "names compare without regard to case in RFC 5280 section 7.1, and byte by byte in crypto/x509: peers in Go find no issuer"},
		{"the signature of the leaf is damaged", below(withoutPath, withoutPath, damaged), ""},
		{"the signature of the intermediate is damaged", below(withoutPath, damaged, withoutPath), ""},
		{"the signature of the root is damaged", below(damaged, withoutPath, withoutPath), ""},
		{"a critical extension that nobody knows, at the leaf", below(withoutPath, withoutPath, extension(oidPrivate, true, 5, 0)), ""},
		{"the same at the intermediate", below(withoutPath, extension(oidPrivate, true, 5, 0), withoutPath), ""},
		{"the same at the root", below(extension(oidPrivate, true, 5, 0), withoutPath, withoutPath), ""},
		{"a proxy certificate", below(withoutPath, withoutPath, extension(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 14}, false, 0x30, 0x0c, 0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x15, 1)), ""},
		{"blocks of addresses that the issuer does not have", below(withoutPath, withoutPath, extension(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 7}, false,
			0x30, 0x0c, 0x30, 0x0a, 4, 2, 0, 1, 0x30, 4, 3, 2, 0, 10)), ""},
		{"policies that are named twice", below(withoutPath, withoutPath, extension(asn1.ObjectIdentifier{2, 5, 29, 32}, false, 0x30, 0x0c, 0x30, 4, 6, 2, 0x2a, 3, 0x30, 4, 6, 2, 0x2a, 3)),
			"a policy may be named once (RFC 5280 section 4.2.1.4): crypto/x509 does not read the certificate"},
		{"an extension that nobody knows and need not", below(withoutPath, withoutPath, extension(oidPrivate, false, 5, 0)), ""},
		{"the intermediate requires a policy that the leaf has not", below(withoutPath, extension(oidPolicyLimits, true, 0x30, 3, 0x80, 1, 0), withoutPath),
			"openssl verify looks at policies on request only, RFC 5280 section 6.1 and crypto/x509 always"},
	}
}

// noExtensions is for versions below 3.
func noExtensions(r *certPlan) { edit(func(t *tbsCertificate) { t.Extensions = nil })(r) }

// usageCases are about what certificates may be used for.
func usageCases() []verdictCase {
	const (
		server, client = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
		code, whatever = x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageAny
	)
	purposes := func(m func(pki) *madeFiles, list ...string) func(pki) *madeFiles {
		return func(p pki) *madeFiles { p.Helper(); return m(p).purpose(list...) }
	}
	const asServer, asClient = "sslserver", "sslclient"
	return []verdictCase{
		{"a leaf for servers", purposes(below(withoutPath, withoutPath, usages(server)), asServer), ""},
		{"a leaf for clients", purposes(below(withoutPath, withoutPath, usages(client)), asClient), ""},
		{"a leaf for anything, by having no usage", below(withoutPath, withoutPath, usages()), ""},
		{"a leaf with the usage any alone", below(withoutPath, withoutPath, usages(whatever)), ""},
		{"a leaf with the usages any and server", purposes(below(withoutPath, withoutPath, usages(whatever, server)), asServer), ""},
		{"a leaf for code, used for that", purposes(below(withoutPath, withoutPath, usages(code)), "any"), ""},
		{"a leaf for code, used as a server's", purposes(below(withoutPath, withoutPath, usages(code)), asServer), ""},
		{"a leaf with an empty list of usages", below(withoutPath, withoutPath, extension(oidExtKeyUsage, false, 0x30, 0)), ""},
		{"an intermediate for servers, a leaf for servers", purposes(below(withoutPath, usages(server), usages(server)), asServer), ""},
		{"an intermediate for servers, a leaf for both", below(withoutPath, usages(server), withoutPath), ""},
		{"an intermediate for clients, a leaf for servers", purposes(below(withoutPath, usages(client), usages(server)), asServer), ""},
		{"an intermediate for clients, a leaf for clients", purposes(below(withoutPath, usages(client), usages(client)), asClient), ""},
		{"an intermediate for both", below(withoutPath, usages(server, client), withoutPath), ""},
		{"an intermediate for code", below(withoutPath, usages(code), withoutPath), ""},
		{"an intermediate with the usage any alone", below(withoutPath, usages(whatever), withoutPath), ""},
		{"an intermediate with an empty list of usages", below(withoutPath, extension(oidExtKeyUsage, false, 0x30, 0), withoutPath), ""},
		{"a root for clients, a leaf for servers", purposes(below(usages(client), withoutPath, usages(server)), asServer), ""},
		{"a root with the usage any alone", below(usages(whatever), withoutPath, withoutPath), ""},
		{"a leaf for Server Gated Crypto only", purposes(below(withoutPath, withoutPath, extension(oidExtKeyUsage, false, 0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1)), asServer), ""},
		{"a Netscape type for clients at a leaf", purposes(below(withoutPath, withoutPath, extension(oidNetscapeType, false, 3, 2, 7, 0x80)), asServer), ""},
		{"a Netscape type for both at a leaf", below(withoutPath, withoutPath, extension(oidNetscapeType, false, 3, 2, 6, 0xc0)), ""},
		{"a Netscape type for mail at an intermediate", below(withoutPath, extension(oidNetscapeType, false, 3, 2, 1, 2), withoutPath), ""},
		{"the leaf has no keyUsage", below(withoutPath, withoutPath, keyUses(0)), ""},
		{"keyUsage of a leaf with keyEncipherment only", purposes(below(withoutPath, withoutPath, both(withRSA(2048), keyUses(x509.KeyUsageKeyEncipherment))), asServer), ""},
		{"keyUsage of a leaf with keyEncipherment only, for clients", purposes(below(withoutPath, withoutPath, both(withRSA(2048), keyUses(x509.KeyUsageKeyEncipherment))), asClient), ""},
		{"keyUsage of a leaf with keyAgreement only", below(withoutPath, withoutPath, keyUses(x509.KeyUsageKeyAgreement)), ""},
		{"keyUsage of a leaf with contentCommitment only", below(withoutPath, withoutPath, keyUses(x509.KeyUsageContentCommitment)), ""},
		{"keyUsage of a leaf with keyCertSign only", below(withoutPath, withoutPath, keyUses(x509.KeyUsageCertSign)), ""},
		{"keyUsage of a leaf without a bit", below(withoutPath, withoutPath, extension(oidKeyUsage, true, 3, 1, 0)), ""},
	}
}

// limit makes name constraints.
func limit(change func(*x509.Certificate)) option {
	return with(func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = true; change(c) })
}

func permits(names ...string) option {
	return limit(func(c *x509.Certificate) { c.PermittedDNSDomains = names })
}
func excludes(names ...string) option {
	return limit(func(c *x509.Certificate) { c.ExcludedDNSDomains = names })
}

func addresses(allowed bool, cidr string) option {
	return limit(func(c *x509.Certificate) {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			panic(err)
		}
		if allowed {
			c.PermittedIPRanges = []*net.IPNet{network}
		} else {
			c.ExcludedIPRanges = []*net.IPNet{network}
		}
	})
}

func address(ip string) option {
	return with(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP(ip)} })
}

// directoryLimit is nameConstraints with a permitted directoryName, O=Art.
func directoryLimit(critical bool) option {
	return extension(oidNameConstraints, critical, 0x30, 0x16, 0xa0, 0x14, 0x30, 0x12, 0xa4, 0x10,
		0x30, 0x0e, 0x31, 0x0c, 0x30, 0x0a, 6, 3, 0x55, 4, 10, 0x0c, 3, 'A', 'r', 't')
}

func organization(name string) option {
	return with(func(c *x509.Certificate) { c.Subject.CommonName, c.Subject.Organization = "", []string{name} })
}

// constraintCases are name constraints (RFC 5280 §4.2.1.10).
func constraintCases() []verdictCase {
	return []verdictCase{
		{"a permitted DNS name", below(withoutPath, permits("test"), withoutPath), ""},
		{"a DNS name that is not permitted", below(withoutPath, permits("example"), withoutPath), ""},
		{"one DNS name of two is not permitted", below(withoutPath, permits("server.test"), dns("server.test", "other.test")), ""},
		{"an excluded DNS name", below(withoutPath, excludes("test"), withoutPath), ""},
		{"a DNS name that is not excluded", below(withoutPath, excludes("example"), withoutPath), ""},
		{"permitted by the intermediate, excluded by the root", below(excludes("server.test"), permits("test"), withoutPath), ""},
		{"a wildcard that reaches an excluded name", below(withoutPath, excludes("secret.test"), dns("*.test")),
			"crypto/x509 refuses a wildcard that stands for an excluded name as well, OpenSSL compares the text"},
		{"a constraint in capitals", below(withoutPath, permits("TEST"), withoutPath), ""},
		{"a constraint with a leading dot", below(withoutPath, permits(".test"), withoutPath), ""},
		{"a constraint of the root that the leaf breaks", below(permits("example"), withoutPath, withoutPath), ""},
		{"a permitted address", below(withoutPath, addresses(true, "10.0.0.0/8"), both(dns(), address("10.1.2.3"))), ""},
		{"an address that is not permitted", below(withoutPath, addresses(true, "10.0.0.0/8"), both(dns(), address("192.0.2.1"))), ""},
		{"an excluded address", below(withoutPath, addresses(false, "10.0.0.0/8"), address("10.1.2.3")), ""},
		{"an address that is not excluded", below(withoutPath, addresses(false, "10.0.0.0/8"), address("192.0.2.1")), ""},
		{"an address of IPv6 that is not permitted", below(withoutPath, addresses(true, "2001:db8::/32"), both(dns(), address("2001:db9::1"))), ""},
		{"a common name that is not permitted, without a DNS name", below(withoutPath, permits("example"), both(dns(), address("10.1.2.3"), commonName("server.test"))), ""},
		{"a common name that is not permitted, beside a permitted DNS name", below(withoutPath, permits("test"), commonName("server.example")), ""},
		{"a permitted organization", below(withoutPath, directoryLimit(true), organization("Art")), "crypto/x509 knows no constraints of directory names: peers in Go refuse the chain"},
		{"an organization that is not permitted", below(withoutPath, directoryLimit(true), organization("Bart")), ""},
		{"the same, not critical", below(withoutPath, directoryLimit(false), organization("Bart")), ""},
		{"a wildcard wider than what is permitted", below(withoutPath, permits("a.server.test"), dns("*.server.test")), ""},
		{"an address of mail in the subject that is not permitted", below(withoutPath, limit(func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"art.test"} }), with(func(c *x509.Certificate) {
			c.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("me@bart.test")}}}
		})), ""},
		{"a registered ID that is not permitted, not critical", below(withoutPath, extension(oidNameConstraints, false, 0x30, 8, 0xa0, 6, 0x30, 4, 0x88, 2, 0x2a, 3),
			extension(oidAltName, false, append(dnsNames(serverName)[:0:0], 0x30, 0x11, 0x82, 11, 's', 'e', 'r', 'v', 'e', 'r', '.', 't', 'e', 's', 't', 0x88, 2, 0x2a, 4)...)), ""},
		{"constraints at a leaf", below(withoutPath, withoutPath, permits("test")), ""},
		{"constraints that are broken DER", below(withoutPath, extension(oidNameConstraints, true, 0x30, 0x7f), withoutPath), ""},
	}
}

func commonName(name string) option {
	return with(func(c *x509.Certificate) { c.Subject.CommonName = name })
}

// list makes a revocation list of issuer.
func (p pki) list(issuer *certified, from, until time.Duration, revoked ...*certified) []byte {
	p.Helper()
	return p.listWith(issuer, &x509.RevocationList{ThisUpdate: time.Now().Add(from), NextUpdate: time.Now().Add(until)}, revoked...)
}

// part makes a list that has an extension more.
func (p pki) part(issuer *certified, critical bool, id asn1.ObjectIdentifier, value ...byte) []byte {
	p.Helper()
	return p.listWith(issuer, &x509.RevocationList{
		ThisUpdate: time.Now().Add(-certtest.Day), NextUpdate: time.Now().Add(30 * certtest.Day), ExtraExtensions: []pkix.Extension{{Id: id, Critical: critical, Value: value}},
	})
}

func (p pki) listWith(issuer *certified, tpl *x509.RevocationList, revoked ...*certified) []byte {
	p.Helper()
	tpl.Number = big.NewInt(1)
	for _, c := range revoked {
		tpl.RevokedCertificateEntries = append(tpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: p.parsed(c).SerialNumber, RevocationTime: time.Now().Add(-time.Hour)})
	}
	by := *p.parsed(issuer)
	by.KeyUsage |= x509.KeyUsageCRLSign // whether it may is up to those who read the list
	der, err := x509.CreateRevocationList(rand.Reader, tpl, &by, issuer.key)
	certtest.Must(p, err)
	return der
}

func (p pki) parsed(c *certified) *x509.Certificate {
	p.Helper()
	cert, err := x509.ParseCertificate(c.der)
	certtest.Must(p, err)
	return cert
}

// listCases are revocation lists beside a sound chain.
func listCases() []verdictCase {
	signs := with(mayRevoke)
	under := func(lists func(p pki, root, leaf *certified) [][]byte) func(pki) *madeFiles {
		return func(p pki) *madeFiles {
			p.Helper()
			root := p.root("Root", signs)
			leaf := p.leaf(root)
			return p.chain(leaf).trust(root).lists(lists(p, root, leaf)...)
		}
	}
	return []verdictCase{
		{"an empty list", under(func(p pki, root, _ *certified) [][]byte {
			return [][]byte{p.list(root, -certtest.Day, 30*certtest.Day)}
		}), ""},
		{"a list of others", under(func(p pki, root, _ *certified) [][]byte {
			return [][]byte{p.list(root, -certtest.Day, 30*certtest.Day, p.leaf(root))}
		}), ""},
		{"revoked", under(func(p pki, root, leaf *certified) [][]byte {
			return [][]byte{p.list(root, -certtest.Day, 30*certtest.Day, leaf)}
		}), ""},
		{"revoked by the second of two lists", under(func(p pki, root, leaf *certified) [][]byte {
			return [][]byte{p.list(p.root("Stranger", signs), -certtest.Day, 30*certtest.Day), p.list(root, -certtest.Day, 30*certtest.Day, leaf)}
		}), ""},
		{"a list that is out of date", under(func(p pki, root, _ *certified) [][]byte {
			return [][]byte{p.list(root, -30*certtest.Day, -certtest.Day)}
		}), ""},
		{"revoked by a list that is out of date", under(func(p pki, root, leaf *certified) [][]byte {
			return [][]byte{p.list(root, -30*certtest.Day, -certtest.Day, leaf)}
		}), ""},
		{"a list that is not yet valid", under(func(p pki, root, _ *certified) [][]byte { return [][]byte{p.list(root, certtest.Day, 30*certtest.Day)} }), ""},
		{"a list of somebody else", under(func(p pki, _, _ *certified) [][]byte {
			return [][]byte{p.list(p.root("Stranger", signs), -certtest.Day, 30*certtest.Day)}
		}), ""},
		{"a list that somebody else signed in the name of the root", under(func(p pki, _, _ *certified) [][]byte {
			return [][]byte{p.list(p.root("Root", signs), -certtest.Day, 30*certtest.Day)}
		}), ""},
		{"revoked in such a list", under(func(p pki, _, leaf *certified) [][]byte {
			return [][]byte{p.list(p.root("Root", signs), -certtest.Day, 30*certtest.Day, leaf)}
		}), ""},
		{"a delta list alone", under(func(p pki, root, _ *certified) [][]byte { return [][]byte{p.part(root, true, oidDelta, 2, 1, 1)} }), ""},
		{"a list of authorities only", under(func(p pki, root, _ *certified) [][]byte {
			return [][]byte{p.part(root, true, oidIssuingPoint, 0x30, 3, 0x82, 1, 0xff)}
		}), ""},
		{"a list of leaves only", under(func(p pki, root, _ *certified) [][]byte {
			return [][]byte{p.part(root, true, oidIssuingPoint, 0x30, 3, 0x81, 1, 0xff)}
		}), ""},
		{"a list of some reasons only", under(func(p pki, root, _ *certified) [][]byte {
			return [][]byte{p.part(root, true, oidIssuingPoint, 0x30, 4, 0x83, 2, 6, 0x40)}
		}), ""},
		{"a list with a critical extension that nobody knows", under(func(p pki, root, _ *certified) [][]byte { return [][]byte{p.part(root, true, oidPrivate, 5, 0)} }), ""},
		{"a list with an extension that nobody knows and need not", under(func(p pki, root, _ *certified) [][]byte { return [][]byte{p.part(root, false, oidPrivate, 5, 0)} }), ""},
		{"lists of the root and of the intermediate", func(p pki) *madeFiles {
			root := p.root("Root", signs)
			mid := p.ca(root, "Intermediate", signs)
			return p.chain(p.leaf(mid), mid).trust(root).lists(p.list(root, -certtest.Day, 30*certtest.Day), p.list(mid, -certtest.Day, 30*certtest.Day))
		}, ""},
		{"the issuer may not sign lists", func(p pki) *madeFiles {
			root := p.root("Root")
			return p.chain(p.leaf(root)).trust(root).lists(p.list(root, -certtest.Day, 30*certtest.Day))
		}, ""},
		{"a list of the root for a chain with an intermediate", func(p pki) *madeFiles {
			root := p.root("Root", signs)
			mid := p.ca(root, "Intermediate", signs)
			return p.chain(p.leaf(mid), mid).trust(root).lists(p.list(root, -certtest.Day, 30*certtest.Day))
		}, ""},
	}
}

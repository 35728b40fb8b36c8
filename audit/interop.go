package audit

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/openssl"
	"github.com/artstore/artstore-pki/internal/certs"
)

const remedyOnePath = "leave out what is not on the path to the bundle, or issue with key identifiers, which tell issuers of one name apart"

// notInteroperable finds certificates that OpenSSL refuses and crypto/x509 accepts. Services
// in Go, and nginx, PostgreSQL and curl, verify the same certificates.
func notInteroperable(s *Subject, at criteria) (Severity, string) {
	c := s.Cert.X509()
	if flaw := openssl.Flaw(c); flaw != "" {
		return Crit, "it " + flaw
	}
	if !s.Leaf() {
		return severityOK, ""
	}
	if text := s.barredByOpenSSL(); text != "" {
		return Crit, text
	}
	r := s.ruling(at)
	if r.verdict != chainFine || len(r.paths) == 0 {
		return severityOK, "" // not verified, or another check reports why
	}
	moment := momentIn(s.Cert, at.now)
	path, end := openssl.Path(c, openssl.Given{Sent: at.indexes.of(s.Chain), Trusted: at.indexes.of(s.Bundle), Now: moment})
	if severity, text := onePath(path, end, r.paths, moment); severity != severityOK {
		s.remedy = remedyOnePath
		return severity, text
	}
	return issuersOnPath(path)
}

// barredByOpenSSL returns why OpenSSL accepts the leaf for none of the wanted usages of TLS,
// or not for one that the leaf names. It returns "" if OpenSSL accepts it.
func (s *Subject) barredByOpenSSL() (text string) {
	uses, explicit := s.wanted()
	for _, use := range uses {
		switch c := s.Cert.X509(); {
		case openssl.Bars(c, use):
			text = "its Netscape certificate type is not that of TLS " + users[use]
		case permits(c, use) == permittedByAny:
			text = "its usage is any, in place of that of TLS " + users[use]
		case !explicit:
			return ""
		}
	}
	return text
}

// onePath judges the path that OpenSSL tries, and where it ends. OpenSSL does not try a
// second one. The verified paths need no further signature check.
func onePath(path []*x509.Certificate, end openssl.End, verified [][]*x509.Certificate, moment time.Time) (Severity, string) {
	switch end {
	case openssl.Astray:
		return Crit, "of the paths to the trust bundle OpenSSL tries one, which ends at " + cert.FromX509(path[len(path)-1]).Name
	case openssl.Ambiguous:
		return Warn, "the trust bundle has several keys under one name, and OpenSSL tries one of them: no key identifier tells which"
	case openssl.Rooted:
	}
	if slices.ContainsFunc(verified, func(p []*x509.Certificate) bool { return slices.EqualFunc(p, path, (*x509.Certificate).Equal) }) {
		return severityOK, ""
	}
	top := len(path) - 1
	if _, err := path[0].Verify(x509.VerifyOptions{
		Roots: certs.Pool(path[top:]...), Intermediates: certs.Pool(path[1:max(top, 1)]...), CurrentTime: moment, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return Crit, "of the paths to the trust bundle OpenSSL tries one, which does not verify: " + err.Error()
	}
	return severityOK, ""
}

// issuersOnPath judges the issuers on a path. They may have no row of their own, because the
// bundle need not be part of the audit.
func issuersOnPath(path []*x509.Certificate) (Severity, string) {
	for _, c := range path[1:] {
		k := cert.KeyKindOf(c)
		switch flaw := openssl.Flaw(c); {
		case flaw != "":
			return Crit, "its issuer " + cert.FromX509(c).Name + " " + flaw
		case k.Algorithm == "RSA" && k.Bits < leastRSA:
			return Crit, "the key of its issuer " + cert.FromX509(c).Name + " is weak: " + k.String()
		}
	}
	by, limit, broken := openssl.Limit(path)
	switch {
	case by == nil:
		return severityOK, ""
	case broken:
		return Crit, limit + " of its issuer " + cert.FromX509(by).Name
	}
	return Warn, limit + " of its issuer " + cert.FromX509(by).Name
}

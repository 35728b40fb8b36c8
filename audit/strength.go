package audit

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// keyMismatch finds certificates beside a key that is not theirs.
func keyMismatch(s *Subject, _ criteria) (Severity, string) {
	if s.Key == nil || s.Key.Fits || s.Key.Opaque {
		return severityOK, ""
	}
	return Crit, "the key in " + s.Key.Path + " does not fit"
}

// keyNotCompared reports a key that could not be compared. Without it, a row without a
// finding about its key would not mean that the key fits.
func keyNotCompared(s *Subject, _ criteria) (Severity, string) {
	if s.Key == nil || !s.Key.Opaque {
		return severityOK, ""
	}
	return Info, "whether the key in " + s.Key.Path + " fits is unknown: " + s.Key.WhyOpaque()
}

// keyReadable finds certificates whose key other accounts may read.
func keyReadable(s *Subject, _ criteria) (Severity, string) {
	if s.Key == nil {
		return severityOK, ""
	}
	text := s.Key.Exposed()
	if text == "" {
		return severityOK, ""
	}
	return exposedSeverity(s.Cert.IsCA), "others may use its key: " + text
}

// nameMismatch finds servers whose certificate does not have the name by which a client
// reaches them (RFC 9525 §6).
func nameMismatch(s *Subject, _ criteria) (Severity, string) {
	if s.Host == "" || !s.Leaf() || s.Cert.X509().VerifyHostname(s.Host) == nil {
		return severityOK, ""
	}
	return Crit, "it does not have the name " + s.Host
}

// noNames finds leaves for servers without the extension subjectAltName (RFC 9525 §6). It
// looks for the extension and not for names, because Go does not parse each kind of name.
func noNames(s *Subject, _ criteria) (Severity, string) {
	if !s.Leaf() || !allows(s.Cert, x509.ExtKeyUsageServerAuth) {
		return severityOK, ""
	}
	if s.Cert.HasAltNames {
		return severityOK, ""
	}
	return Warn, "no subject alternative name: clients do not look at the common name"
}

// allows reports whether a certificate permits a usage. One without the extension permits
// all (RFC 5280 §4.2.1.12).
func allows(c *cert.Certificate, use x509.ExtKeyUsage) bool {
	return len(c.ExtKeyUsage) == 0 && !c.OtherUsages && !c.NoUsage ||
		slices.Contains(c.ExtKeyUsage, use) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// The shortest keys that are not weak, in bits.
const (
	leastRSA   = 2048
	leastCurve = 256
)

// weakKey finds keys that are too short, of DSA, or too long to compute with.
func weakKey(s *Subject, _ criteria) (Severity, string) {
	k := s.Cert.Key
	if k.Oversized() {
		return Crit, fmt.Sprintf("%s: peers compute with %d bits at most, and nothing is verified with it here", k, pubkey.MaxRSA)
	}
	weak := k.Algorithm == "DSA" || k.Algorithm == "RSA" && k.Bits < leastRSA ||
		strings.HasPrefix(k.Algorithm, "ECDSA") && k.Bits < leastCurve
	if !weak {
		return severityOK, ""
	}
	return Crit, "weak key: " + k.String()
}

var weakSignatures = []x509.SignatureAlgorithm{
	x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
}

// weakSignature finds signatures with a broken hash. Self-issued certificates are left out:
// a root is trusted because it is in the bundle, and nobody verifies its signature.
func weakSignature(s *Subject, _ criteria) (Severity, string) {
	if s.Cert.SelfIssued() || !slices.Contains(weakSignatures, s.Cert.SignatureAlgorithm) {
		return severityOK, ""
	}
	return Crit, "weak signature: " + s.Cert.SignatureAlgorithm.String()
}

// wrongUsage compares the usages of a certificate (RFC 5280 §4.2.1.3, §4.2.1.12) with its
// kind, and with its use if that is known.
func wrongUsage(s *Subject, _ criteria) (Severity, string) {
	c := s.Cert
	says := func(u x509.KeyUsage) bool { return c.KeyUsage&u != 0 }
	forTLS := allows(c, x509.ExtKeyUsageServerAuth) || allows(c, x509.ExtKeyUsageClientAuth)
	switch {
	case c.KeyUsage != 0 && s.Authority() && !says(x509.KeyUsageCertSign):
		return Crit, "it is an authority's and may not sign certificates: no chain through it verifies"
	case s.Authority():
		return severityOK, ""
	case s.Kind == KindEndpoint && !allows(c, x509.ExtKeyUsageServerAuth):
		return Crit, "a server shows it, and it is not for servers"
	case forTLS && c.BarsTLS():
		return Crit, "its key usage allows nothing that TLS needs"
	case !forTLS && c.HasHostNames:
		return Warn, "it has names of hosts, and its usages allow neither servers nor clients of TLS"
	case c.IsCA:
		return Warn, "it is an authority's, and is used as a leaf: with its key certificates can be issued"
	case says(x509.KeyUsageCertSign):
		return Warn, "it may sign certificates, and is no authority's"
	case c.KeyUsage != 0 && forTLS && !says(x509.KeyUsageDigitalSignature):
		return Warn, "it may not sign, as every handshake of TLS 1.3 does"
	}
	return severityOK, ""
}

// sharedKeys finds certificates with the same public key and another name. Certificates of
// the same name are copies or renewals. The row of the first certificate was written
// before the second one came, so the second one has the finding, which names the first.
func sharedKeys(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if !r.parsed() {
			return severityOK, ""
		}
		if first, _ := v.owner(r.Cert.PublicKeyInfo); first.name != r.Cert.Name {
			return Warn, "its key is also that of " + first.name + " in " + first.place
		}
		return severityOK, ""
	}
}

// oldProtocol judges the version of TLS that a server has chosen, and the oldest one that it
// accepts. TLS 1.0 and 1.1 must not be used (RFC 8996).
func oldProtocol(s *Subject, _ criteria) (Severity, string) {
	if s.TLS == nil || s.TLS.Version == 0 {
		return severityOK, ""
	}
	var text string
	if s.TLS.Version < tls.VersionTLS13 {
		text = "it speaks " + s.Protocol() + " to a client that offers TLS 1.3"
	}
	switch {
	case s.OldestVersion == 0 && text == "":
		return severityOK, ""
	case s.OldestVersion == 0:
		return Warn, text
	case text == "":
		return Warn, "it also accepts " + tls.VersionName(s.OldestVersion)
	}
	return Warn, text + ", and also accepts " + tls.VersionName(s.OldestVersion)
}

// oddFile finds certificates that other programs do not read because of the form of the
// file, and keys for which that is so.
func oddFile(s *Subject, _ criteria) (Severity, string) {
	o, where := s.Oddity, ""
	if o == nil && s.Key != nil {
		o, where = s.Key.Oddity, "in the file of its key "
	}
	if o == nil {
		return severityOK, ""
	}
	if o.UnreadByAll {
		return Crit, where + o.Text
	}
	return Warn, where + o.Text
}

// exposedSeverity returns the severity for a key that others may read. That of an authority
// is worse, because its reader can issue certificates.
func exposedSeverity(authority bool) Severity {
	if authority {
		return Crit
	}
	return Warn
}

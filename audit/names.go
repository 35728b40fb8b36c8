package audit

import (
	"fmt"
	"net/netip"
	"strings"
)

// oddName finds DNS names that clients do not read as they were meant.
func oddName(s *Subject, _ criteria) (Severity, string) {
	if !s.Leaf() {
		return severityOK, ""
	}
	for _, name := range s.Cert.X509().DNSNames {
		if why := odd(name); why != "" {
			return Warn, fmt.Sprintf("%q %s", name, why)
		}
	}
	return severityOK, ""
}

// odd returns what is wrong with a DNS name in a certificate, or "". Wildcards follow RFC
// 9525 §6.3: "*" is the whole first label.
func odd(name string) string {
	address := strings.Contains(name, ":") || name != "" && name[len(name)-1] <= '9' // only then it is worth parsing
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); address && err == nil {
		return "is an address among the DNS names, where clients do not look for addresses"
	}
	rest, wild := strings.CutPrefix(name, "*.")
	switch {
	case strings.Contains(rest, "*"):
		return "has a wildcard that is not the whole first label and nothing else"
	case wild && !strings.Contains(rest, "."):
		return "is a wildcard for a whole top-level domain, which clients do not take"
	}
	return ""
}

// sameSerial finds two certificates of one issuer with the same serial number, which RFC 5280
// §4.1.2.2 forbids. The row of the first one was written before the second one came, so
// the second one has the finding.
func sameSerial(v *inventory) func(*Row) (Severity, string) {
	type holder struct {
		cert, key, keyID uint64 // hashes; of the issuer, as far as they are known
		at               foundID
	}
	holders := map[uint64]holder{}
	return func(r *Row) (Severity, string) {
		if !r.parsed() {
			return severityOK, ""
		}
		c := r.Cert
		at := v.hash([]byte(c.Serial), c.RawIssuer)
		this := holder{cert: v.hash(c.Fingerprint[:]), keyID: v.hash(c.AuthorityKeyID()), at: v.current}
		switch {
		case c.SelfIssued():
			this.key = v.hash(c.PublicKeyInfo)
		case r.ruled != nil && len(r.ruled.paths) > 0 && len(r.ruled.paths[0]) > 1:
			this.key = v.hash(r.ruled.paths[0][1].RawSubjectPublicKeyInfo)
		}
		first, known := holders[at]
		if !known {
			holders[at] = this
		}
		if !known || first.cert == this.cert {
			return severityOK, ""
		}
		other := v.found[first.at]
		text := "its serial number is also that of " + other.name + " in " + other.place + ", by the same issuer"
		same := func(a, b uint64) (equal, known bool) { return a == b, a != 0 && b != 0 }
		byKey, keys := same(first.key, this.key)
		byID, ids := same(first.keyID, this.keyID)
		switch {
		case keys && byKey, !keys && ids && byID:
			return Crit, text
		case keys, ids:
			return severityOK, "" // another authority of the same name
		}
		return Warn, text + " as far as its name says"
	}
}

package audit

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/wording"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// limit is the longest validity of certificates that are issued from a day on.
type limit struct {
	from time.Time
	days int
	who  string // the beginning of a sentence that ends with the days
}

// limits are a table of limits, sorted by their first day. Each holds until the next one.
type limits []limit

var (
	// appleLimits hold for all server certificates, also those of private authorities.
	appleLimits = limits{{date(2019, time.July, 1), 825, "Apple's platforms refuse a server's beyond"}}
	// publicLimits are the CA/Browser Forum's, Baseline Requirements §6.3.2.
	publicLimits = limits{
		{date(2018, time.March, 1), 825, publicRule}, {date(2020, time.September, 1), 398, publicRule},
		{date(2026, time.March, 15), 200, publicRule}, {date(2027, time.March, 15), 100, publicRule}, {date(2029, time.March, 15), 47, publicRule},
	}
)

const publicRule = "the Baseline Requirements that it names allow"

// date returns the beginning of a day in UTC.
func date(year int, month time.Month, d int) time.Time {
	return time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
}

// at returns the limit for a certificate that was issued at a time, or nil before the first.
func (l limits) at(issued time.Time) (last *limit) {
	for i := range l {
		if !issued.Before(l[i].from) {
			last = &l[i]
		}
	}
	return last
}

// publicPolicy is the beginning of the DER of the policy identifiers 2.23.140.1.2.* of the
// CA/Browser Forum. A certificate with one of them promises to follow its rules.
var publicPolicy = []byte{0x06, 0x06, 0x67, 0x81, 0x0c, 0x01, 0x02}

// longLived finds leaves with a longer validity than the operator's policy allows, or than
// clients accept.
func longLived(s *Subject, at criteria) (Severity, string) {
	if !s.Leaf() {
		return severityOK, ""
	}
	c := s.Cert
	valid := humantime.Between(c.NotBefore, c.NotAfter)
	if at.longest > 0 && c.Life() > humantime.InSeconds(at.longest) {
		return Warn, fmt.Sprintf("it lives %s, longer than the %s of your policy", humantime.Short(c.Life()), humantime.Short(humantime.InSeconds(at.longest)))
	}
	var rules []*limit
	if bytes.Contains(c.Raw, publicPolicy) {
		rules = append(rules, publicLimits.at(c.NotBefore))
	}
	if allows(c, x509.ExtKeyUsageServerAuth) {
		rules = append(rules, appleLimits.at(c.NotBefore))
	}
	for _, l := range rules {
		if l != nil && valid > humantime.Seconds(l.days)*wording.Day {
			return Warn, fmt.Sprintf("it lives %s: %s %d days", humantime.Short(valid), l.who, l.days)
		}
	}
	return severityOK, ""
}

// hybrids are the key exchanges that a quantum computer does not break.
var hybrids = map[tls.CurveID]bool{tls.X25519MLKEM768: true, tls.SecP256r1MLKEM768: true, tls.SecP384r1MLKEM1024: true}

// keyExchangeOld finds servers that did not choose a hybrid key exchange, although the audit
// has offered one. Hybrid key exchanges need TLS 1.3; the check tls-version reports older
// servers.
func keyExchangeOld(s *Subject, _ criteria) (Severity, string) {
	if s.TLS == nil || s.TLS.CurveID == 0 || s.TLS.Version < tls.VersionTLS13 || hybrids[s.TLS.CurveID] {
		return severityOK, ""
	}
	return Info, "it exchanges keys by " + s.KeyExchange() + ", which is not post-quantum"
}

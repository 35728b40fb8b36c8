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

// limit is the longest validity of what is issued from a day on.
type limit struct {
	from time.Time
	days int
	who  string
}

// limits are in force until the next one of the same table is.
type limits []limit

var (
	// appleLimits are for all server certificates, also those of private authorities.
	appleLimits = limits{{date(2019, time.July, 1), 825, "Apple's platforms refuse a server's beyond"}}
	// publicLimits are the CA/Browser Forum's, Baseline Requirements §6.3.2.
	publicLimits = limits{
		{date(2018, time.March, 1), 825, publicRule}, {date(2020, time.September, 1), 398, publicRule},
		{date(2026, time.March, 15), 200, publicRule}, {date(2027, time.March, 15), 100, publicRule}, {date(2029, time.March, 15), 47, publicRule},
	}
)

const publicRule = "the Baseline Requirements that it names allow"

func date(year int, month time.Month, d int) time.Time {
	return time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
}

// at is the limit for what was issued at a time; nil before the first.
func (l limits) at(issued time.Time) (last *limit) {
	for i := range l {
		if !issued.Before(l[i].from) {
			last = &l[i]
		}
	}
	return last
}

// publicPolicy is how the reserved policy identifiers of the CA/Browser Forum
// begin, 2.23.140.1.2.*, in DER: who names one follows its rules.
var publicPolicy = []byte{0x06, 0x06, 0x67, 0x81, 0x0c, 0x01, 0x02}

// longLived judges the whole validity of leaves: by the operator's policy if
// there is one, and by those of others that will refuse it.
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

// keyExchangeOld looks at servers that agreed to an older key exchange although
// the audit offered a hybrid one. Before TLS 1.3 there is none, and another check.
func keyExchangeOld(s *Subject, _ criteria) (Severity, string) {
	if s.TLS == nil || s.TLS.CurveID == 0 || s.TLS.Version < tls.VersionTLS13 || hybrids[s.TLS.CurveID] {
		return severityOK, ""
	}
	return Info, "it exchanges keys by " + s.KeyExchange() + ", which is not post-quantum"
}

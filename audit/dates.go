package audit

import (
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// neverValid finds a certificate that ends before it begins. No other check of dates
// reports such a certificate.
func neverValid(s *Subject, _ criteria) (Severity, string) {
	if !s.Cert.Inverted() {
		return severityOK, ""
	}
	return Crit, "it is never valid: it ends " + humantime.Short(humantime.Between(s.Cert.NotAfter, s.Cert.NotBefore)) + " before it begins"
}

// expired finds certificates that have ended. The last second of a certificate, notAfter
// itself (RFC 5280 §4.1.2.5), counts as ended.
func expired(s *Subject, at criteria) (Severity, string) {
	if at.now.Before(s.Cert.NotAfter) || s.Cert.Inverted() {
		return severityOK, ""
	}
	return Crit, "expired " + humantime.Short(humantime.Between(s.Cert.NotAfter, at.now)) + " ago"
}

// notYetValid finds certificates that begin later than now.
func notYetValid(s *Subject, at criteria) (Severity, string) {
	if !at.now.Before(s.Cert.NotBefore) || s.Cert.Inverted() {
		return severityOK, ""
	}
	return Crit, "not valid for another " + humantime.Short(humantime.Between(at.now, s.Cert.NotBefore))
}

// overdue finds certificates that a program should have renewed by now (package lifetime).
func overdue(s *Subject, at criteria) (Severity, string) {
	if !s.AutoRenewed() || s.Cert.Inverted() || !at.now.Before(s.Cert.NotAfter) {
		return severityOK, ""
	}
	why, late := lifetime.Overdue(s.Cert.NotBefore, s.Cert.NotAfter, at.now)
	if !late {
		return severityOK, ""
	}
	return Crit, "renewal overdue: " + why
}

// expiring finds leaves that people renew and that are near their end.
func expiring(s *Subject, at criteria) (Severity, string) {
	left := humantime.Between(at.now, s.Cert.NotAfter)
	if s.AutoRenewed() || s.Authority() || !at.now.Before(s.Cert.NotAfter) || s.Cert.Inverted() {
		return severityOK, ""
	}
	var severity Severity
	switch life := s.Cert.Life(); {
	case left <= at.crit.window(life):
		severity = Crit
	case left <= at.warn.window(life):
		severity = Warn
	default:
		return severityOK, ""
	}
	return severity, "expires in " + humantime.Short(left)
}

// chainEnds finds leaves that end after an issuer above them: peers refuse a leaf from the
// end of its issuer on. If several paths verify it, the one that lasts longest counts.
func chainEnds(s *Subject, at criteria) (Severity, string) {
	r := s.ruling(at)
	// A difference below a thousandth of the life is the time between two commands that made
	// issuer and leaf.
	if r.last == nil || r.verdict == chainInvalid || humantime.Between(r.last.NotAfter, s.Cert.NotAfter) <= s.Cert.Life()/1000 || !at.now.Before(s.Cert.NotAfter) {
		return severityOK, ""
	}
	left, severity := humantime.Between(at.now, r.last.NotAfter), Warn
	if left <= at.crit.window(s.Cert.Life()) {
		severity = Crit
	}
	return severity, "its chain ends in " + humantime.Short(left) + " with " + cert.FromX509(r.last).Name + ", " +
		humantime.Short(humantime.Between(r.last.NotAfter, s.Cert.NotAfter)) + " before it does itself"
}

// authorityShare is the part of its life, as a divisor, that an authority should have left
// at least. Before its end all certificates below it have to be issued again.
const authorityShare = 10

// maxBelow bounds the authorities for which the longest life of a leaf is remembered.
const maxBelow = 4 << 10

// authorityExpiring finds authorities near their end. An authority that has less time left
// than its leaves live can issue no leaf of that life any more, so the leaves below it
// count too. That works because rows of authorities come after those of leaves.
func authorityExpiring(v *inventory) func(*Row) (Severity, string) {
	below := map[string]humantime.Seconds{} // the longest life of a leaf, by the subject of an authority above it
	return func(r *Row) (Severity, string) {
		if r.Leaf() {
			for _, name := range r.above() {
				if _, known := below[name]; known || len(below) < maxBelow {
					below[name] = max(below[name], r.Cert.Life())
				}
			}
		}
		c := r.Cert
		if c == nil || !r.Authority() || !r.Judged.Before(c.NotAfter) || c.Inverted() {
			return severityOK, ""
		}
		left, whole := humantime.Between(r.Judged, c.NotAfter), c.Life()
		text := "expires in " + humantime.Short(left)
		// The limit of a third keeps a leaf that lives nearly as long as its authority from
		// making a warning of the authority from its first day on.
		longest := min(below[string(c.RawSubject)], whole/3)
		switch {
		case left <= v.crit.window(whole):
			return Crit, text
		case left <= v.warn.window(whole):
			return Warn, text
		case left <= longest:
			return Warn, text + ", and leaves below it live " + humantime.Short(below[string(c.RawSubject)])
		case left <= whole/authorityShare:
			return Warn, text + ", less than a tenth of its life"
		}
		return severityOK, ""
	}
}

// above returns the subjects of the authorities above a leaf. Without a verified path only
// the issuer is known.
func (r *Row) above() []string {
	if r.ruled == nil || len(r.ruled.paths) == 0 {
		return []string{string(r.Cert.RawIssuer)}
	}
	var out []string
	for _, c := range r.ruled.paths[0][1:] {
		out = append(out, string(c.RawSubject))
	}
	return out
}

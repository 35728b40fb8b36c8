package audit

import (
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// neverValid is the only thing to say about the dates of such a certificate.
func neverValid(s *Subject, _ criteria) (Severity, string) {
	if !s.Cert.Inverted() {
		return severityOK, ""
	}
	return Crit, "it is never valid: it ends " + humantime.Short(humantime.Between(s.Cert.NotAfter, s.Cert.NotBefore)) + " before it begins"
}

func expired(s *Subject, at criteria) (Severity, string) {
	if at.now.Before(s.Cert.NotAfter) || s.Cert.Inverted() {
		return severityOK, ""
	}
	return Crit, "expired " + humantime.Short(humantime.Between(s.Cert.NotAfter, at.now)) + " ago"
}

func notYetValid(s *Subject, at criteria) (Severity, string) {
	if !at.now.Before(s.Cert.NotBefore) || s.Cert.Inverted() {
		return severityOK, ""
	}
	return Crit, "not valid for another " + humantime.Short(humantime.Between(at.now, s.Cert.NotBefore))
}

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

// chainEnds is found at a leaf that lives longer than what certifies it: from then
// on peers refuse it. Of several paths the one that lasts longest counts.
func chainEnds(s *Subject, at criteria) (Severity, string) {
	r := s.ruling(at)
	// Less than a thousandth of its life is what passes between two commands.
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

// authorityShare is the part of its life from which on the end of an authority is
// near at the latest: all that it has issued has to be issued again before.
const authorityShare = 10

// maxBelow bounds the authorities whose leaves are remembered.
const maxBelow = 4 << 10

// authorityExpiring judges authorities by the leaves below them as well: one that has
// less time left than they live can issue none that lasts as long. Rows of authorities
// come after those of leaves.
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
		// A leaf that lives nearly as long as its authority does not make that a warning from the first day on.
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

// above are the subjects of the authorities above a leaf, as far as that is known.
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

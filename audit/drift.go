package audit

import (
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// What lies on disk, what servers show and what the authority has recorded
// should be the same. These checks say where they are not. Identity is that of
// the whole certificate, by its hash; succession is the record's lineage and
// without a record the same names, because renewals have new keys.

// checkReplaced finds servers that show a certificate which has a successor. The
// record knows that for certain; without it, a newer one with the same names on
// disk says so, unless the older one lies there too: then they are replicas.
func checkReplaced(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != KindEndpoint || !r.Leaf() {
			return severityOK, ""
		}
		id := r.Cert.ID()
		if e, known := v.recorded[id]; known {
			return e.line.replacedSince(id, r.Judged)
		}
		next := v.newest[v.nameHash(r.Cert)]
		if v.onDisk[id] || !next.notBefore.After(r.Cert.NotBefore) || !pastGrace(next.notBefore, next.notAfter, r.Judged) {
			return severityOK, ""
		}
		return Warn, "a server shows it, and one with the same names that is " + humantime.Short(humantime.Between(r.Cert.NotBefore, next.notBefore)) +
			" younger lies in " + next.place
	}
}

func (l *lineage) replacedSince(id cert.ID, now time.Time) (Severity, string) {
	if l.id == id || l.head.Revoked || !pastGrace(l.head.NotBefore, l.head.NotAfter, now) {
		return severityOK, ""
	}
	ago := humantime.Short(humantime.Between(lifetime.IssuedAt(l.head.NotBefore, l.head.NotAfter), now))
	text := "a server shows it, and it was replaced " + ago + " ago by " + l.serial() + ", "
	if l.disk != "" {
		return Warn, text + "which lies in " + l.disk
	}
	return Warn, text + "which was not found on disk"
}

// notSeen finds what the authority has issued and nobody seems to have. Whoever
// looks at one machine sees little of a fleet, so that is no alarm by itself; it
// is one if the certificate before it is still there.
func notSeen(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != kindRecord || !r.Lineage || !r.Leaf() || !v.looked || v.torn {
			return severityOK, ""
		}
		l := v.recorded[r.Cert.ID()].line
		switch {
		case l == nil || l.disk != "" || l.wire != "" || !r.Judged.Before(r.Cert.NotAfter):
			return severityOK, ""
		case !pastGrace(r.Cert.NotBefore, r.Cert.NotAfter, r.Judged), v.young[v.nameHash(r.Cert)]:
			return severityOK, "" // on its way, or replaced while we looked
		case l.older != "":
			return Warn, "it was not found, and the one that it replaces is still in " + l.older
		}
		return Info, "it is in the record and was not found anywhere else"
	}
}

// notRecorded finds what is in use and not in the record. From another issuer
// that is how things are. From ours, somebody else has its key, or the record
// is not the whole one: nobody can revoke what is not in it. An intermediate that
// the authority has signed and does not know is worse than a leaf, because
// everything below it is trusted too.
func notRecorded(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if v.recorded == nil || v.torn || r.Kind == kindRecord || !r.parsed() || !r.Judged.Before(r.Cert.NotAfter) {
			return severityOK, ""
		}
		id := r.Cert.ID()
		if _, known := v.recorded[id]; known || v.signers[id] {
			return severityOK, ""
		}
		by, below := v.signer(r)
		switch {
		case by != nil && below != r.Cert:
			return Crit, below.Name + ", which " + by.Name + " signed and its record does not know, is above it"
		case by != nil && r.Leaf() && v.tooYoung(r.Cert):
			return severityOK, ""
		case by != nil:
			return Crit, by.Name + " signed it, and its record does not know it"
		case len(v.issuers[string(r.Cert.RawIssuer)]) > 0: // anybody can write a name into a certificate
			return Warn, "it says that " + r.Cert.IssuerName + " issued it, which has not signed it"
		case r.Leaf():
			return Info, "another authority than the record's issued it: " + r.Cert.IssuerName
		}
		return severityOK, ""
	}
}

// maxAbove bounds the certificates between a leaf and an authority of the record.
const maxAbove = 16

// signer follows the issuers of a row up to a certificate that one of the record's
// has signed. It returns both; nil if the path does not lead there.
func (v *inventory) signer(r *Row) (by, signed *cert.Certificate) {
	c := r.Cert
	for range maxAbove {
		if by := c.IssuerIn(v.issuers[string(c.RawIssuer)]); by != nil {
			return by, c
		}
		next := c.IssuerIn(r.Chain)
		if next == nil || next == c {
			break
		}
		c = next
	}
	return nil, nil
}

// issuer is whose key signed the leaf, as far as that is at hand.
func (r *Row) issuer() *cert.Certificate {
	if i := r.Cert.IssuerIn(r.Chain); i != nil {
		return i
	}
	return r.Cert.IssuerIn(r.Bundle)
}

// leastRenewals is how many make a habit.
const leastRenewals = 3

// renewerStopped finds lineages that were renewed more often than their life
// asks for, and no longer are. It is silent once renewal-overdue says the same.
func renewerStopped(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != kindRecord || !r.Lineage || !r.Leaf() {
			return severityOK, ""
		}
		l := v.recorded[r.Cert.ID()].line
		if l == nil || l.renewals < leastRenewals {
			return severityOK, ""
		}
		age := r.Judged.Sub(lifetime.IssuedAt(r.Cert.NotBefore, r.Cert.NotAfter))
		if _, late := lifetime.Overdue(r.Cert.NotBefore, r.Cert.NotAfter, r.Judged); late || age <= 2*l.longest {
			return severityOK, ""
		}
		return Warn, "it was renewed every " + humantime.Short(humantime.InSeconds(l.longest)) + " at least, has not been for " + humantime.Short(humantime.InSeconds(age)) +
			", and the next renewal was to be expected " + humantime.Short(humantime.InSeconds(age-l.longest)) + " ago"
	}
}

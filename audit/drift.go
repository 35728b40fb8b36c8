package audit

import (
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// What lies on disk, what servers show and what the authority has recorded
// should be the same. These checks say where they are not. Identity is that of
// the whole certificate, by its hash; succession is the record's lineage and
// without a record the same names, because renewals have new keys.

// replaced finds servers that show a certificate which has a successor. The
// record knows that for certain; without it, a newer one with the same names on
// disk says so, unless the older one lies there too: then they are replicas.
func replaced(v *view) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != kindEndpoint || !r.leaf() {
			return fine, ""
		}
		id := r.Cert.id()
		if e, known := v.recorded[id]; known {
			return e.line.replaced(id, r.Judged)
		}
		next := v.newest[v.holder(r.Cert)]
		if v.onDisk[id] || !next.notBefore.After(r.Cert.notBefore) || !settled(next.notBefore, next.notAfter, r.Judged) {
			return fine, ""
		}
		return Warn, "a server shows it, and one with the same names that is " + span(next.notBefore.Sub(r.Cert.notBefore)) +
			" younger lies in " + next.place
	}
}

func (l *lineage) replaced(id certID, now time.Time) (Severity, string) {
	if l.id == id || l.head.Revoked || !settled(l.head.NotBefore, l.head.NotAfter, now) {
		return fine, ""
	}
	ago := span(now.Sub(lifetime.IssuedAt(l.head.NotBefore, l.head.NotAfter)))
	text := "a server shows it, and it was replaced " + ago + " ago by " + l.serial() + ", "
	if l.disk != "" {
		return Warn, text + "which lies in " + l.disk
	}
	return Warn, text + "which was not found on disk"
}

// notSeen finds what the authority has issued and nobody seems to have. Whoever
// looks at one machine sees little of a fleet, so that is no alarm by itself; it
// is one if the certificate before it is still there.
func notSeen(v *view) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != kindRecord || !r.Lineage || !r.leaf() || !v.looked || v.torn {
			return fine, ""
		}
		l := v.recorded[r.Cert.id()].line
		switch {
		case l == nil || l.disk != "" || l.wire != "" || !r.Judged.Before(r.Cert.notAfter):
			return fine, ""
		case !settled(r.Cert.notBefore, r.Cert.notAfter, r.Judged), v.young[v.holder(r.Cert)]:
			return fine, "" // on its way, or replaced while we looked
		case l.older != "":
			return Warn, "it was not found, and the one that it replaces is still in " + l.older
		}
		return Info, "it is in the record and was not found anywhere else"
	}
}

// notRecorded finds what is in use and not in the record. From another issuer
// that is how things are. From ours, somebody else has its key, or the record
// is not the whole one: nobody can revoke what is not in it.
func notRecorded(v *view) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if v.recorded == nil || v.torn || r.Kind == kindRecord || !r.leaf() || !r.Judged.Before(r.Cert.notAfter) {
			return fine, ""
		}
		if _, known := v.recorded[r.Cert.id()]; known || v.tooYoung(r.Cert) {
			return fine, ""
		}
		ours := v.issuers[string(r.Cert.issuer)]
		switch {
		case len(ours) == 0:
			return Info, "another authority than the record's issued it: " + r.Cert.issuerName
		case issuerOf(r.Cert, ours) == nil: // anybody can write a name into a certificate
			return Warn, "it says that " + r.Cert.issuerName + " issued it, which has not signed it"
		}
		return Crit, r.Cert.issuerName + " signed it, and its record does not know it"
	}
}

// issuer is whose key signed the leaf, as far as that is at hand.
func (r *Row) issuer() *Certificate {
	if i := issuerOf(r.Cert, r.Chain); i != nil {
		return i
	}
	return issuerOf(r.Cert, r.Bundle)
}

// leastRenewals is how many make a habit.
const leastRenewals = 3

// renewerStopped finds lineages that were renewed more often than their life
// asks for, and no longer are. It is silent once renewal-overdue says the same.
func renewerStopped(v *view) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != kindRecord || !r.Lineage || !r.leaf() {
			return fine, ""
		}
		l := v.recorded[r.Cert.id()].line
		if l == nil || l.renewals < leastRenewals {
			return fine, ""
		}
		age := r.Judged.Sub(lifetime.IssuedAt(r.Cert.notBefore, r.Cert.notAfter))
		if _, late := lifetime.Overdue(r.Cert.notBefore, r.Cert.notAfter, r.Judged); late || age <= 2*l.longest {
			return fine, ""
		}
		return Warn, "it was renewed every " + span(l.longest) + " at least, and has not been for " + span(age)
	}
}

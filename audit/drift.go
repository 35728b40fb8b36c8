package audit

import (
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

// The certificates in files, those of servers and those in the record should be the same.
// These checks find differences. Two certificates are the same if their hashes are. One
// has replaced the other if they are of one lineage of the record or, without a record,
// if they have the same names; the keys do not tell, because a renewal has a new one.

// checkReplaced finds servers that still send a certificate that was replaced. The record
// knows that for certain. Without it, a younger certificate in a file with the same names
// is taken for the successor, unless the older one is in a file too: then they are
// certificates of replicas.
func checkReplaced(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != KindEndpoint || !r.Leaf() {
			return severityOK, ""
		}
		id := r.Cert.ID()
		if e, known := v.recorded[id]; known {
			return e.line.replacedSince(id, v.at(e.line).disk, r.Judged)
		}
		next := v.newest[v.nameHash(r.Cert)]
		if v.onDisk[id] || !next.notBefore.After(r.Cert.NotBefore) || !pastGrace(next.notBefore, next.notAfter, r.Judged) {
			return severityOK, ""
		}
		return Warn, "a server shows it, and one with the same names that is " + humantime.Short(humantime.Between(r.Cert.NotBefore, next.notBefore)) +
			" younger lies in " + next.place
	}
}

// replacedSince returns the finding for a server that sends a certificate of the lineage
// other than its head, after the grace for the head. disk is the place of the head, or "".
func (l *lineage) replacedSince(id cert.ID, disk string, now time.Time) (Severity, string) {
	if l.id == id || l.head.Revoked || !pastGrace(l.head.NotBefore, l.head.NotAfter, now) {
		return severityOK, ""
	}
	ago := humantime.Short(humantime.Between(lifetime.IssuedAt(l.head.NotBefore, l.head.NotAfter), now))
	text := "a server shows it, and it was replaced " + ago + " ago by " + l.serial() + ", "
	if disk != "" {
		return Warn, text + "which lies in " + disk
	}
	return Warn, text + "which was not found on disk"
}

// notSeen finds certificates of the record that no other source has. An audit of one machine
// sees a small part of all services, so that is an Info. It is a warning if the replaced
// certificate was found, or if the agent of the service has reported that one as served and not
// its successor: then the renewal did not arrive.
func notSeen(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Kind != kindRecord || !r.Lineage || !r.Leaf() || v.torn {
			return severityOK, ""
		}
		l := v.recorded[r.Cert.ID()].line
		at := v.at(l)
		switch {
		case l == nil || at.wire != "" || !r.Judged.Before(r.Cert.NotAfter):
			return severityOK, ""
		case !pastGrace(r.Cert.NotBefore, r.Cert.NotAfter, r.Judged), v.young[v.nameHash(r.Cert)]:
			return severityOK, "" // not installed yet, or replaced during the audit
		case l.undelivered(r.Judged) != "":
			return Warn, "its agent has not proved that a server uses it, and has found the one that it replaces at " + l.undelivered(r.Judged)
		case at.disk != "" || !v.looked:
			return severityOK, ""
		case at.older != "":
			return Warn, "it was not found, and the one that it replaces is still in " + at.older
		case l.head.Served != "":
			return Info, "it is in the record and was not found anywhere else; its agent says that " + l.head.Served + " serves it"
		}
		return Info, "it is in the record and was not found anywhere else"
	}
}

// notRecorded finds certificates that are in use and not in the record. For certificates of
// another authority that is an Info. A certificate that our authority has signed without
// recording it means that somebody else has its key, or that the record is incomplete, and
// nobody can revoke such a certificate. The check looks at intermediates too, because an
// unknown intermediate makes every certificate below it trusted.
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

// maxAbove bounds the certificates between a leaf and the authority of the record.
const maxAbove = 16

// signer follows the issuers of a row up to a certificate that the authority of the record
// has signed. It returns the certificate of the authority and the signed one, or nil if no
// path leads there.
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

// issuer returns the certificate whose key signed the leaf, or nil if it was not found.
func (r *Row) issuer() *cert.Certificate {
	return r.issuerOf(r.Cert)
}

// issuerOf returns the issuer of r.Cert, or of one above it, nil if it is not at hand.
func (r *Row) issuerOf(c *cert.Certificate) *cert.Certificate {
	if i := c.IssuerIn(r.Chain); i != nil {
		return i
	}
	return c.IssuerIn(r.Bundle)
}

// leastRenewals is the number of renewals from which the habit of a renewer is known.
const leastRenewals = 3

// renewerStopped finds lineages that were renewed earlier than necessary, and are not any
// more. The check renewal-overdue would report them much later.
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

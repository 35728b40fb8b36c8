package audit

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"
)

// revocations is a list (CRL) made ready for look-ups. It belongs to one goroutine.
type revocations struct {
	name    string // for the report
	list    *x509.RevocationList
	serials map[string]time.Time // as pemfile.Serial has them; when each was revoked
	signed  map[certID]bool      // by which authorities, as far as somebody asked
}

func newRevocations(name string, list *x509.RevocationList) *revocations {
	l := &revocations{name, list, make(map[string]time.Time, len(list.RevokedCertificateEntries)), map[certID]bool{}}
	for _, e := range list.RevokedCertificateEntries {
		if e.ReasonCode != removeFromCRL {
			l.serials["0x"+e.SerialNumber.Text(16)] = e.RevocationTime
		}
	}
	return l
}

// removeFromCRL in a delta list takes a certificate off hold (RFC 5280 section 5.3.1).
const removeFromCRL = 8

// subject is the row of a list that cannot be relied upon; nil for one that can.
// What it says still counts: nobody takes a revocation back.
func (l *revocations) subject(now time.Time) *Subject {
	if next := l.list.NextUpdate; !next.IsZero() && !now.Before(next) {
		return &Subject{Kind: kindList, Place: l.name, Err: fmt.Errorf("the revocation list has been out of date for %s: fetch a new one", span(now.Sub(next)))}
	}
	return nil
}

// revoked judges by the record, and by the lists that were given.
func revoked(v *view) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if r.Cert == nil || r.Err != nil || r.Kind == kindRecord {
			return fine, ""
		}
		if v.recorded[r.Cert.id()].revoked {
			return Crit, "the record says that it is revoked"
		}
		for _, l := range v.lists {
			if severity, text := l.judge(r); severity != fine {
				return severity, text
			}
		}
		return fine, ""
	}
}

func (l *revocations) judge(r *Row) (Severity, string) {
	at, listed := l.serials[r.Cert.serial]
	if !listed || !bytes.Equal(l.list.RawIssuer, r.Cert.issuer) {
		return fine, ""
	}
	if issuer := r.issuer(); issuer != nil && !l.isBy(issuer) {
		return Warn, "the list in " + l.name + " says that it is revoked, and " + issuer.name + " has not signed that list"
	}
	return Crit, fmt.Sprintf("revoked %s ago, says the list in %s", span(r.Judged.Sub(at)), l.name)
}

func (l *revocations) isBy(issuer *Certificate) bool {
	id := issuer.id()
	signed, asked := l.signed[id]
	if !asked {
		signed = !issuer.key.oversized() && l.list.CheckSignatureFrom(issuer.X509()) == nil
		l.signed[id] = signed
	}
	return signed
}

package audit

import (
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
)

// Recorded is one certificate in the record of an authority.
type Recorded struct {
	Service string
	// Lineage is the same for a certificate and for the certificates that replaced it.
	Lineage string
	// Names are the names as they were issued.
	Names               []string
	NotBefore, NotAfter time.Time
	Revoked             bool
	DER                 []byte
	// Chain is the DER of the intermediates, one behind the other. The issuer is first.
	Chain []byte
	// Served is the address of a server that serves it, as an agent has reported to the
	// authority; "" if none has.
	Served string
}

// lineage is a certificate and those that it replaced, as far as the record was read.
type lineage struct {
	head   Recorded  // the newest
	id     cert.ID   // of the head
	holder string    // service and names
	began  time.Time // the beginning of the oldest certificate that was read

	renewals int           // that were counted, see asOne
	longest  time.Duration // between two of them
	counted  time.Time     // the beginning of the certificate that was counted last

	number string // the serial number of the head, if its DER was not kept

	proved      string    // where an agent has found the newest certificate that it reported as served
	provedUntil time.Time // the end of that certificate
}

// asOne is a part of a life, as a divisor. Renewals that are closer together count as one,
// because they were made by hand or in a loop and say nothing about the habit.
const asOne = 20

// addEarlier adds the certificate before those that the lineage has. The record is read
// from the newest certificate to the oldest.
func (l *lineage) addEarlier(c *Recorded) {
	if gap := l.counted.Sub(c.NotBefore); l.began.IsZero() {
		l.counted = c.NotBefore
	} else if gap >= c.NotAfter.Sub(c.NotBefore)/asOne {
		l.renewals++
		l.longest, l.counted = max(l.longest, gap), c.NotBefore
	}
	l.began = c.NotBefore
	if l.proved == "" {
		l.proved, l.provedUntil = c.Served, c.NotAfter
	}
}

// undelivered returns where an agent has found a certificate that the head has replaced, if that
// still runs and the agent has not found the head since.
func (l *lineage) undelivered(now time.Time) string {
	if l.head.Served != "" || l.head.Revoked || !now.Before(l.provedUntil) {
		return ""
	}
	return l.proved
}

// whereabouts are the places where certificates of a lineage were found.
type whereabouts struct {
	disk, wire string // of the head; "" where it was not found
	older      string // of a certificate that the head has replaced
}

// at returns the whereabouts of a lineage.
func (v *inventory) at(l *lineage) whereabouts { return v.placed[l] }

// addPlacement remembers where a certificate of a lineage was found.
func (v *inventory) addPlacement(l *lineage, id cert.ID, r *Row) {
	at := v.placed[l]
	switch {
	case id != l.id:
		at.older = r.Place
	case r.Kind == KindEndpoint:
		at.wire = r.Place
	default:
		at.disk = r.Place
	}
	v.placed[l] = at
}

// serial returns the serial number of the head as reports show it.
func (l *lineage) serial() string {
	if l.number != "" {
		return l.number
	}
	if c := cert.ParsePartial(l.head.DER); c != nil {
		return c.Serial
	}
	return "another"
}

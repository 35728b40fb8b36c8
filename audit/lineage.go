package audit

import (
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
)

// Recorded is what the record of an authority knows of one certificate.
type Recorded struct {
	Service             string
	Lineage             string   // the same for a certificate and what replaced it
	Names               []string // as issued
	NotBefore, NotAfter time.Time
	Revoked             bool
	DER                 []byte
	Chain               []byte // DER of the intermediates, one behind the other, its issuer first
}

// lineage is one line of succession, as far as the list goes back.
type lineage struct {
	head   Recorded
	id     cert.ID // of the head
	holder string  // service and names
	began  time.Time

	renewals int           // that the list shows
	longest  time.Duration // between two of them
	counted  time.Time     // the last of them, or the head

	disk, wire string // where the head was found
	older      string // where one that it has replaced was found
}

// asOne makes one of renewals closer to each other than this part of a life: nobody
// renews so by habit, but by hand, or in a loop.
const asOne = 20

// addEarlier takes the certificate that came before those that the line has.
func (l *lineage) addEarlier(c *Recorded) {
	if gap := l.counted.Sub(c.NotBefore); l.began.IsZero() {
		l.counted = c.NotBefore
	} else if gap >= c.NotAfter.Sub(c.NotBefore)/asOne {
		l.renewals++
		l.longest, l.counted = max(l.longest, gap), c.NotBefore
	}
	l.began = c.NotBefore
}

// addPlacement remembers where a certificate of the line was found.
func (l *lineage) addPlacement(id cert.ID, r *Row) {
	switch {
	case id != l.id:
		l.older = r.Place
	case r.Kind == KindEndpoint:
		l.wire = r.Place
	default:
		l.disk = r.Place
	}
}

// serial is the head's, as this project shows it.
func (l *lineage) serial() string {
	if c := cert.ParsePartial(l.head.DER); c != nil {
		return c.Serial
	}
	return "another"
}

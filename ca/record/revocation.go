package record

import "time"

// Revocation says that, when and why a certificate was revoked.
type Revocation struct {
	Serial    string    `json:"serial"` // decimal
	RevokedAt time.Time `json:"revoked_at"`
	Reason    int       `json:"reason"` // RFC 5280 §5.3.1
	Note      string    `json:"note,omitempty"`
	Caller    string    `json:"caller"`
}

// RevokedEntry is one entry of a certificate revocation list.
type RevokedEntry struct {
	Serial    string // decimal
	RevokedAt time.Time
	Reason    int       // RFC 5280 §5.3.1
	NotAfter  time.Time // of the certificate: beyond it the entry leaves the list
}

// RevokedRange selects the revocations of an issuer, from a mark to a mark.
type RevokedRange struct {
	Issuer string    // subject key id of the intermediate, hex
	After  int64     // mark that is not in the range; 0 begins with the first revocation
	UpTo   int64     // mark that is in the range
	Now    time.Time // certificates that have expired at this time are left out
}

// LineageCount says how many certificates of a lineage have neither expired nor been
// revoked.
type LineageCount struct {
	Service string
	Lineage string // serial of its first certificate, decimal
	Live    int
}

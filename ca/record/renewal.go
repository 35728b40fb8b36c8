package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// RenewalOrder is an order that certificates are renewed before it is their time. Empty
// fields of the first four mean all.
type RenewalOrder struct {
	Issuer  string // subject key id of the intermediate, hex
	Service string
	KeyType string // such as EC-P256
	Lineage string // serial of its first certificate, decimal

	ID      int64           // of the event that tells of it; 0 before it is recorded
	Nonce   string          // random; tells orders with one id apart, which come again after a restore; empty in old records
	Wanted  json.RawMessage // the order as it was given
	At, By  time.Time       // certificates from up to At are to be renewed by By; in milliseconds
	Caller  string
	Matched int // holders, when the order was given
}

// Detail says what the order is about, for the log.
func (o RenewalOrder) Detail() string {
	return fmt.Sprintf("%d holders, by %s: %s", o.Matched, o.By.UTC().Format(time.RFC3339), o.Wanted)
}

// RenewalHolder is a lineage that an order concerns.
type RenewalHolder struct {
	// Certificate is the one that was in use when the order was given. Serial, Service,
	// Lineage, Issuer, Names, NotBefore, NotAfter, IssuedAt and DER are filled in.
	Certificate Certificate
	// Renewed says that the lineage has a newer certificate.
	Renewed bool
	// LastSeen is when the holder has reported or renewed last.
	LastSeen time.Time
}

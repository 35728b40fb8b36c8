package record

import "time"

// TrustReport is what one process says of the trust bundle that it has in effect.
type TrustReport struct {
	Lineage string // of the certificate that the process has shown
	Serial  string // of the same, decimal
	// Successor is the serial of the certificate that was issued for the same request, or "".
	Successor string
	// Reporter names the process or the place of its files. Those without one are told apart by
	// certificate and bundle only.
	Reporter string
	Digest   string // of the bundle, in hex; "" if it is not known
	At       time.Time
	Due      time.Time // when the next report is expected at the latest
}

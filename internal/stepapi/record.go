package stepapi

import "time"

// RecordRow is a certificate of the record as GET /records/certificates and
// "artstore-pki list" show it; the JSON field names are stable.
type RecordRow struct {
	Serial    string    `json:"serial"` // decimal
	SerialHex string    `json:"serial_hex"`
	Service   string    `json:"service"`
	State     string    `json:"state"` // valid, expired or revoked
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Kind      string    `json:"kind"`
	Caller    string    `json:"caller"`
	Lineage   string    `json:"lineage"` // the same for a certificate and its renewals
	Previous  string    `json:"previous,omitempty"`
	Issuer    string    `json:"issuer"`

	ProofUntil time.Time `json:"proof_until,omitzero"` // no renewal ends after it; absent: the proof has no end
	Served     *Served   `json:"served,omitempty"`     // absent: no agent has reported that it is served
	PEM        string    `json:"pem,omitempty"`        // leaf first, then intermediates; only with ?pem=true
}

// Served is what an agent has reported of a certificate: that it connected to servers, and they
// served it.
type Served struct {
	Since   time.Time `json:"since"`
	Address string    `json:"address"` // of the first server
	Servers int       `json:"servers"` // how many serve it
}

// RecordPage answers GET /records/certificates. The certificate that expires last is first.
type RecordPage struct {
	Certificates []RecordRow `json:"certificates"`
	Next         string      `json:"next,omitempty"` // ?cursor= of the next page
}

// RecordAuthorities answers GET /records/authorities: the certificates of the authority, each
// in PEM.
type RecordAuthorities struct {
	Roots  []string `json:"roots"`  // the trust bundle
	Others []string `json:"others"` // intermediates, and certificates that are no longer in use
}

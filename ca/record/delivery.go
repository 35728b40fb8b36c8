package record

import "time"

// Delivery is the report of an agent that servers have served a certificate in a handshake. It is
// what the holder of the certificate says, and not a proof for others.
type Delivery struct {
	Serial  string    `json:"serial"`  // of the certificate that is served, decimal
	Lineage string    `json:"lineage"` // of the certificate that the agent has shown
	Address string    `json:"address"` // of the first server, HOST:PORT or SCHEME://HOST[:PORT]
	Servers int       `json:"servers"` // how many serve it
	Since   time.Time `json:"since"`   // when that was proved first, by the clock of the authority
}

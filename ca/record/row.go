package record

import (
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// NewRow shows a certificate as it is at a moment, in the form that lists have over
// HTTP and in commands.
func NewRow(c Certificate, now time.Time) stepapi.RecordRow {
	row := stepapi.RecordRow{
		Serial: c.Serial, SerialHex: certs.HexSerial(c.Serial), Service: c.Service, State: c.State(now), Names: c.Names,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Kind: c.Kind, Caller: c.Caller,
		Lineage: c.Lineage, Previous: c.Previous, Issuer: c.Issuer, ProofUntil: c.ProofUntil,
	}
	if d := c.Served; d != nil {
		row.Served = &stepapi.Served{Since: d.Since, Address: d.Address, Servers: d.Servers}
	}
	return row
}

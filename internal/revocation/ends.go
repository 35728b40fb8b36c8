package revocation

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// OIDEnds is a list extension, not critical, that says until when each entry counts:
//
//	CertificateEnds ::= OCTET STRING
//
// with four octets for each entry, in the order of the entries: the seconds from
// thisUpdate to the notAfter of the certificate, big endian. With it a list may drop an
// entry when the certificate has ended, as RFC 5280 §3.3 allows, and a client can tell
// that from an entry that was lost. Entries of their own extension would take ten times
// the space.
//
// The number is the UUID a2f0b539-b428-49fd-82e6-4711968f8e1f in the arc that Microsoft gives to numbers
// made of UUIDs, cut into seven parts. The arc of X.667, 2.25, takes the UUID in one
// part, which crypto/x509 refuses to read.
var OIDEnds = asn1.ObjectIdentifier{1, 2, 840, 113556, 1, 8000, 2554, 41712, 46393, 46120, 18941, 33510, 4657558, 9408031}

const endSize = 4 // octets

// EncodeEnds returns the value of the extension [OIDEnds] for entries that end at
// these Unix seconds, in a list with this thisUpdate.
func EncodeEnds(thisUpdate time.Time, ends []int64) ([]byte, error) {
	octets := make([]byte, 0, len(ends)*endSize)
	for _, end := range ends {
		after := min(max(end-thisUpdate.Unix(), 0), math.MaxUint32)
		octets = binary.BigEndian.AppendUint32(octets, uint32(after))
	}
	return asn1.Marshal(octets)
}

// endsOf reads the extension, nil if the list has none.
func endsOf(list *x509.RevocationList) ([]int64, error) {
	for _, extension := range list.Extensions {
		if !extension.Id.Equal(OIDEnds) {
			continue
		}
		var octets []byte
		if rest, err := asn1.Unmarshal(extension.Value, &octets); err != nil || len(rest) > 0 {
			return nil, errors.New("the ends of its certificates are not an OCTET STRING")
		}
		if len(octets) != len(list.RevokedCertificateEntries)*endSize {
			return nil, errors.New("the ends of its certificates are more or fewer than its entries")
		}
		ends := make([]int64, 0, len(list.RevokedCertificateEntries))
		for ; len(octets) > 0; octets = octets[endSize:] {
			ends = append(ends, list.ThisUpdate.Unix()+int64(binary.BigEndian.Uint32(octets)))
		}
		return ends, nil
	}
	return nil, nil
}

package tlsread

import (
	"bytes"
	"crypto/tls"

	"golang.org/x/crypto/cryptobyte"
)

// Extensions (RFC 9846 §4.2).
const (
	extensionServerName           = 0
	extensionGroups               = 10
	extensionPointFormats         = 11
	extensionSchemes              = 13
	extensionExtendedMasterSecret = 23
	extensionVersions             = 43
	extensionSchemesOfChain       = 50
	extensionKeyShare             = 51
)

// serverHello is a ServerHello or a HelloRetryRequest, which has the same form (RFC 9846
// §4.1.3).
type serverHello struct {
	version, suite uint16
	group          uint16 // of the key share, or the one that a retry asks for
	share          []byte
	retry          bool
}

// helloRetry is the random value of a HelloRetryRequest: the SHA-256 of that word (RFC 9846
// §4.1.3).
var helloRetry = []byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

// parseServerHello reads a ServerHello of any version from SSL 3.0 on.
func parseServerHello(body cryptobyte.String) (*serverHello, bool) {
	h := &serverHello{}
	var random []byte
	var session, extensions cryptobyte.String
	var compression uint8
	if !body.ReadUint16(&h.version) || !body.ReadBytes(&random, 32) || !body.ReadUint8LengthPrefixed(&session) ||
		!body.ReadUint16(&h.suite) || !body.ReadUint8(&compression) {
		return nil, false
	}
	h.retry = bytes.Equal(random, helloRetry)
	if body.Empty() { // without extensions, as old servers send it
		return h, h.version >= tls.VersionSSL30 //nolint:staticcheck // SA1019: it is read, and never spoken
	}
	if !body.ReadUint16LengthPrefixed(&extensions) || !body.Empty() {
		return nil, false
	}
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) || !h.take(kind, data) {
			return nil, false
		}
	}
	return h, h.version >= tls.VersionSSL30 //nolint:staticcheck // SA1019: as above
}

// take reads the extensions that decide on keys.
func (h *serverHello) take(kind uint16, data cryptobyte.String) bool {
	switch kind {
	case extensionVersions:
		return data.ReadUint16(&h.version)
	case extensionKeyShare:
		var share cryptobyte.String
		if !data.ReadUint16(&h.group) || !h.retry && !data.ReadUint16LengthPrefixed(&share) {
			return false
		}
		h.share = share
	}
	return true
}

// parseCertificates reads a Certificate message: RFC 9846 §4.5.1, or RFC 5246 §7.4.2 for the
// versions before.
func parseCertificates(body cryptobyte.String, version uint16) (out [][]byte, ok bool) {
	var context, list cryptobyte.String
	if version >= tls.VersionTLS13 && !body.ReadUint8LengthPrefixed(&context) {
		return nil, false
	}
	if !body.ReadUint24LengthPrefixed(&list) || !body.Empty() {
		return nil, false
	}
	for !list.Empty() {
		var one, extensions cryptobyte.String
		if !list.ReadUint24LengthPrefixed(&one) || version >= tls.VersionTLS13 && !list.ReadUint16LengthPrefixed(&extensions) {
			return nil, false
		}
		out = append(out, one)
	}
	return out, true
}

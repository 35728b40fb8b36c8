package format

import (
	"bytes"
	"encoding/pem"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/ber"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// oidPBES are the beginnings of the identifiers of algorithms that encrypt keys: PKCS #5
// (RFC 8018 appendix C) and PKCS #12 (RFC 7292 appendix C), without tag and length.
var oidPBES = [][]byte{
	{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05},
	{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01},
}

// isKeyDER reports whether data begins as a private key does: PKCS #8 (RFC 5958 §2) or
// encrypted PKCS #8 (RFC 5958 §3), SEC 1 (RFC 5915 §3), or PKCS #1 (RFC 8017 appendix
// A.1.2). A PKCS #12 store begins with version 3, which no key has.
func isKeyDER(head []byte) bool {
	in := ber.InSequence(head)
	switch {
	case len(in) < 6:
		return false
	case bytes.HasPrefix(in, []byte{2, 1, 0, 0x30}), bytes.HasPrefix(in, []byte{2, 1, 1, 0x30}):
		return algorithmBegins(in[3:])
	case bytes.HasPrefix(in, []byte{2, 1, 1, 4}):
		// The key of P-521 has 66 bytes. The curve [0] or the public key [1] follows it.
		n := int(in[4])
		return n >= 20 && n <= 66 && len(in) > 5+n && (in[5+n] == 0xa0 || in[5+n] == 0xa1)
	case bytes.HasPrefix(in, []byte{2, 1, 0, 2, 0x81}), bytes.HasPrefix(in, []byte{2, 1, 0, 2, 0x82}):
		return true
	}
	return algorithmBegins(in) && encryptedKey(in) // SEQUENCE { algorithm, OCTET STRING }
}

// algorithmBegins reports whether b begins with an AlgorithmIdentifier (RFC 5280
// §4.1.1.2): a SEQUENCE with an identifier of less than 32 bytes.
func algorithmBegins(b []byte) bool {
	in := ber.InSequence(b)
	return len(in) > 2 && in[0] == 6 && in[1] < 0x20
}

// encryptedKey reports whether the algorithm at the beginning of b encrypts keys.
func encryptedKey(b []byte) bool {
	in := ber.InSequence(b)
	if len(in) < 2 {
		return false
	}
	for _, id := range oidPBES {
		if bytes.HasPrefix(in[2:], id) {
			return true
		}
	}
	return false
}

// parseKeyDER reads one key. Bytes behind it are ignored. An encrypted key is not opened.
func parseKeyDER(data []byte, _ *Context) []Part {
	p := Part{IsKey: true}
	var whole cryptobyte.String
	rest := cryptobyte.String(data)
	if !rest.ReadASN1Element(&whole, der.SEQUENCE) {
		p.Err = errBadKey
		return []Part{p}
	}
	switch in := ber.InSequence(whole); {
	case len(data) > pemfile.MaxKey:
		p.Err = errLongKey
	case len(in) > 0 && in[0] == 0x30: // EncryptedPrivateKeyInfo has no version (RFC 5958 §3)
		p.Locked = true
	default:
		return []Part{parseKey(&pem.Block{Type: privateKey, Bytes: whole})} // which tries all three encodings
	}
	return []Part{p}
}

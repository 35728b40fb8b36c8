package tlsread

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Family is a kind of signature keys. A server may have a certificate for each.
type Family int

// Families of signature keys.
const (
	AnyFamily Family = iota
	RSA
	ECDSA
	EdDSA
)

func (f Family) String() string { return [...]string{"any", "RSA", "ECDSA", "EdDSA"}[f] }

// Offer is what a ClientHello offers.
type Offer struct {
	ServerName string // by which the server chooses its certificate; an address is not sent
	Newest     uint16 // tls.VersionTLS13 or older; all older versions are offered too
	Family     Family // of the key of the certificate
}

// Signature algorithms (RFC 9846 §4.2.3, RFC 8734, RFC 5246 §7.4.1.4.1), the better ones first.
var (
	schemesRSA   = []uint16{0x0804, 0x0805, 0x0806, 0x0809, 0x080a, 0x080b, 0x0401, 0x0501, 0x0601, 0x0301, 0x0201, 0x0101}
	schemesECDSA = []uint16{0x0403, 0x0503, 0x0603, 0x081a, 0x081b, 0x081c, 0x0303, 0x0203}
	schemesEdDSA = []uint16{0x0807, 0x0808}
	// schemesOther are DSA, and ML-DSA as draft-ietf-tls-mldsa numbers it.
	schemesOther = []uint16{0x0602, 0x0502, 0x0402, 0x0302, 0x0202, 0x0904, 0x0905, 0x0906}
)

// Cipher suites by the key that authenticates the server, with their numbers at IANA. Suites
// without a certificate are left out.
var (
	suites13  = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}
	suitesRSA = []uint16{
		// ECDHE
		0xc02f, 0xc030, 0xcca8, 0xc027, 0xc028, 0xc013, 0xc014, 0xc060, 0xc061, 0xc076, 0xc077, 0xc012, 0xc011, 0xc010,
		// DHE
		0x009e, 0x009f, 0xccaa, 0xc09e, 0xc09f, 0xc0a2, 0xc0a3, 0x0067, 0x006b, 0x0033, 0x0039, 0xc052, 0xc053, 0xc07c, 0xc07d,
		0x00be, 0x00c4, 0x0045, 0x0088, 0x009a, 0x0016, 0x0015, 0x0014,
		// key exchange by RSA
		0x009c, 0x009d, 0xc09c, 0xc09d, 0xc0a0, 0xc0a1, 0x003c, 0x003d, 0x002f, 0x0035, 0xc050, 0xc051, 0xc07a, 0xc07b,
		0x00ba, 0x00c0, 0x0041, 0x0084, 0x0096, 0x000a, 0x0007, 0x0005, 0x0004, 0x0009, 0x0008, 0x0006, 0x0003, 0x003b, 0x0002, 0x0001,
	}
	suitesECDSA = []uint16{
		0xc02b, 0xc02c, 0xcca9, 0xc0ac, 0xc0ad, 0xc0ae, 0xc0af, 0xc023, 0xc024, 0xc009, 0xc00a, 0xc05c, 0xc05d, 0xc072, 0xc073,
		0xc008, 0xc007, 0xc006,
	}
	suitesDSA = []uint16{
		0x00a2, 0x00a3, 0x0040, 0x006a, 0x0032, 0x0038, 0xc056, 0xc057, 0xc080, 0xc081, 0x00bd, 0x00c3, 0x0044, 0x0087, 0x0099,
		0x0013, 0x0012, 0x0011,
	}
	// suiteRenegotiation is no suite: it signals that the client implements RFC 5746 §3.3.
	suiteRenegotiation = uint16(0x00ff)
)

// groups are those of key exchange and of ECDSA keys: first those of the key shares, then those
// of RFC 8422 §5.1.1 and RFC 7919 §2, with the curves that were retired. Up to TLS 1.2 a
// server may send an ECDSA certificate only if its curve is among them.
var groups = []uint16{29, 23, 24, 25, 30, 31, 32, 33, 28, 27, 26, 22, 21, 20, 19, 256, 257, 258, 259, 260}

// shared are the groups with a key share in the hello.
var shared = []struct {
	group uint16
	curve ecdh.Curve
}{{29, ecdh.X25519()}, {23, ecdh.P256()}, {24, ecdh.P384()}, {25, ecdh.P521()}}

// schemes returns the signature algorithms of the family.
func (o Offer) schemes() []uint16 {
	switch o.Family {
	case RSA:
		return schemesRSA
	case ECDSA:
		return schemesECDSA
	case EdDSA:
		return schemesEdDSA
	case AnyFamily:
	}
	return allSchemes()
}

// allSchemes returns the signature algorithms of all families. They are offered for the
// certificates behind the first one.
func allSchemes() []uint16 {
	return slices.Concat(schemesECDSA, schemesEdDSA, schemesRSA, schemesOther)
}

// suites returns the cipher suites of the versions and of the family.
func (o Offer) suites() (out []uint16) {
	if o.Newest >= tls.VersionTLS13 {
		out = suites13
	}
	switch o.Family {
	case RSA:
		return slices.Concat(out, suitesRSA, []uint16{suiteRenegotiation})
	case ECDSA, EdDSA: // RFC 8422 §2.2: the suites of ECDSA serve EdDSA as well
		return slices.Concat(out, suitesECDSA, []uint16{suiteRenegotiation})
	case AnyFamily:
	}
	return slices.Concat(out, suitesECDSA, suitesRSA, suitesDSA, []uint16{suiteRenegotiation})
}

// hello is a ClientHello with the keys of its shares.
type hello struct {
	version uint16                      // of the record
	message []byte                      // with its header
	keys    map[uint16]*ecdh.PrivateKey // by group
}

// newHello returns a hello for an offer (RFC 9846 §4.1.2).
func newHello(o Offer) (*hello, error) {
	h := &hello{version: min(o.Newest, tls.VersionTLS10), keys: map[uint16]*ecdh.PrivateKey{}}
	var random [64]byte
	_, _ = rand.Read(random[:]) // never fails
	if o.Newest >= tls.VersionTLS13 {
		for _, s := range shared {
			key, err := s.curve.GenerateKey(rand.Reader)
			if err != nil {
				return nil, err
			}
			h.keys[s.group] = key
		}
	}
	var b cryptobyte.Builder
	b.AddUint8(1) // ClientHello
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(min(o.Newest, tls.VersionTLS12))
		b.AddBytes(random[:32])
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {
			if o.Newest >= tls.VersionTLS13 { // for middleboxes (RFC 9846 appendix E.4)
				b.AddBytes(random[32:])
			}
		})
		addList(b, o.suites())
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(0) }) // no compression
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { h.extensions(b, o) })
	})
	var err error
	h.message, err = b.Bytes()
	return h, err
}

// extensions adds the extensions that the newest version knows. Some servers that speak only
// older versions refuse a hello with newer extensions.
func (h *hello) extensions(b *cryptobyte.Builder, o Offer) {
	if o.ServerName != "" && net.ParseIP(o.ServerName) == nil {
		addExtension(b, extensionServerName, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint8(0) // a host name
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(o.ServerName)) })
			})
		})
	}
	addExtension(b, extensionGroups, func(b *cryptobyte.Builder) { addList(b, groups) })
	addExtension(b, extensionPointFormats, func(b *cryptobyte.Builder) { b.AddBytes([]byte{1, 0}) })
	if o.Newest < tls.VersionTLS12 {
		return
	}
	addExtension(b, extensionExtendedMasterSecret, func(*cryptobyte.Builder) {})
	addExtension(b, extensionSchemes, func(b *cryptobyte.Builder) { addList(b, o.schemes()) })
	addExtension(b, extensionSchemesOfChain, func(b *cryptobyte.Builder) { addList(b, allSchemes()) })
	if o.Newest < tls.VersionTLS13 {
		return
	}
	addExtension(b, extensionVersions, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {
			for v := uint16(tls.VersionTLS13); v >= tls.VersionTLS10; v-- {
				b.AddUint16(v)
			}
		})
	})
	addExtension(b, extensionKeyShare, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, s := range shared {
				b.AddUint16(s.group)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.keys[s.group].PublicKey().Bytes()) })
			}
		})
	})
}

// addExtension adds an extension with its length.
func addExtension(b *cryptobyte.Builder, kind uint16, body func(*cryptobyte.Builder)) {
	b.AddUint16(kind)
	b.AddUint16LengthPrefixed(body)
}

// addList adds a list of numbers with its length.
func addList(b *cryptobyte.Builder, list []uint16) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, one := range list {
			b.AddUint16(one)
		}
	})
}

// record returns the hello in a record. It is always short enough for one.
func (h *hello) record() []byte {
	var b cryptobyte.Builder
	b.AddUint8(recordHandshake)
	b.AddUint16(h.version)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.message) })
	return b.BytesOrPanic()
}

// secret derives the secret that protects the handshake messages of the server (RFC 9846
// §7.1). A HelloRetryRequest is an error, because no second hello is sent.
func (h *hello) secret(answer *serverHello, message []byte) ([]byte, error) {
	own := h.keys[answer.group]
	if own == nil || answer.retry {
		return nil, fmt.Errorf("it wants another exchange of keys than those that are read here: %s", tls.CurveID(answer.group))
	}
	theirs, err := own.Curve().NewPublicKey(answer.share)
	if err != nil {
		return nil, err
	}
	both, err := own.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	hash := hashOf(answer.suite)
	early, err := hkdf.Extract(hash.New, make([]byte, hash.Size()), nil)
	if err != nil {
		return nil, err
	}
	salt, err := keySecret{hash, early}.expand("derived", hash.New().Sum(nil), hash.Size())
	if err != nil {
		return nil, err
	}
	handshake, err := hkdf.Extract(hash.New, both, salt)
	if err != nil {
		return nil, err
	}
	transcript := hash.New()
	_, _ = transcript.Write(h.message) // never fails
	_, _ = transcript.Write(message)
	return keySecret{hash, handshake}.expand("s hs traffic", transcript.Sum(nil), hash.Size())
}

package crl

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/revocation"
)

// The standard library encodes all entries of a list each time. For n lists that grow by one
// entry each, it would encode n² entries. Here an entry is encoded once, and a new list is
// these bytes with another head and signature.

// entries are the encoded entries of the list of one issuer.
type entries struct {
	der  []byte // RevokedCertificate after RevokedCertificate (RFC 5280 §5.1), oldest first
	each []entry
}

type entry struct {
	notAfter int64 // of the certificate, Unix milliseconds
	size     int   // bytes in der
}

// add encodes and appends an entry. It fails only if the record has no number as a serial.
func (e *entries) add(l record.RevokedEntry) error {
	serial, ok := new(big.Int).SetString(l.Serial, 10)
	if !ok {
		return fmt.Errorf("making a CRL: serial %.60q in the record", l.Serial)
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(serial)
		addTime(b, l.RevokedAt)
		if l.Reason == 0 { // instead of unspecified there is no reason (RFC 5280 §5.3.1)
			return
		}
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, oidReason, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(l.Reason)) })
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return fmt.Errorf("making a CRL: encoding serial %s: %w", l.Serial, err)
	}
	e.der = append(e.der, der...)
	e.each = append(e.each, entry{l.NotAfter.UnixMilli(), len(der)})
	return nil
}

// expire drops the entries of certificates that have expired, in place, and reports whether
// there were any.
func (e *entries) expire(now time.Time) bool {
	der, each, at := e.der[:0], e.each[:0], 0
	for _, x := range e.each {
		if x.notAfter > now.UnixMilli() {
			der, each = append(der, e.der[at:at+x.size]...), append(each, x)
		}
		at += x.size
	}
	gone := len(each) < len(e.each)
	e.der, e.each = der, each
	return gone
}

// ends returns the value of our extension with the end of each certificate. When an entry is
// missing in a later list, a peer can tell by it that the certificate has expired, and that
// the authority has not lost the revocation.
func (e *entries) ends(thisUpdate time.Time) ([]byte, error) {
	if len(e.each) == 0 {
		return nil, nil
	}
	seconds := make([]int64, len(e.each))
	for i, x := range e.each {
		seconds[i] = (x.notAfter + 999) / 1000
	}
	return revocation.EncodeEnds(thisUpdate, seconds)
}

// head has the fields of a list besides its entries.
type head struct {
	number     *big.Int
	thisUpdate time.Time
	nextUpdate time.Time
}

// sign makes a CertificateList (RFC 5280 §5.1) and verifies its signature. If the key does not
// fit the issuer, the caller keeps serving the list before.
func sign(issuing cacert.Issuer, h head, listed *entries) ([]byte, error) {
	alg, err := algorithmOf(issuing.Key.Public())
	if err != nil {
		return nil, err
	}
	ends, err := listed.ends(h.thisUpdate)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(listed.der)+len(ends)+1<<10))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1) // v2
		alg.add(b)
		b.AddBytes(issuing.Cert.RawSubject)
		addTime(b, h.thisUpdate)
		addTime(b, h.nextUpdate)
		if len(listed.der) > 0 { // an empty list must be absent (RFC 5280 §5.1.2.6)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(listed.der) })
		}
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				addExtension(b, oidAuthorityKey, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(issuing.Cert.SubjectKeyId) })
					})
				})
				addExtension(b, oidCRLNumber, func(b *cryptobyte.Builder) { b.AddASN1BigInt(h.number) })
				if ends != nil {
					addExtension(b, revocation.OIDEnds, func(b *cryptobyte.Builder) { b.AddBytes(ends) })
				}
			})
		})
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding the CRL of %q: %w", issuing.Cert.Subject.CommonName, err)
	}
	sig, err := crypto.SignMessage(issuing.Key, rand.Reader, tbs, alg.hash)
	if err == nil {
		err = issuing.Cert.CheckSignature(alg.check, tbs, sig)
	}
	if err != nil {
		return nil, fmt.Errorf("signing the CRL of %q: %w", issuing.Cert.Subject.CommonName, err)
	}
	out := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+1<<10))
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		alg.add(b)
		b.AddASN1BitString(sig)
	})
	return out.Bytes()
}

var (
	oidReason       = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidCRLNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// sigAlgorithm is one row of what the keys of this authority sign with.
type sigAlgorithm struct {
	oid   asn1.ObjectIdentifier
	null  bool // parameters are NULL (RFC 4055 §5 for RSA), otherwise absent
	hash  crypto.Hash
	check x509.SignatureAlgorithm
}

func algorithmOf(key crypto.PublicKey) (sigAlgorithm, error) {
	switch keytype.Of(key) {
	case keytype.P256:
		return sigAlgorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, false, crypto.SHA256, x509.ECDSAWithSHA256}, nil
	case keytype.P384:
		return sigAlgorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, false, crypto.SHA384, x509.ECDSAWithSHA384}, nil
	case keytype.Ed25519: // it signs the message, not a digest (RFC 8410 §3)
		return sigAlgorithm{asn1.ObjectIdentifier{1, 3, 101, 112}, false, 0, x509.PureEd25519}, nil
	}
	if _, ok := key.(*rsa.PublicKey); ok {
		return sigAlgorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, true, crypto.SHA256, x509.SHA256WithRSA}, nil
	}
	return sigAlgorithm{}, fmt.Errorf("signing a CRL: no algorithm for a key of type %s", keytype.Of(key))
}

func (a sigAlgorithm) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.oid)
		if a.null {
			b.AddASN1NULL()
		}
	})
}

// addExtension adds an extension that is not critical. No extension of our lists is.
func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

// addTime writes UTCTime through 2049 and GeneralizedTime from then on (RFC 5280 §5.1.2.4).
func addTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC().Truncate(time.Second)
	if t.Year() < 2050 {
		b.AddASN1UTCTime(t)
		return
	}
	b.AddASN1GeneralizedTime(t)
}

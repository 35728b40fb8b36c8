package audit

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/secret"
)

// Pure functions under names of their own.
var (
	Span         = span
	ParseAddress = parseAddress
	FromX509     = fromX509
	WorstFirst   = worstFirst
	MayIssue     = mayIssue
)

// Part is one block of a file, for the external tests.
type Part struct {
	Cert        *Certificate
	Err         error
	Key         crypto.PublicKey
	Place       string // in the file
	Locked, Doc bool
}

// Parse is parse.
func Parse(data []byte, passwords ...string) (out []Part) {
	with := &opening{known: &authorities{}, documents: true}
	for _, p := range passwords {
		with.passwords = append(with.passwords, secret.New(p))
	}
	for _, p := range parse(data, with) {
		one := Part{Cert: p.cert, Err: p.err, Key: p.key, Doc: p.doc != nil}
		if p.in != nil {
			one.Place, one.Locked = p.in.object+p.in.suffix(), p.in.locked
		}
		out = append(out, one)
	}
	return out
}

// Format is the name of the format that data begins like.
func Format(data []byte) string {
	if f := sniff(data); f != nil {
		return f.name
	}
	return ""
}

// Left is what remains of a certificate that crypto/x509 refuses.
type Left struct {
	Raw                 []byte
	SerialNumber        *big.Int
	NotBefore, NotAfter time.Time
}

// Remains is remains.
func Remains(data []byte) *Left {
	c := remains(data)
	if c == nil {
		return nil
	}
	n, _ := new(big.Int).SetString(strings.TrimPrefix(c.serial, "0x"), 16)
	return &Left{c.raw, n, c.notBefore, c.notAfter}
}

// Raw is the DER.
func (c *Certificate) Raw() []byte { return c.raw }

// Quick is what quick finds, as text, or "".
func Quick(data []byte) string {
	c := quick(data, sha256.Sum256(data))
	if c == nil {
		return ""
	}
	c.tbs, c.sealed = nil, nil
	return fmt.Sprintf("%+v", *c)
}

// Slow is the same of crypto/x509.
func Slow(x *x509.Certificate) string {
	c := *fromX509(x)
	c.parsed = nil
	return fmt.Sprintf("%+v", c)
}

// Acceptances are the lines of a baseline, without dates and reasons.
func Acceptances(b *Baseline) (out []string) {
	for _, a := range b.order {
		out = append(out, a.String())
	}
	return out
}

// PlainBlock is plainBlock with a buffer of the given size.
func PlainBlock(data []byte, room int) (der, rest []byte, ok bool) {
	return plainBlock(data, make([]byte, room))
}

// Held is how many rows a page holds so far.
func Held(r Renderer) int { return len(r.(*asHTML).worst.rows) }

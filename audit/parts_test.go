package audit_test

import (
	"cmp"
	"crypto"
	"math/big"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/format"
	"github.com/artstore/artstore-pki/secret"
)

// readPart is one block of a file, for the external tests.
type readPart struct {
	Cert        *cert.Certificate
	Err         error
	Key         crypto.PublicKey
	Place       string // in the file
	Locked, Doc bool
	Twofold     bool // a certificate and a key, or a document and an error
}

// readParts reads a file in any format.
func readParts(data []byte, passwords ...string) (out []readPart) {
	with := &format.Context{Known: &cert.Cache{}, Documents: true}
	for _, p := range passwords {
		with.Passwords = append(with.Passwords, secret.New(p))
	}
	for _, p := range with.ParseFile("x", data, false) {
		one := readPart{Cert: p.Cert, Err: p.Err, Key: p.Key, Doc: p.Document != nil, Locked: p.Locked}
		// Of a list that cannot be read, the dates stand beside the error.
		dates := p.Document != nil && p.Document.What == cert.RevocationList && p.Document.List == nil
		one.Twofold = one.Cert != nil && (one.Key != nil || one.Doc) || one.Doc && one.Err != nil && !dates
		if p.In != nil {
			one.Place, one.Locked = p.In.Object+p.In.Suffix(), p.In.Locked || p.Locked
		}
		out = append(out, one)
	}
	return out
}

// partialFields is what remains of a certificate that crypto/x509 refuses.
type partialFields struct {
	Raw                 []byte
	SerialNumber        *big.Int
	NotBefore, NotAfter time.Time
}

// remains are the fields of a certificate that crypto/x509 refuses, if it has dates.
func remains(data []byte) *partialFields {
	c := cert.ParsePartial(data)
	if c == nil || c.NotBefore.IsZero() || c.NotAfter.IsZero() {
		return nil
	}
	n, _ := new(big.Int).SetString(strings.TrimPrefix(c.Serial, "0x"), 16)
	return &partialFields{c.Raw, n, c.NotBefore, c.NotAfter}
}

// worstFirst is the order of reports for people.
func worstFirst(a, b audit.Row) int {
	return cmp.Or(cmp.Compare(b.Rank(), a.Rank()), a.End().Compare(b.End()), cmp.Compare(a.Place, b.Place))
}

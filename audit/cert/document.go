package cert

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/wording"
)

// Document is what is no certificate, and yet a row: a revocation list, a private key
// alone; for inspect also a request and a token, which an audit passes over, because nothing
// fails when they end but what asks for them.
type Document struct {
	What        string
	Name        string
	From, Until time.Time // zero: without a beginning, without an end
	Details     []Detail
	Flaws       []Flaw
	Unrelated   bool                 // nothing that an audit is for, under a name that promises a certificate
	List        *x509.RevocationList // its signature is judged when all authorities are known
	// Of a request, for the table of checks to judge.
	Key       KeyKind
	Signature x509.SignatureAlgorithm
}

// Detail is a line about a document.
type Detail struct{ Label, Text string }

// Flaw is what was found while a document was read: the id of a check, whose worst
// severity it has, and what the finding says.
type Flaw struct{ Check, Text string }

// Add adds a detail, unless its text is empty.
func (d *Document) Add(label, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" {
		d.Details = append(d.Details, Detail{label, text})
	}
}

// RevocationList is what a list is called, in [Document.What].
const RevocationList = "revocation list"

// PrivateKey is what a key alone is called.
const PrivateKey = "private key"

// ListDocument is the document of a list.
func ListDocument(l *x509.RevocationList) *Document {
	d := &Document{
		What: RevocationList, Name: "of " + cmp.Or(l.Issuer.CommonName, l.Issuer.String()),
		From: l.ThisUpdate, Until: l.NextUpdate, List: l,
	}
	d.Add("revoked", "%s", wording.Plural(len(l.RevokedCertificateEntries), "certificate", "certificates"))
	if l.Number != nil {
		d.Add("number", "%s", l.Number)
	}
	if slices.ContainsFunc(l.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidDeltaCRL) }) {
		d.Add("delta", "it has the changes since another list only")
	}
	d.Add("signature", "%s", l.SignatureAlgorithm)
	return d
}

// WithoutEntries is a list as far as its signature needs it.
func (d *Document) WithoutEntries() *Document {
	out := *d
	out.List, out.Details = withoutEntries(d.List), slices.Clone(d.Details)
	return &out
}

// Oddity is why programs do not read a part of a file that is read here.
type Oddity struct {
	Text        string // a sentence
	UnreadByAll bool   // neither OpenSSL nor Go reads it
	InText      bool   // nothing is wrong with it within a text of another kind, such as JSON
	NotPEM      bool   // the file is not PEM at all, which is odd only where it has to be
}

// ErrNotRegular is why a file is not opened that is none.
var ErrNotRegular = errors.New("it is no regular file")

// TooLargeError says of what, or up to which size, nothing is read.
type TooLargeError string

func (e TooLargeError) Error() string { return string(e) }

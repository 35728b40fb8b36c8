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

// Document is a row that is no certificate: a revocation list, or a private key without a
// certificate; for inspect also a request or a token. An audit passes over the latter two.
type Document struct {
	What        string
	Name        string
	From, Until time.Time // zero means without a beginning, without an end
	Details     []Detail
	Flaws       []Flaw
	Unrelated   bool                 // no concern of an audit, although the name promises a certificate
	List        *x509.RevocationList // for the check of its signature
	// Key and Signature are of a request; the table of checks judges them.
	Key       KeyKind
	Signature x509.SignatureAlgorithm
}

// Detail is a line about a document.
type Detail struct{ Label, Text string }

// Flaw is a fault that was found while a document was read: the id of a check, and the text
// of the finding, which has the worst severity of the check.
type Flaw struct{ Check, Text string }

// Add adds a detail, unless its text is empty.
func (d *Document) Add(label, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" {
		d.Details = append(d.Details, Detail{label, text})
	}
}

// RevocationList is the value of [Document.What] for a list.
const RevocationList = "revocation list"

// PrivateKey is the value of [Document.What] for a key.
const PrivateKey = "private key"

// ListDocument returns the document of a list.
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

// WithoutEntries returns a copy whose list has no entries; its signature can be checked.
func (d *Document) WithoutEntries() *Document {
	out := *d
	out.List, out.Details = withoutEntries(d.List), slices.Clone(d.Details)
	return &out
}

// Oddity says why other programs do not read a part of a file.
type Oddity struct {
	Text        string // a sentence
	UnreadByAll bool   // neither OpenSSL nor Go reads it
	InText      bool   // it does not matter inside a text of another kind, such as JSON
	NotPEM      bool   // the file is not PEM, which matters only if a program expects PEM
}

// ErrNotRegular is the error for a path that is not opened, such as a device.
var ErrNotRegular = errors.New("it is no regular file")

// TooLargeError is the error for input above a limit.
type TooLargeError string

func (e TooLargeError) Error() string { return string(e) }

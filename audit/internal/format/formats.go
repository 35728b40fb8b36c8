package format

import (
	"bytes"
	"crypto"
	"errors"
	"io/fs"
	"slices"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/pkcs12"
	"github.com/artstore/artstore-pki/audit/internal/textencoding"
	"github.com/artstore/artstore-pki/secret"
)

var (
	// ErrEmpty reports a file without content.
	ErrEmpty = errors.New("the file is empty")
	// ErrNoCert reports a file in a known form that holds no certificate.
	ErrNoCert = errors.New("there is no certificate in it")
	// ErrNeither reports a file in no known form.
	ErrNeither = errors.New("it is neither PEM nor a certificate in DER")

	errBadKey  = pkcs12.ErrBadKey
	errLongKey = pkcs12.ErrLongKey
)

// Part is one part of a file: a certificate, a key, a document, or the reason why it is
// none of these. A certificate that can be read in part only has its reason too.
type Part struct {
	// Block is the number of the part in the file, from 1. It is 0 in formats that hold
	// one part only.
	Block int
	Cert  *cert.Certificate
	// Key is the public half of a private key. The private key is not kept.
	Key crypto.PublicKey
	// IsKey is set for each private key, also for one that is encrypted, whose Key may
	// be nil.
	IsKey bool
	// Locked is set for a key that is encrypted. Its public half may be known all the same.
	Locked bool
	Err    error
	// DER is a leaf of a file larger than LargeFile. It is parsed by [Context.Wake] when
	// its row is made, so that a bundle of thousands does not take the memory of all of
	// them.
	DER []byte
	// In is nil for the parts of a plain file.
	In *Location
	// Other names a part that is no concern of an audit, such as a public key.
	Other string
	// Document is a request, a revocation list, a token or another part that has a row
	// of its own without being a certificate.
	Document *cert.Document
	// Oddity says why other programs do not read the part; nil if they do.
	Oddity *cert.Oddity
}

// Location says where in a file a part was found, and how it is stored there.
type Location struct {
	// Object names one of several objects of a file, such as namespace/name of a Secret.
	// The parts of one object belong together: its key is compared with its certificate.
	Object string
	// Entry is the name of the part within the object, such as tls.crt.
	Entry string
	// File is the path of another file that holds the part, relative to the directory
	// of this one; "" if this file holds it.
	File string
	// Access is of that other file; nil if this file holds the part.
	Access *Access
	// Loose is set if the order of the parts says nothing, and unrelated certificates
	// may be among them.
	Loose bool
	// Locked is set if a password opened the store of the part.
	Locked bool
}

// Context is what one audit opens files with.
type Context struct {
	// Known are the certificates of authorities that were parsed before. It must not be nil.
	Known *cert.Cache
	// Passwords are tried on stores. The empty password is always tried.
	Passwords []secret.String
	// Documents adds requests and tokens, which inspect explains and an audit passes over.
	Documents bool
}

// fileFormat is a kind of file that may hold certificates.
type fileFormat struct {
	name string
	// sniff reports whether a file that begins like this is in the format. It gets 4 KiB
	// of most files, and all of a file that is expected to hold a certificate.
	sniff func(head []byte) bool
	// parse reads all that can be read. The caller reuses data afterwards unless it is
	// larger than LargeFile, so the parts must point to copies. The size of data must
	// bound the time.
	parse func(data []byte, with *Context) []Part
	// odd is set if servers and clients do not read the format, although its files have
	// the names under which they look for PEM.
	odd bool
}

// binaryFormats are the formats that are no text. Base64 and entries of manifests may hold
// one of them. DER is last, because the others begin with a SEQUENCE too.
var binaryFormats = []fileFormat{
	{"Java", isJava, parseJava, false},
	{"store", isStore, parseStore, false},
	{"PKCS #12", pkcs12.Is, parsePKCS12, false},
	{"PKCS #7", isPKCS7, parsePKCS7, true},
	{"private key", isKeyDER, parseKeyDER, false},
	{"DER", isDER, parseDER, true},
}

// formats are all formats, in the order in which they are tried. A new format is a file
// with its two functions, a fuzz target, and a row here.
var formats = slices.Concat([]fileFormat{
	{"Kubernetes", isKube, parseKube, false}, // may have PEM in it
	{"PEM", isPEM, parsePEM, false},
	{"SSH", isSSH, parseSSH, false},
	{"token", isToken, parseToken, false},
	{"JSON Web Keys", isJWKS, parseJWKS, false},
	{"XML", isXML, parseXML, false},
	{"PEM in Base64", isArmourInBase64, parseArmourInBase64, false},
	{"Base64", isBase64, parseBase64, true},
}, binaryFormats)

// Sniff returns the name of the format of a file that begins like this, or "" if it is in
// none. A file in a format is worth reading as a whole.
func Sniff(head []byte) string {
	if f := firstOf(formats, textencoding.UTF8(head[:min(len(head), sniffed)])); f != nil {
		return f.name
	}
	return ""
}

// firstOf returns the first format that recognizes head, or nil.
func firstOf(some []fileFormat, head []byte) *fileFormat {
	for i := range some {
		if some[i].sniff(head) {
			return &some[i]
		}
	}
	return nil
}

// parse reads a whole file in the first format that recognizes it.
func parse(data []byte, with *Context) []Part {
	data, odd := decoded(data)
	if len(bytes.TrimSpace(data)) == 0 {
		return []Part{{Err: ErrEmpty}}
	}
	f := firstOf(formats, data)
	parts := f.read(data, with)
	if f != nil && f.name == "PEM" { // others say themselves how their text is encoded
		encodedOddly(parts, odd)
	}
	return parts
}

// parseAs reads data in the first of some formats that recognizes it.
func parseAs(some []fileFormat, data []byte, with *Context) []Part {
	return firstOf(some, data).read(data, with)
}

// read parses data in this format. A nil format is that of a file in no known form.
func (f *fileFormat) read(data []byte, with *Context) []Part {
	if f == nil {
		return []Part{{Err: unreadable(data)}}
	}
	parts := f.parse(data, with)
	if f.odd {
		oddForm(parts, f.name)
	}
	return parts
}

// isDER reports whether data begins as a certificate does (RFC 5280 §4.1): with a SEQUENCE
// of more than 127 bytes that begins with another SEQUENCE. The first byte alone would
// not do, because one of 256 files of any kind has it.
func isDER(head []byte) bool {
	if len(head) < 2 || head[0] != 0x30 || head[1] < 0x80 || head[1] > 0x83 { // 0x80 is an indefinite length (X.690 §8.1.3.6)
		return false
	}
	inner := 2 + int(head[1]&0x7f) // behind the length
	return len(head) > inner && head[inner] == 0x30
}

// parseDER reads a certificate, or else a list or a request.
func parseDER(data []byte, with *Context) []Part {
	c, err := with.Known.Parse(bytes.Clone(data))
	if c != nil {
		return []Part{{Cert: c, Err: err}}
	}
	if doc, err := documentInDER(data, with); doc != nil {
		return []Part{{Document: doc, Err: err}}
	}
	if cert.ParsePartial(data) != nil { // without a date
		return []Part{{Err: err}}
	}
	return []Part{{Err: ErrNeither}}
}

// ParseFile parses a whole file. If a certificate is expected in it, one part at least
// becomes a row of the report. The caller may reuse data afterwards, unless it is larger
// than [LargeFile]: then parts point into it, and it was written over.
func (o *Context) ParseFile(path string, data []byte, expected bool) []Part {
	asItIs := readAsItIs(path, data)
	parts := dropOddity(parse(data, o), asItIs)
	if expected {
		parts = requireCertificate(path, parts)
	}
	return parts
}

// Suffix returns the entry with a colon before it, as the report puts it behind the place
// of a file or an object. It is "" for a part without an entry.
func (in *Location) Suffix() string {
	if in == nil || in.Entry == "" {
		return ""
	}
	return ":" + in.Entry
}

// Access says who may read a file.
type Access struct {
	Mode   fs.FileMode // permissions
	OfRoot bool        // it belongs to root
}

// sniffed is how many bytes of a file decide whether the whole file is read.
const sniffed = 4 << 10

// LargeFile is the size in bytes above which files are read one after the other, so that
// a directory of bundles takes the memory of one bundle.
const LargeFile = 1 << 20

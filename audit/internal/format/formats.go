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

// Unlike package pemfile, which is for whoever will use what it parses, formats
// go on after a bad part: one damaged certificate must not hide the others.

var (
	// ErrEmpty reports a file without content.
	ErrEmpty = errors.New("the file is empty")
	// ErrNoCert reports a file in a known form that holds no certificate.
	ErrNoCert  = errors.New("there is no certificate in it")
	errBadKey  = pkcs12.ErrBadKey
	errLongKey = pkcs12.ErrLongKey
	// ErrNeither reports a file in no known form.
	ErrNeither = errors.New("it is neither PEM nor a certificate in DER")
)

// Part is one part of a file: a certificate, a key, or why it is neither;
// certificate and reason both for one that can be read in part only.
type Part struct {
	Block    int // in the file, from 1; 0 if it can have one only
	Cert     *cert.Certificate
	Key      crypto.PublicKey // of a private key; the key itself is not kept
	IsKey    bool             // also for a key that is encrypted, and cannot be compared
	Locked   bool             // of a key: it is encrypted; its public half may be known all the same
	Err      error
	DER      []byte         // of a certificate that is parsed when its turn has come; it is no authority's
	In       *Location      // nil for the parts of a plain file
	Other    string         // names what is neither certificate nor key nor list, and of no concern
	Document *cert.Document // no certificate, and explained by inspect all the same
	Oddity   *cert.Oddity   // why others do not read it; nil if they do
}

// Location says where in a file a part was, and how it lay there.
type Location struct {
	Object string  // one of several in the file, such as namespace/name: its parts belong together
	Entry  string  // of the object, such as tls.crt
	File   string  // that holds the part instead; relative to the directory of this one
	Access *Access // of that file; nil for what is in this one
	Loose  bool    // in no order that programs rely on, certificates of others among them
	Locked bool    // opened with a password
}

// Context is what one audit opens files with. Formats that need more than bytes
// (passwords, limits of their own) find it here.
type Context struct {
	Known     *cert.Cache
	Passwords []secret.String // that may open stores; the empty one is always tried
	Documents bool            // also what is no certificate: requests, revocation lists, tokens
}

// fileFormat is a kind of file that may hold certificates.
type fileFormat struct {
	name string
	// sniff tells by the beginning of a file (4 KiB; all of it where one is
	// expected to hold a certificate) whether parse should see the whole.
	sniff func(head []byte) bool
	// parse reads everything that can be read. Its data is reused afterwards, unless
	// that is larger than LargeFile: what it returns points to copies. It must end in
	// a time that the size bounds.
	parse func(data []byte, with *Context) []Part
	odd   bool // where programs that serve or verify look for PEM; stores are named otherwise
}

// binaryFormats are the formats that are no text. They may lie in those that are.
var binaryFormats = []fileFormat{
	{"Java", isJava, parseJava, false},
	{"store", isStore, parseStore, false},
	{"PKCS #12", pkcs12.Is, parsePKCS12, false},
	{"PKCS #7", isPKCS7, parsePKCS7, true},
	{"private key", isKeyDER, parseKeyDER, false},
	{"DER", isDER, parseDER, true},
}

// formats in the order in which they are tried. A new format is a file of its
// own with its functions, a fuzz target, and a row here.
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

// Sniff names the format of what begins like this, which should be read whole; "" is none.
func Sniff(head []byte) string {
	if f := firstOf(formats, textencoding.UTF8(head[:min(len(head), sniffed)])); f != nil {
		return f.name
	}
	return ""
}

func firstOf(some []fileFormat, head []byte) *fileFormat {
	for i := range some {
		if some[i].sniff(head) {
			return &some[i]
		}
	}
	return nil
}

// parse reads a whole file.
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

func parseAs(some []fileFormat, data []byte, with *Context) []Part {
	return firstOf(some, data).read(data, with)
}

// read parses what is in this format; nil is none that is known.
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

// isDER takes what begins as a certificate does: a SEQUENCE of more than 127
// bytes that begins with another one. One byte would not do, for every 256th file
// of something else has it. It comes last: other formats begin with a SEQUENCE too.
func isDER(head []byte) bool {
	if len(head) < 2 || head[0] != 0x30 || head[1] < 0x80 || head[1] > 0x83 { // 0x80: BER without a length
		return false
	}
	inner := 2 + int(head[1]&0x7f) // behind the length
	return len(head) > inner && head[inner] == 0x30
}

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

// ParseFile parses a whole file. Where a certificate is expected, there is a part that is
// a row. The data is reused afterwards, unless that is larger than [LargeFile].
func (o *Context) ParseFile(path string, data []byte, expected bool) []Part {
	asItIs := readAsItIs(path, data)
	parts := dropOddity(parse(data, o), asItIs)
	if expected {
		parts = requireCertificate(path, parts)
	}
	return parts
}

// Suffix is what a part adds to the place of its file or object.
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

// sniffed is how much of a file decides whether it is worth reading.
const sniffed = 4 << 10

// LargeFile is from where on a file is not read beside others, so that a directory of
// bundles takes the memory of one.
const LargeFile = 1 << 20

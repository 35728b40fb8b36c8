package audit

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/secret"
)

// Unlike package pemfile, which is for whoever will use what it parses, formats
// go on after a bad part: one damaged certificate must not hide the others.

var (
	errEmpty   = errors.New("the file is empty")
	errNoCert  = errors.New("there is no certificate in it")
	errBadKey  = errors.New("the private key is damaged or of an unsupported kind")
	errLongKey = fmt.Errorf("the private key has more than the %d bytes of any key in use", pemfile.MaxKey)
	errNeither = errors.New("it is neither PEM nor a certificate in DER")
)

// parsed is one part of a file: a certificate, a key, or why it is neither;
// certificate and reason both for one that can be read in part only.
type parsed struct {
	block int // in the file, from 1; 0 if it can have one only
	cert  *Certificate
	key   crypto.PublicKey // of a private key; the key itself is not kept
	isKey bool             // also for a key that is encrypted, and cannot be compared
	err   error
	der   []byte    // of a certificate that is parsed when its turn has come; it is no authority's
	in    *within   // nil for the parts of a plain file
	doc   *document // no certificate, and explained by inspect all the same
}

// within says where in a file a part was, and how it lay there.
type within struct {
	object string      // one of several in the file, such as namespace/name: its parts belong together
	entry  string      // of the object, such as tls.crt
	file   string      // that holds the part instead; relative to the directory of this one
	mode   fs.FileMode // of that file; 0 for what is in this one
	loose  bool        // in no order that programs rely on, certificates of others among them
	locked bool        // opened with a password
}

// opening is what one audit opens files with. Formats that need more than bytes
// (passwords, limits of their own) find it here.
type opening struct {
	known     *authorities
	buffers   buffers
	passwords []secret.String // that may open stores; the empty one is always tried
	documents bool            // also what is no certificate: requests, revocation lists, tokens
}

// format is a kind of file that may hold certificates.
type format struct {
	name string
	// sniff tells by the beginning of a file (4 KiB; all of it where one is
	// expected to hold a certificate) whether parse should see the whole.
	sniff func(head []byte) bool
	// parse reads everything that can be read. Its data is reused afterwards, unless
	// that is larger than largeFile: what it returns points to copies. It must end in
	// a time that the size bounds.
	parse func(data []byte, with *opening) []parsed
}

// formats in the order in which they are tried. A new format is a file of its
// own with its functions, a fuzz target, and a row here.
var formats = []format{
	{"Kubernetes", isKube, parseKube}, // may have PEM in it
	{"PEM", isPEM, parsePEM},
	{"token", isToken, parseToken},
	{"PKCS #12", isPKCS12, parsePKCS12},
	{"PKCS #7", isPKCS7, parsePKCS7},
	{"DER", isDER, parseDER},
}

// sniff finds the format of what begins like this, or nil.
func sniff(head []byte) *format {
	for i := range formats {
		if formats[i].sniff(head) {
			return &formats[i]
		}
	}
	return nil
}

// parse reads a whole file.
func parse(data []byte, with *opening) []parsed {
	if len(bytes.TrimSpace(data)) == 0 {
		return []parsed{{err: errEmpty}}
	}
	f := sniff(data)
	if f == nil {
		return []parsed{{err: errNeither}}
	}
	return f.parse(data, with)
}

// isDER takes what begins as a certificate does: a SEQUENCE of more than 127
// bytes that begins with another one. One byte would not do, for every 256th file
// of something else has it. It comes last: other formats begin with a SEQUENCE too.
func isDER(head []byte) bool {
	if len(head) < 2 || head[0] != 0x30 || head[1] < 0x81 || head[1] > 0x83 {
		return false
	}
	inner := 2 + int(head[1]&0x7f) // behind the length
	return len(head) > inner && head[inner] == 0x30
}

func parseDER(data []byte, with *opening) []parsed {
	c, err := with.certificate(bytes.Clone(data))
	if c != nil {
		return []parsed{{cert: c, err: err}}
	}
	if doc := documentInDER(data, with); doc != nil {
		return []parsed{{doc: doc}}
	}
	return []parsed{{err: errNeither}}
}

// certificate parses der, which it keeps.
func (o *opening) certificate(der []byte) (*Certificate, error) {
	sum := sha256.Sum256(der)
	if c := o.known.get(sum); c != nil {
		return c, nil
	}
	if c := quick(der, sum); c != nil {
		return c, nil
	}
	c, err := ParseCertificate(der)
	if err == nil && c.isCA {
		c = o.known.one(c)
	}
	return c, err
}

// all are the certificates as crypto/x509 has them.
// all are those that signatures may be checked with.
func all(certs []*Certificate) (out []*x509.Certificate) {
	for _, c := range certs {
		if c.key.oversized() {
			continue
		}
		out = append(out, c.X509())
	}
	return out
}

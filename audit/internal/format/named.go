package format

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// namedForm is a kind of file that holds certificates and is not read here. The row of
// such a file says what it is, and which command converts it.
type namedForm struct {
	what    string // for the sentence "it is …"
	convert string // a sentence about the command
	is      func(head []byte) bool
}

// begins returns a function that reports whether one of some magic numbers stands at an
// offset.
func begins(offset int, magic ...string) func([]byte) bool {
	return func(head []byte) bool {
		return len(head) > offset && slices.ContainsFunc(magic, func(m string) bool { return bytes.HasPrefix(head[offset:], []byte(m)) })
	}
}

const unpack = "unpack it, and audit what is in it"

// stores hold certificates and keys only, so each such file is a row, whatever its name.
var stores = []namedForm{
	{"a key store of Bouncy Castle (BKS or UBER)", "keytool -importkeystore -srcstoretype BKS -deststoretype PKCS12 -providerpath bcprov.jar " +
		"-providerclass org.bouncycastle.jce.provider.BouncyCastleProvider writes it as PKCS #12", isBouncyCastle},
	{"a certificate store of Windows", "certutil -dump FILE lists it", begins(0, "\x00\x00\x00\x00CERT")},
	{"a key chain of macOS", "security export -k FILE -t certs -f pemseq writes its certificates as PEM", begins(0, "kych\x00")},
	{"a key box of GnuPG", "gpgsm --armor --export writes its certificates as PEM", begins(8, "KBXf")},
}

// containers may hold anything, so such a file is a row only if its name says that
// certificates are in it. A database of NSS is SQLite, or Berkeley DB in either byte
// order.
var containers = []namedForm{
	{"a certificate database of NSS", "certutil -L -d DIR lists it, pk12util -d DIR -n NAME -o OUT.p12 writes one of them as PKCS #12",
		begins(0, "SQLite format 3\x00", "\x00\x06\x15\x61", "\x61\x15\x06\x00")},
	{"an archive", unpack, begins(0, "PK\x03\x04", "PK\x05\x06", "Rar!", "7z\xbc\xaf\x27\x1c")},
	{"an archive", unpack, begins(257, "ustar")},
	{"compressed", "decompress it, and audit what is in it", begins(0, "\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00", "BZh", "\x04\x22\x4d\x18")},
}

// isBouncyCastle looks for the header of a BKS or UBER store: version 1 or 2, a salt of 20
// bytes with its length, and a number of iterations, which is always below 65536.
func isBouncyCastle(head []byte) bool {
	return begins(0, "\x00\x00\x00\x01\x00\x00\x00\x14", "\x00\x00\x00\x02\x00\x00\x00\x14")(head) && begins(28, "\x00\x00")(head)
}

// isStore reports whether data begins like one of the stores.
func isStore(head []byte) bool {
	return slices.ContainsFunc(stores, func(f namedForm) bool { return f.is(head) })
}

// parseStore returns the error that names the store.
func parseStore(data []byte, _ *Context) []Part { return []Part{{Err: unreadable(data)}} }

// unreadable returns the error for a file in which nothing was found: the name of its form
// if that is known, and ErrNeither if not.
func unreadable(data []byte) error {
	for _, f := range slices.Concat(stores, containers) {
		if f.is(data) {
			return fmt.Errorf("it is %s, which is not read; %s", f.what, f.convert)
		}
	}
	return ErrNeither
}

var (
	archiveNames = []string{".zip", ".tar", ".tgz", ".gz", ".zst", ".xz", ".bz2", ".7z", ".rar", ".lz4"}
	// nssNames are the databases of NSS that hold certificates. Keys have other files.
	nssNames = []string{"cert9.db", "cert8.db"}
	// ofCertificates are words in the names of archives that hold certificates.
	ofCertificates = regexp.MustCompile(`(?i)(^|[^a-z])(cert|certs|certificates?|ca|ca-?bundle|tls|ssl|pki|x509|crt|pem|p12|pfx|p7b|jks|keystore|truststore|acme|letsencrypt|secrets?|keys?)([^a-z]|$)`)
)

// expectsContainer reports whether a file is called like a container of certificates.
func expectsContainer(path string) bool {
	name := filepath.Base(path)
	return slices.Contains(nssNames, strings.ToLower(name)) || slices.Contains(archiveNames, ending(name)) && ofCertificates.MatchString(name)
}

package format

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// namedForm is a kind of file in which certificates are kept and that is not read
// here: its row says what it is, and what converts it.
type namedForm struct {
	what, convert string
	is            func(head []byte) bool
}

// begins is a form that is known by its first bytes, or by those at an offset.
func begins(offset int, magic ...string) func([]byte) bool {
	return func(head []byte) bool {
		return len(head) > offset && slices.ContainsFunc(magic, func(m string) bool { return bytes.HasPrefix(head[offset:], []byte(m)) })
	}
}

const unpack = "unpack it, and audit what is in it"

// stores are kept for certificates and keys only, so that each of them is a row,
// whatever its name.
var stores = []namedForm{
	{"a key store of Bouncy Castle (BKS or UBER)", "keytool -importkeystore -srcstoretype BKS -deststoretype PKCS12 -providerpath bcprov.jar " +
		"-providerclass org.bouncycastle.jce.provider.BouncyCastleProvider writes it as PKCS #12", isBouncyCastle},
	{"a certificate store of Windows", "certutil -dump FILE lists it", begins(0, "\x00\x00\x00\x00CERT")},
	{"a key chain of macOS", "security export -k FILE -t certs -f pemseq writes its certificates as PEM", begins(0, "kych\x00")},
	{"a key box of GnuPG", "gpgsm --armor --export writes its certificates as PEM", begins(8, "KBXf")},
}

// containers hold anything, so that they are rows only where the name says certificates.
var containers = []namedForm{
	{"a certificate database of NSS", "certutil -L -d DIR lists it, pk12util -d DIR -n NAME -o OUT.p12 writes one of them as PKCS #12",
		begins(0, "SQLite format 3\x00", "\x00\x06\x15\x61", "\x61\x15\x06\x00")},
	{"an archive", unpack, begins(0, "PK\x03\x04", "PK\x05\x06", "Rar!", "7z\xbc\xaf\x27\x1c")},
	{"an archive", unpack, begins(257, "ustar")},
	{"compressed", "decompress it, and audit what is in it", begins(0, "\x1f\x8b", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00", "BZh", "\x04\x22\x4d\x18")},
}

// isBouncyCastle looks for version 1 or 2, a salt of 20 bytes, and how often a
// password is hashed, which is below 64 Ki there.
func isBouncyCastle(head []byte) bool {
	return begins(0, "\x00\x00\x00\x01\x00\x00\x00\x14", "\x00\x00\x00\x02\x00\x00\x00\x14")(head) && begins(28, "\x00\x00")(head)
}

func isStore(head []byte) bool {
	return slices.ContainsFunc(stores, func(f namedForm) bool { return f.is(head) })
}

func parseStore(data []byte, _ *Context) []Part { return []Part{{Err: unreadable(data)}} }

// unreadable says what a file is in which nothing was found.
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
	// nssNames are those of the databases with certificates; keys have files of their own.
	nssNames = []string{"cert9.db", "cert8.db"}
	// ofCertificates are words in the names of archives that hold certificates.
	ofCertificates = regexp.MustCompile(`(?i)(^|[^a-z])(cert|certs|certificates?|ca|ca-?bundle|tls|ssl|pki|x509|crt|pem|p12|pfx|p7b|jks|keystore|truststore|acme|letsencrypt|secrets?|keys?)([^a-z]|$)`)
)

// expectsContainer reports whether a file is called like a container of certificates.
func expectsContainer(path string) bool {
	name := filepath.Base(path)
	return slices.Contains(nssNames, strings.ToLower(name)) || slices.Contains(archiveNames, ending(name)) && ofCertificates.MatchString(name)
}

// Package statedir reads and writes the state directory of an authority: trust, keys, the key
// of the log, the marker, and the place of the record. It also makes new directories, and
// finds files that others can read. dir.go has the whole layout.
//
//	f := statedir.Dir{Path: "/srv/pki/ca"}
//	roots, intermediates, err := f.ReadTrust()
//	in, err := statedir.OpenRecord(ctx, f.Path, cfg.Database, verifier)
//
// A caller must know that current.json decides which certificates are in use. A file that it
// does not name has no effect, whatever the directory contains.
//
// Invariants:
//
//   - A directory is an authority only when all its files are on the disk: pki.yaml comes
//     last (TestStaging, TestPublishKilled).
//   - A change of trust takes effect by one rename, and stays in effect when the copies for
//     people cannot be written (TestTrustChangeSurvivesBlockedCopies in ca).
//   - A record that is missing, older than the marker or another authority's is not opened
//     (TestOpenRecord, TestOpenRecordOfAnother).
//   - The key of the log is never made again beside a record (TestLogKeyIsNotReplaced in ca).
//   - A change of the password leaves at each of its writes a directory that opens with the old
//     password or with the new one (TestPasswordCrashes).
package statedir

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// Files of a state directory, for [Path].
const (
	ConfigFile   = "pki.yaml"         // written last: without it a directory is no authority
	RecordFile   = "pki.db"           // unless ConfigFile names a database
	PasswordFile = "secrets/password" // only if init generated it
)

// Path is where a file of the directory is.
func Path(dir, name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }

// Database is where [store.Open] finds the record that pki.yaml speaks of.
func Database(dir, setting string) string {
	switch {
	case setting == "":
		return Path(dir, RecordFile)
	case sqldb.IsURL(setting), filepath.IsAbs(setting):
		return setting
	}
	return Path(dir, setting)
}

// Encrypted reports whether a file with a secret is encrypted, in one of the forms that the
// authority and step write. The error is that of reading the file.
func Encrypted(path string) (bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	return strings.HasSuffix(path, ".jwe") && isJWE(data) || bytes.HasPrefix(data, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----")), nil
}

// isJWE reports whether data is an encrypted key: a JWE in the compact form (RFC 7516 §7.1),
// which init writes, or in JSON (RFC 7516 §7.2), which step writes. A key that is not
// encrypted is JSON without a ciphertext.
func isJWE(data []byte) bool {
	if bytes.HasPrefix(data, []byte("ey")) { // base64url of {"
		return true
	}
	var object struct {
		Ciphertext string `json:"ciphertext"`
	}
	return json.Unmarshal(data, &object) == nil && object.Ciphertext != ""
}

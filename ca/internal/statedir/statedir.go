// Package statedir is what issuing and backups both know of a state directory:
// names of files, where the record is, which secrets anybody could read, and how
// a new one begins. dir.go has the whole layout.
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

// Encrypted reports whether a secret cannot be read without the password. It knows
// the forms in which the authority and step encrypt; errors are those of reading.
func Encrypted(path string) (bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	return strings.HasSuffix(path, ".jwe") && isJWE(data) || bytes.HasPrefix(data, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----")), nil
}

// isJWE reports whether data is an encrypted key in one of the two forms of a JWE:
// compact (RFC 7516 §7.1), as init writes it, or JSON (§7.2), as step does. A key
// that is not encrypted is JSON as well, and has no ciphertext.
func isJWE(data []byte) bool {
	if bytes.HasPrefix(data, []byte("ey")) { // base64url of {"
		return true
	}
	var object struct {
		Ciphertext string `json:"ciphertext"`
	}
	return json.Unmarshal(data, &object) == nil && object.Ciphertext != ""
}

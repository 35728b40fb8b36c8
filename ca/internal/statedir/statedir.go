// Package statedir is what issuing and backups both know of a state directory:
// names of files, where the record is, which secrets anybody could read, and how
// a new one begins. ca/files.go has the whole layout.
package statedir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/durable"
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
	case store.IsURL(setting), filepath.IsAbs(setting):
		return setting
	}
	return Path(dir, setting)
}

// Encrypted reports whether a secret cannot be read without the password. It knows
// the two forms in which the authority encrypts; errors are those of reading.
func Encrypted(path string) (bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	jwe := strings.HasSuffix(path, ".jwe") && strings.HasPrefix(string(data), "ey") // base64url of {"
	return jwe || bytes.HasPrefix(data, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----")), nil
}

// Make begins a state directory, which must be absent or empty
// ([durable.ErrNotEmpty]). After a failure of what follows, undo leaves it as it was.
func Make(dir string) (undo func() error, err error) {
	_, statErr := os.Stat(dir)
	if err := durable.EmptyDir(dir); err != nil {
		return nil, fmt.Errorf("preparing the state directory: %w", err)
	}
	if errors.Is(statErr, os.ErrNotExist) {
		return func() error { return os.RemoveAll(dir) }, nil
	}
	return func() error { return empty(dir) }, nil
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

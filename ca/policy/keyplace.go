package policy

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/artstore/artstore-pki/ca/internal/keystore"
)

// ErrURI reports a URI where only the path of a file is meant.
var ErrURI = errors.New("it is a URI, and the path of a file is wanted")

// uri begins with a scheme (RFC 3986 §3.1); one letter is a drive of Windows.
var uri = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]+:`)

// CheckFile returns [ErrURI] for a URI. Smallstep's libraries would take it for a key in
// hardware.
func CheckFile(path string) error {
	if uri.MatchString(path) {
		return fmt.Errorf("%.80q: %w", path, ErrURI)
	}
	return nil
}

// RootStore returns the URI of the key store in which the key of a new root is made: that of
// RootKey, and "" if that is a file.
func (c Config) RootStore() (string, error) {
	if !keystore.IsURI(c.RootKey) || keystore.Path(c.RootKey) != "" {
		return "", nil
	}
	return keystore.Store(c.RootKey)
}

// checkKey wants the path of a file, or the URI of a key that this program can open.
func checkKey(text string) error {
	if !keystore.IsURI(text) {
		return CheckFile(text)
	}
	if err := keystore.Check(text); err != nil {
		return fmt.Errorf("%.80q: %w", text, err)
	}
	return nil
}

// checkStore wants the URI of a key store. A URI that names a key would make the next
// intermediate with the key of the last one.
func checkStore(text string) error {
	if text == "" {
		return nil
	}
	store, err := keystore.Store(text)
	switch {
	case err != nil:
		return fmt.Errorf("%.80q: %w", text, err)
	case keystore.Path(text) != "":
		return fmt.Errorf("%.80q: software keys are in secrets/, leave it out", text)
	case keystore.NamesKey(text):
		return fmt.Errorf("%.80q: it names a key; name the store only, %s", text, store)
	}
	return nil
}

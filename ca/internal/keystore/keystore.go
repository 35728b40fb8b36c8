// Package keystore finds and makes keys that are not files of the state directory: in tokens
// (PKCS #11), in a TPM and in the key services of clouds. They are named by URIs, such as
//
//	pkcs11:module-path=/usr/lib/softhsm/libsofthsm2.so;token=pki;object=root?pin-source=/etc/pki/pin
//	softkms:path=/media/safe/root.key
//
// which are those of go.step.sm/crypto/kms; for tokens they are the URIs of RFC 7512.
//
//	key, uri, err := keystore.New("pkcs11:token=pki?pin-source=/etc/pki/pin", keytype.P256)
//	key, err = keystore.Open(uri)
//
// A program has the stores that it was built with: softkms always, and pkcs11, tpmkms, awskms,
// azurekms and cloudkms with the build tag of the same name. pkcs11 needs cgo.
//
// A store stays open until the process ends, because its keys are used until then, and is
// opened once: opening a token a second time ends the sessions of the first in some cases.
// After a token was taken out, the process has to be started anew.
//
// Invariants:
//
//   - A PIN is in a file, never in a URI (TestCheck), and a file that cannot be read is an error
//     and not an empty PIN (TestSoftHSM).
//   - A new key never takes the place of another one (TestSoftHSM).
package keystore

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/uri"

	"github.com/artstore/artstore-pki/secret"
)

// The schemes. Those of files need no library.
const (
	softKMS  = "softkms"
	pkcs11   = "pkcs11"
	cloudKMS = "cloudkms"
)

var schemes = []string{softKMS, pkcs11, "tpmkms", "awskms", "azurekms", cloudKMS}

// nameKeys are the attributes that name one key of a store.
var nameKeys = []string{"id", "object", "name", "key-id", "version"}

// pinKeys are attributes with a secret in them, or for a person at a terminal.
var pinKeys = []string{"pin-value", "pin-prompt", "password"}

// Errors of URIs that callers match.
var (
	ErrNotBuilt = errors.New("this program is built without this key store")
	ErrPIN      = errors.New("a PIN is not part of a URI: name a file with it, pin-source=FILE")
)

// IsURI reports whether a setting is the URI of a key, and not the path of a file.
func IsURI(text string) bool {
	scheme, _, found := strings.Cut(text, ":")
	if !found {
		return false
	}
	for _, s := range schemes {
		if strings.EqualFold(s, scheme) {
			return true
		}
	}
	return false
}

// Check refuses a URI that this program cannot use: one of a store that it was not built with
// ([ErrNotBuilt]), one with a PIN in it ([ErrPIN]), and one that is malformed. It opens nothing.
func Check(text string) error {
	_, err := parse(text)
	return err
}

// parse is Check, and returns the parts. Errors never have the query of the URI in them.
func parse(text string) (*uri.URI, error) {
	u, err := uri.Parse(text)
	if err != nil || !IsURI(text) || strings.Contains(text, "#") {
		return nil, errors.New("it is not the URI of a key")
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil { // url.URL.Query leaves out what it cannot read
		return nil, errors.New("what is behind the question mark is malformed")
	}
	for _, key := range pinKeys {
		if u.Has(key) {
			return nil, ErrPIN
		}
	}
	if u.Scheme == softKMS {
		if Path(text) == "" {
			return nil, errors.New("softkms: wants the path of a file: softkms:path=FILE")
		}
		return u, nil
	}
	if _, linked := apiv1.LoadKeyManagerNewFunc(apiv1.Type(u.Scheme)); !linked {
		return nil, fmt.Errorf("%w: go build -tags %s", ErrNotBuilt, u.Scheme)
	}
	return u, nil
}

// Path returns the path of a key that is a file, which the caller reads and decrypts, and ""
// for all others.
func Path(text string) string {
	if !IsURI(text) {
		return text
	}
	u, err := uri.Parse(text)
	if err != nil || u.Scheme != softKMS {
		return ""
	}
	if path := u.Get("path"); path != "" {
		return path
	}
	if !strings.Contains(u.Opaque, "=") {
		return u.Opaque
	}
	return ""
}

// PINFile returns the path of the file with the PIN, or "".
func PINFile(text string) string {
	u, err := uri.Parse(text)
	if !IsURI(text) || err != nil {
		return ""
	}
	return u.Get("pin-source")
}

// Store returns the URI without what names one key in the store: new keys are made there.
func Store(text string) (string, error) {
	u, err := parse(text)
	if err != nil {
		return "", err
	}
	return storeOf(u), nil
}

func storeOf(u *uri.URI) string {
	c := *u.URL
	values := make(url.Values)
	for key, v := range u.Values {
		values[key] = v
	}
	for _, key := range nameKeys {
		values.Del(key)
	}
	if len(u.Values) > 0 && strings.Contains(u.Opaque, "=") {
		c.Opaque = strings.ReplaceAll(values.Encode(), "&", ";")
	}
	return c.String()
}

// opened are the stores of this process by their URIs. A store is shared by all that use
// its keys, see the package comment.
var opened = struct {
	sync.Mutex
	stores map[string]apiv1.KeyManager
}{stores: make(map[string]apiv1.KeyManager)}

// connect opens the store of a key, or returns it if it is open. The PIN file is read here:
// the library takes one that it cannot read for an empty PIN, and a token locks itself after a
// few wrong ones.
func connect(u *uri.URI) (apiv1.KeyManager, error) {
	where := storeOf(u)
	opened.Lock()
	defer opened.Unlock()
	if store := opened.stores[where]; store != nil {
		return store, nil
	}
	if pin := u.Get("pin-source"); pin != "" {
		if _, err := secret.ReadFile(pin); err != nil {
			return nil, fmt.Errorf("reading the PIN: %w", err)
		}
	}
	open, linked := apiv1.LoadKeyManagerNewFunc(apiv1.Type(u.Scheme))
	if !linked {
		return nil, ErrNotBuilt
	}
	store, err := open(context.Background(), apiv1.Options{Type: apiv1.Type(u.Scheme), URI: where}) //nolint:forbidigo // the store stays open until the process ends, longer than any caller
	if err != nil {
		return nil, fmt.Errorf("opening the key store %s: %w", where, err)
	}
	opened.stores[where] = store
	return store, nil
}

// Open returns the key with this URI. A key that is a file is an error, see [Path]. The error
// names the URI, which has no secret in it.
func Open(text string) (crypto.Signer, error) {
	u, err := parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme == softKMS {
		return nil, fmt.Errorf("%s is a file", text)
	}
	store, err := connect(u)
	if err != nil {
		return nil, err
	}
	key, err := store.CreateSigner(&apiv1.CreateSignerRequest{SigningKey: text})
	if err != nil {
		return nil, fmt.Errorf("finding the key: %w", err)
	}
	return key, nil
}

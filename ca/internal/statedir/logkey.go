package statedir

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/durable"
)

// logKeyFile is the key of the log, PKCS #8, encrypted with the password.
const logKeyFile = "secrets/log.key"

// OpenLogKey reads the key of the log. If the key is missing, the error says so, and no key is
// made: with a new key the record would begin another history, and changes from before
// could not be proved.
func (f Dir) OpenLogKey() (*translog.Key, error) {
	data, err := os.ReadFile(f.File(logKeyFile))
	if err != nil {
		return nil, fmt.Errorf("reading the key of the log: %w", err)
	}
	signer, err := f.decodeKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading the key of the log %s: %w", f.File(logKeyFile), err)
	}
	private, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading the key of the log %s: %T is no Ed25519 key", f.File(logKeyFile), signer)
	}
	return f.publishLogKey(private)
}

// MakeLogKey makes the key of the log of a new directory.
func (f Dir) MakeLogKey() (*translog.Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the log: %w", err)
	}
	data, err := f.encodeKey(private)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteNew(f.File(logKeyFile), data, durable.Private); err != nil {
		return nil, fmt.Errorf("writing the key of the log: %w", err)
	}
	return f.publishLogKey(private)
}

// publishLogKey writes the public half beside the certificates, unless it is there. A crash
// between the two files is repaired by the next start. A different public key is an error
// and is not replaced, because kept heads are verified by it.
func (f Dir) publishLogKey(private ed25519.PrivateKey) (*translog.Key, error) {
	key, err := translog.NewKey(private)
	if err != nil {
		return nil, err
	}
	public := f.File(LogPublicFile)
	text := []byte(key.Verifier().String() + "\n")
	old, err := os.ReadFile(public)
	switch {
	case err == nil && bytes.Equal(old, text):
		return key, nil
	case err == nil:
		return nil, fmt.Errorf("reading the key of the log: %s is not the key of %s", f.File(logKeyFile), public)
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("reading the public key of the log: %w", err)
	}
	if err := durable.WriteFile(public, text, durable.Public); err != nil {
		return nil, fmt.Errorf("writing the public key of the log: %w", err)
	}
	return key, nil
}

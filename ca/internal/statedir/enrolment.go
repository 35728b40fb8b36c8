package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/internal/durable"
)

// An enrolment key changes in three writes, and tokens are signed with the key that pki.yaml
// names in each state between them:
//
//  1. [Dir.AddJWK]: secrets/NAME.jwe has the old key and the new one;
//  2. pki.yaml names the new one, which is the commit;
//  3. [Dir.KeepJWK]: secrets/NAME.jwe has the new one alone.

// AddJWK adds a private key to those of a provisioner. current is the public key that
// pki.yaml names; other keys, which a change that was given up has left, are removed. Where
// the private half of current is kept elsewhere, the new one is the only key in the file.
func (f Dir) AddJWK(provisioner string, current, fresh *jose.JSONWebKey) error {
	path := f.JWEPath(provisioner)
	form, err := f.encodeJWK(fresh)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writeJWE(path, form)
	case err != nil:
		return fmt.Errorf("reading the enrolment key: %w", err)
	}
	if err := checkReplaceable(path); err != nil {
		return fmt.Errorf("replacing the enrolment key %s: %w", path, err)
	}
	_, key, err := f.findJWK(data, current)
	if errors.Is(err, errOtherJWK) { // of a pki.yaml from before; nobody accepts its tokens
		return writeJWE(path, form)
	}
	if err != nil {
		return fmt.Errorf("reading the enrolment key %s: %w", path, err)
	}
	old, err := f.encodeJWK(key) // again, because the form of step can have more than one line
	if err != nil {
		return err
	}
	return writeJWE(path, old, form)
}

// KeepJWK removes all keys of a provisioner but the private half of public.
func (f Dir) KeepJWK(provisioner string, public *jose.JSONWebKey) error {
	path := f.JWEPath(provisioner)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the enrolment key: %w", err)
	}
	form, _, err := f.findJWK(data, public)
	if err != nil {
		return fmt.Errorf("reading the enrolment key %s: %w", path, err)
	}
	return writeJWE(path, form)
}

func writeJWE(path string, forms ...[]byte) error {
	var data []byte
	for _, form := range forms {
		data = append(append(data, form...), '\n')
	}
	if err := durable.WriteFile(path, data, durable.Private); err != nil {
		return fmt.Errorf("writing the enrolment key: %w", err)
	}
	return nil
}

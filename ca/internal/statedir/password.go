package statedir

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/flock"
	"github.com/artstore/artstore-pki/secret"
)

// Errors of changes of secrets, for callers that say what to do.
var (
	ErrBusy  = errors.New("another command changes secrets of this directory")
	ErrOwner = errors.New("the file belongs to another user, who could not read what this user writes")
)

// lockFile is held while secrets change. A running authority does not take it: it reads
// whole files only, and each state of them opens.
const lockFile = "secrets/.lock"

// LockSecrets keeps other commands that change secrets away until release is called. The
// lock ends with the process. Where the system has no such locks there is none.
func (f Dir) LockSecrets() (release func(), err error) {
	lock, err := os.OpenFile(f.File(lockFile), os.O_RDWR|os.O_CREATE, durable.Private)
	if err != nil {
		return nil, fmt.Errorf("locking the secrets: %w", err)
	}
	release = func() { _ = flock.Close(lock) } // nothing was written to it
	busy, err := flock.Try(lock, false)
	switch {
	case busy:
		err = ErrBusy
	case errors.Is(err, errors.ErrUnsupported):
		err = nil
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("locking the secrets: %w", err)
	}
	return release, nil
}

// PasswordChange says what [Dir.ChangePassword] does.
type PasswordChange struct {
	// To is the new password.
	To secret.String
	// RootKey is where a root key is that is not in the directory, as root_key of pki.yaml says
	// it; empty means none. One that is no file here, as in a key store, is kept.
	RootKey string
	// RootsOnly changes the password of root keys, and of nothing else.
	RootsOnly bool
	// DryRun opens every key and writes nothing.
	DryRun bool

	write func(path string, data []byte, mode fs.FileMode) error // durable.WriteFile, unless a test stops it
}

// protectedFile is a file with a key while the password changes.
type protectedFile struct {
	path       string
	old, fresh [][]byte // its forms under either password
	data       []byte   // on the disk
	root       bool
}

// content is the file in a phase of the change: with the forms under both passwords, or
// under the new one alone.
func (p protectedFile) content(both bool) []byte {
	forms := p.fresh
	if both {
		forms = append(append([][]byte{}, p.old...), p.fresh...)
	}
	var out []byte
	for _, form := range forms {
		out = append(append(out, bytes.TrimSpace(form)...), '\n')
	}
	return out
}

// ChangePassword puts all keys of the directory under a new password. f has the old one; keys
// that are not encrypted need none. changed are the paths of the files that the old password
// opened, and that now open with the new one alone. kept are those of root keys that neither
// password opens, or that are not here: root keys may have a password of their own.
//
// It has two passes over the files. The first adds to each file its key under the new
// password; the second removes the one under the old password. Before the second pass
// begins, secrets/password gets the new password, if it had the old one. Each write replaces
// one file in one step. So a crash leaves a directory that opens with the old password, or
// with the new one from the end of the first pass on, and the same call goes on from there.
//
// Nothing is written unless every key, except those that are kept, opens with one of the two
// passwords. The caller holds the lock of [Dir.LockSecrets].
func (f Dir) ChangePassword(change PasswordChange) (changed, kept []string, err error) {
	old, err := f.keyPassword()
	if err != nil && !errors.Is(err, ErrNoPassword) {
		return nil, nil, err
	}
	if change.write == nil {
		change.write = durable.WriteFile
	}
	files, kept, err := f.protected(old, change)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range files {
		if !bytes.Equal(p.data, p.content(false)) {
			changed = append(changed, p.path)
		}
	}
	if change.DryRun {
		return changed, kept, nil
	}
	if err := change.rewrite(files, true); err != nil {
		return nil, nil, err
	}
	if !change.RootsOnly {
		if err := f.replacePasswordFile(old, change); err != nil {
			return nil, nil, err
		}
	}
	if err := change.rewrite(files, false); err != nil {
		return nil, nil, err
	}
	return changed, kept, removeUnfinished(files)
}

// rewrite is one pass over the files. What a file has already is not written again.
func (c PasswordChange) rewrite(files []protectedFile, both bool) error {
	for i, p := range files {
		data := p.content(both)
		if bytes.Equal(p.data, data) || both && len(p.old) == 0 {
			continue
		}
		if err := c.write(p.path, data, durable.Private); err != nil {
			return fmt.Errorf("writing a key: %w", err)
		}
		files[i].data = data
	}
	return nil
}

// removeUnfinished removes temporary files of writes that a crash has ended. They can have a
// key under the old password.
func removeUnfinished(files []protectedFile) (err error) {
	for _, p := range files {
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(p.path), "."+filepath.Base(p.path)+".tmp*")) // best effort for a path that is no good pattern
		for _, path := range left {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// replacePasswordFile keeps secrets/password right: an authority that reads it must be able
// to start after a crash, too. A file with another password is not the one that is changed.
func (f Dir) replacePasswordFile(old secret.String, change PasswordChange) error {
	path := f.File(PasswordFile)
	have, err := secret.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && have.Expose() != old.Expose() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if err := change.write(path, []byte(change.To.Expose()+"\n"), durable.Private); err != nil {
		return fmt.Errorf("writing the password: %w", err)
	}
	return nil
}

// protected finds the files with keys and opens each of them. Its errors name the file that
// stops the change.
func (f Dir) protected(old secret.String, change PasswordChange) (files []protectedFile, kept []string, err error) {
	keys, _ := filepath.Glob(f.File("secrets/*.key")) // the patterns are well formed
	if !change.RootsOnly {
		jwes, _ := filepath.Glob(f.File("secrets/*.jwe"))
		requested, _ := filepath.Glob(f.File(requestDir + "/*.key")) // of an intermediate that is signed elsewhere
		keys = slices.Concat(keys, jwes, requested)
	}
	if change.RootKey != "" {
		keys = append(keys, change.RootKey)
	}
	for _, path := range keys {
		p := protectedFile{path: path, root: path == change.RootKey || f.isRootKey(path)}
		if change.RootsOnly && !p.root {
			continue
		}
		err := f.openProtected(&p, old, change.To)
		switch {
		case err == nil:
			files = append(files, p)
		case p.root && (errors.Is(err, ErrWrongPassword) || errors.Is(err, ErrNoPassword) || path == change.RootKey && errors.Is(err, fs.ErrNotExist)):
			kept = append(kept, path)
		default:
			return nil, nil, fmt.Errorf("reading key %s: %w", path, err)
		}
	}
	return files, kept, nil
}

// isRootKey reports whether a file of secrets is the key of a certificate that is its own
// issuer. A key without a certificate is none.
func (f Dir) isRootKey(path string) bool {
	fp := strings.TrimSuffix(filepath.Base(path), ".key")
	if !fingerprintForm.MatchString(fp) {
		return false
	}
	c, err := f.readCert(fp)
	return err == nil && cacert.IsRoot(c)
}

// openProtected reads a file, sorts its forms by the password that opens them, and makes the
// forms under the new password that are missing. Forms that neither opens are those of a
// change to a third password that was given up; they go, if another form opens.
func (f Dir) openProtected(p *protectedFile, old, next secret.String) (err error) {
	if err := checkReplaceable(p.path); err != nil {
		return err
	}
	if p.data, err = os.ReadFile(p.path); err != nil {
		return err
	}
	var before, after []privateKey
	for _, form := range formsOf(p.path, p.data) {
		if !needsNoPassword(p.path, form) {
			if key, err := f.with(next).open(p.path, form); err == nil {
				p.fresh, after = append(p.fresh, form), append(after, key)
				continue
			}
		}
		key, failed := f.with(old).open(p.path, form)
		if failed != nil {
			err = failed
			continue
		}
		p.old, before = append(p.old, form), append(before, key)
	}
	if len(before)+len(after) == 0 {
		return err
	}
	for _, key := range before {
		if slices.ContainsFunc(after, key.equal) {
			continue
		}
		form, err := f.with(next).encode(key)
		if err != nil {
			return err
		}
		p.fresh, after = append(p.fresh, form), append(after, key)
	}
	return nil
}

// checkReplaceable refuses a file that a rename would not replace as it is: it would become
// another user's, or a link would become a file.
func checkReplaceable(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if uid, ok := fileperm.Owner(info); ok && uid != os.Geteuid() {
		return fmt.Errorf("%w: run the command as user %d", ErrOwner, uid)
	}
	return nil
}

// privateKey is what a file of secrets has: a key that signs, or an enrolment key.
type privateKey struct {
	signer crypto.Signer
	jwk    *jose.JSONWebKey
}

func (k privateKey) equal(other privateKey) bool {
	if k.jwk != nil && other.jwk != nil {
		return sameJWK(k.jwk, other.jwk)
	}
	public, ok := k.signer.(interface {
		Equal(x crypto.PrivateKey) bool
	}) // all private keys of the standard library have it
	return ok && public.Equal(other.signer)
}

func isJWEFile(path string) bool { return strings.HasSuffix(path, ".jwe") }

func formsOf(path string, data []byte) [][]byte {
	if isJWEFile(path) {
		return jweForms(data)
	}
	return keyForms(data)
}

func needsNoPassword(path string, form []byte) bool {
	if isJWEFile(path) {
		return !isJWE(form)
	}
	return isPlain(form)
}

func (f Dir) open(path string, form []byte) (key privateKey, err error) {
	if isJWEFile(path) {
		key.jwk, err = f.openJWK(form)
		return key, err
	}
	key.signer, err = f.openKey(form)
	return key, err
}

// encode returns the form of a key under the password of f.
func (f Dir) encode(key privateKey) ([]byte, error) {
	if key.jwk != nil {
		return f.encodeJWK(key.jwk)
	}
	return f.encodeKey(key.signer)
}

package statedir_test

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/secret"
)

var (
	oldPassword = secret.New("the old password")
	newPassword = secret.New("the new password")
)

// made is a state directory with keys under oldPassword, or without encryption.
func made(t *testing.T, opt setup.Options) string {
	t.Helper()
	opt.Dir = filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(context.WithoutCancel(t.Context()), opt); err != nil {
		t.Fatal(err)
	}
	return opt.Dir
}

// keyring remembers which contents of files a password opens: deriving a key from a password
// is slow on purpose, and the states of a change have most of their files in common.
type keyring map[string]error

// opens reads every key of a directory with a password, as the authority and the commands
// do. The zero password stands for secrets/password.
func (k keyring) opens(t *testing.T, dir string, pw secret.String) error {
	t.Helper()
	f := statedir.Dir{Path: dir, Password: pw}
	if text, err := os.ReadFile(f.File(statedir.PasswordFile)); err == nil && pw.IsZero() {
		pw = secret.New(string(text))
	}
	cfg, err := policy.Load(dir)
	must(t, err)
	rules, err := cfg.Parse()
	must(t, err)
	roots, intermediates, err := f.ReadTrust()
	must(t, err)
	read := func(path string, open func() error) error {
		data, err := os.ReadFile(path)
		must(t, err)
		id := pw.Expose() + " " + string(data)
		if _, known := k[id]; !known {
			k[id] = open()
		}
		return k[id]
	}
	ca := func(c *x509.Certificate) error {
		return read(f.KeyPath(certs.Fingerprint(c)), func() error { _, err := f.ReadKey(c, ""); return err })
	}
	return errors.Join(ca(roots[0]), ca(intermediates[0]),
		read(f.File("secrets/log.key"), func() error { _, err := f.OpenLogKey(); return err }),
		read(f.JWEPath("enrolment"), func() error { _, err := f.ReadJWK("enrolment", rules.JWKs[0].Key); return err }))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPasswordCrashes keeps what is on the disk before each write of a change: that is what a
// crash leaves there. Each of these states opens with the old password or with the new one,
// and with what secrets/password has. The same call ends the change.
func TestPasswordCrashes(t *testing.T) {
	if testing.Short() {
		t.Skip("it derives keys for seconds; -short leaves it out")
	}
	t.Parallel()
	dir, seen := made(t, setup.Options{}), keyring{}
	old, err := secret.ReadFile(filepath.Join(dir, "secrets", "password"))
	must(t, err)
	var states []string
	change := statedir.PasswordChange{To: newPassword}
	change.BeforeWrite(func() error {
		state := filepath.Join(t.TempDir(), "ca")
		states = append(states, state)
		return os.CopyFS(state, os.DirFS(dir))
	})
	_, _, err = statedir.Dir{Path: dir}.ChangePassword(change)
	must(t, err)
	changedTo(t, seen, dir, old)
	if len(states) != 9 { // four keys, twice, and the password
		t.Errorf("%d writes", len(states))
	}
	for i, state := range states {
		before, after := seen.opens(t, state, old), seen.opens(t, state, newPassword)
		if before != nil && after != nil {
			t.Errorf("before write %d: %v\n%v", i, before, after)
		}
		if err := seen.opens(t, state, secret.String{}); err != nil {
			t.Errorf("before write %d, with secrets/password: %v", i, err)
		}
		if i%3 != 2 { // in both passes, and behind them
			continue
		}
		_, _, err := statedir.Dir{Path: state, Password: old}.ChangePassword(statedir.PasswordChange{To: newPassword})
		must(t, err)
		changedTo(t, seen, state, old)
	}
}

// beginOfJWE is where a JWE begins in a file, and not where its ciphertext looks like that by chance.
var beginOfJWE = regexp.MustCompile(`(?m)(?:^|")eyJ`)

// changedTo wants each key under newPassword, and no form of it that another one opens.
func changedTo(t *testing.T, seen keyring, dir string, old secret.String) {
	t.Helper()
	if err := seen.opens(t, dir, newPassword); err != nil {
		t.Error(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "secrets", "*"))
	must(t, err)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		must(t, err)
		n := strings.Count(string(data), "-----BEGIN ENCRYPTED")
		if n == 0 { // the base64 of a PEM block can have the beginning of a JWE in it, by chance
			n = len(beginOfJWE.FindAll(data, -1))
		}
		if n > 1 ||
			(filepath.Ext(path) == ".key" || filepath.Ext(path) == ".jwe") && n == 0 || strings.Contains(string(data), old.Expose()) {
			t.Errorf("%s has %d forms, or the old password", path, n)
		}
	}
}

// TestPasswordOfPlainKeys encrypts keys that were not, and leaves nothing of them behind, not
// even in a temporary file of a write that was killed.
func TestPasswordOfPlainKeys(t *testing.T) {
	t.Parallel()
	dir := made(t, setup.Options{PlainKeys: true})
	for path, text := range map[string]string{"secrets/.log.key.tmp123": "left by a kill", "secrets/.other.tmp1": "not ours"} {
		must(t, os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600))
	}
	f, seen := statedir.Dir{Path: dir}, keyring{}
	requested, err := os.ReadFile(f.File("secrets/log.key"))
	must(t, err)
	must(t, os.Mkdir(f.File("request"), 0o700))
	must(t, os.WriteFile(f.File("request/intermediate.key"), requested, 0o600)) // of a certificate that is signed elsewhere
	changed, kept, err := f.ChangePassword(statedir.PasswordChange{To: newPassword, RootKey: "pkcs11:token=root", DryRun: true})
	if err != nil || len(changed) != 5 || len(kept) != 1 {
		t.Fatalf("dry run: %q %q %v", changed, kept, err)
	}
	must(t, seen.opens(t, dir, secret.String{}))
	change := statedir.PasswordChange{To: newPassword}
	writes := 0
	change.BeforeWrite(func() error {
		if writes++; writes > 6 { // some are encrypted, some are not
			return statedir.ErrKilled
		}
		return nil
	})
	if _, _, err := f.ChangePassword(change); !errors.Is(err, statedir.ErrKilled) {
		t.Fatal(err)
	}
	must(t, seen.opens(t, dir, newPassword))
	if _, _, err := f.ChangePassword(statedir.PasswordChange{To: newPassword}); err != nil {
		t.Fatal(err)
	}
	changedTo(t, seen, dir, secret.New("BEGIN "+"PRIVATE KEY")) // without ENCRYPTED
	if now, err := os.ReadFile(f.File("request/intermediate.key")); err != nil || !strings.Contains(string(now), "ENCRYPTED") {
		t.Errorf("the key of a request is not encrypted, %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "secrets", ".*")); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}

// TestPasswordOfRoots changes the root key alone, which then has a password of its own: a
// change of the others leaves it as it is. A key that no password opens, and is no root key,
// stops the change before anything is written.
func TestPasswordOfRoots(t *testing.T) {
	t.Parallel()
	elsewhere := filepath.Join(t.TempDir(), "root.key")
	dir := made(t, setup.Options{Password: oldPassword, OfflineRoot: elsewhere})
	f := statedir.Dir{Path: dir, Password: oldPassword}
	ofRoot := secret.New("that of the root")
	changed, _, err := f.ChangePassword(statedir.PasswordChange{To: ofRoot, RootKey: elsewhere, RootsOnly: true})
	if err != nil || len(changed) != 1 || changed[0] != elsewhere {
		t.Fatalf("changed %q, %v", changed, err)
	}
	changed, kept, err := f.ChangePassword(statedir.PasswordChange{To: newPassword, RootKey: elsewhere})
	if err != nil || len(changed) != 3 || len(kept) != 1 || kept[0] != elsewhere {
		t.Fatalf("changed %q, kept %q, %v", changed, kept, err)
	}
	roots, _, err := f.ReadTrust()
	must(t, err)
	f.Password = ofRoot
	if _, err := f.ReadKey(roots[0], elsewhere); err != nil {
		t.Error(err)
	}
	must(t, os.Remove(elsewhere))
	f.Password = newPassword
	if _, kept, err = f.ChangePassword(statedir.PasswordChange{To: oldPassword, RootKey: elsewhere, DryRun: true}); err != nil || len(kept) != 1 {
		t.Errorf("without the medium: kept %q, %v", kept, err)
	}
	f.Password = ofRoot
	if _, _, err := f.ChangePassword(statedir.PasswordChange{To: oldPassword}); !errors.Is(err, statedir.ErrWrongPassword) {
		t.Errorf("with a password that opens nothing: %v", err)
	}
}

// TestLockSecrets lets one command change secrets at a time.
func TestLockSecrets(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "secrets"), 0o700))
	f := statedir.Dir{Path: dir}
	release, err := f.LockSecrets()
	must(t, err)
	if _, err := f.LockSecrets(); !errors.Is(err, statedir.ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	release()
	release, err = f.LockSecrets()
	must(t, err)
	release()
}

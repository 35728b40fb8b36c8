package statedir_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/secret"
)

// newDir returns a directory with the folders that an authority has.
func newDir(t *testing.T) statedir.Dir {
	t.Helper()
	f := statedir.Dir{Path: t.TempDir(), Password: secret.New("correct-horse-battery")}
	for _, name := range []string{"certs", "secrets"} {
		if err := durable.MkdirAll(f.File(name)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// TestKeyElsewhere: a certificate whose key is named by a URI has no key in the directory, and
// ReadKey follows the URI. A replica gets the URI from the record, sealed.
func TestKeyElsewhere(t *testing.T) {
	made, err := cacert.New(cacert.Template{Name: "Test", Lifetime: time.Hour}, cacert.Issuer{})
	if err != nil {
		t.Fatal(err)
	}
	here, elsewhere := newDir(t), newDir(t)
	fp := certs.Fingerprint(made.Cert)
	if err := elsewhere.WriteIssuer(made); err != nil {
		t.Fatal(err)
	}
	made.KeyURI = "softkms:path=" + elsewhere.KeyPath(fp)
	if err := here.WriteIssuer(made); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(here.KeyPath(fp)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key is in the directory too: %v", err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	logKey, err := translog.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	row, err := here.Row(made.Cert, logKey, false)
	if err != nil || strings.Contains(string(row.SealedKey), "softkms") {
		t.Fatalf("the row of a replica: %v", err)
	}
	replica := newDir(t)
	for range 2 { // the second time, all is there
		if err := replica.Install(row, logKey); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []statedir.Dir{here, replica} {
		key, err := f.ReadKey(made.Cert, "/nowhere")
		if err != nil || !certs.Fits(made.Cert, key) {
			t.Errorf("%v", err)
		}
	}
	row.SealedKey[len(row.SealedKey)-1] ^= 1
	if err := newDir(t).Install(row, logKey); err == nil {
		t.Error("a URI that somebody has changed in the record was taken")
	}
	if err := os.Remove(filepath.Join(here.Path, "certs", fp+".uri")); err != nil {
		t.Fatal(err)
	}
	if key, err := here.ReadKey(made.Cert, made.KeyURI); err != nil || !certs.Fits(made.Cert, key) {
		t.Errorf("by root_key: %v", err)
	}
	if _, err := here.ReadKey(made.Cert, "awskms:key-id=x"); !errors.Is(err, keystore.ErrNotBuilt) {
		t.Errorf("a key store that is not built in: %v", err)
	}
	if _, err := here.ReadKey(made.Cert, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nowhere: %v", err)
	}
}

// TestExposedPIN: the file of a PIN is looked at like a key.
func TestExposedPIN(t *testing.T) {
	f := newDir(t)
	pins := [2]string{filepath.Join(t.TempDir(), "root.pin"), filepath.Join(t.TempDir(), "pin")}
	for _, p := range pins {
		if err := errors.Join(durable.WriteFile(p, []byte("1234"), durable.Private), os.Chmod(p, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	uri := filepath.Join(f.File("certs"), strings.Repeat("a", 64)+".uri")
	if err := durable.WriteFile(uri, []byte("pkcs11:token=x?pin-source="+pins[1]+"\n"), durable.Public); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range f.Exposures("pkcs11:token=x;object=root?pin-source="+pins[0], "") {
		found = append(found, e.Text)
	}
	for _, p := range pins {
		if !strings.Contains(strings.Join(found, "\n"), p+" has mode 0644") {
			t.Errorf("%s is not found: %q", p, found)
		}
	}
}

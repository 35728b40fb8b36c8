package crl_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/internal/certs"
)

// rootWorld is a root in a state directory with nothing else.
type rootWorld struct {
	dir  string
	root cacert.Issuer
}

func newRoot(t *testing.T) rootWorld {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := cacert.New(cacert.Template{Name: "Test", Lifetime: time.Hour}, cacert.Issuer{})
	if err != nil {
		t.Fatal(err)
	}
	return rootWorld{dir, root}
}

func (w rootWorld) path() string {
	return filepath.Join(w.dir, "certs", certs.Fingerprint(w.root.Cert)+".crl")
}

func (w rootWorld) intermediate(t *testing.T) *x509.Certificate {
	t.Helper()
	made, err := cacert.New(cacert.Template{Name: "Test", Lifetime: time.Hour}, w.root)
	if err != nil {
		t.Fatal(err)
	}
	return made.Cert
}

// list reads the list as another program would.
func (w rootWorld) list(t *testing.T) *x509.RevocationList {
	t.Helper()
	data, err := os.ReadFile(w.path())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	list, err := x509.ParseRevocationList(block.Bytes)
	if err == nil {
		err = list.CheckSignatureFrom(w.root.Cert)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (w rootWorld) write(t *testing.T, revoked ...crl.Revoked) crl.RootLists {
	t.Helper()
	if err := crl.WriteRoot(w.dir, w.root, revoked); err != nil {
		t.Fatal(err)
	}
	lists, err := crl.ReadRoots(w.dir, []*x509.Certificate{w.root.Cert})
	if err != nil {
		t.Fatal(err)
	}
	return lists
}

// A list of a root has the entries of the list before and new ones, and is newer than it by
// number and time, also after the clock was set back.
func TestRootListGrows(t *testing.T) {
	w := newRoot(t)
	first, second, good := w.intermediate(t), w.intermediate(t), w.intermediate(t)
	at := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	if lists := w.write(t); lists.Of(w.root.Cert).Entries() != 0 || lists.Blocking([][]*x509.Certificate{{first, w.root.Cert}}) != nil {
		t.Error("the first list is not empty")
	}
	w.write(t, crl.Revoked{Serial: first.SerialNumber, At: at, Reason: 2})
	w.write(t, crl.Revoked{Serial: second.SerialNumber, At: at}, crl.Revoked{Serial: first.SerialNumber, At: at.Add(time.Second)})
	before := w.list(t)
	future, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: new(big.Int).Add(before.Number, big.NewInt(1<<50)), ThisUpdate: time.Now().Add(30 * time.Minute), NextUpdate: before.NextUpdate,
		RevokedCertificateEntries: before.RevokedCertificateEntries,
	}, w.root.Cert, w.root.Key)
	if err != nil {
		t.Fatal(err)
	}
	damage.File(t, w.path(), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: future}))
	ahead := w.list(t)
	lists := w.write(t)
	after := w.list(t)
	if after.Number.Cmp(ahead.Number) <= 0 || after.ThisUpdate.Before(ahead.ThisUpdate) || len(after.RevokedCertificateEntries) != 2 ||
		!after.NextUpdate.Equal(w.root.Cert.NotAfter) || after.RevokedCertificateEntries[0].ReasonCode != 2 {
		t.Errorf("number %d after %d, of %s after %s, until %s, %d entries", after.Number, ahead.Number, after.ThisUpdate, ahead.ThisUpdate, after.NextUpdate, len(after.RevokedCertificateEntries))
	}
	if got := lists.RevokedAt(first); !got.Equal(at) {
		t.Errorf("revoked at %s, want %s: a later entry changes nothing", got, at)
	}
	if got := lists.RevokedAt(good); !got.IsZero() {
		t.Errorf("an intermediate that is not on the list: %s", got)
	}
	leaf := &x509.Certificate{SerialNumber: first.SerialNumber, RawIssuer: first.RawSubject}
	bad, fine := []*x509.Certificate{leaf, second, w.root.Cert}, []*x509.Certificate{leaf, good, w.root.Cert}
	if c := lists.Blocking([][]*x509.Certificate{bad}); c == nil || !c.Equal(second) {
		t.Errorf("a chain with a revoked intermediate: %v", c)
	}
	if c := lists.Blocking([][]*x509.Certificate{bad, fine}); c != nil {
		t.Error("another chain has no revoked certificate")
	}
}

// A damaged list is not replaced by one that may name less.
func TestRootListDamaged(t *testing.T) {
	w := newRoot(t)
	other := newRoot(t)
	other.write(t)
	foreign, err := os.ReadFile(other.path())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"no list": []byte("x"), "of another root": foreign} {
		damage.File(t, w.path(), content)
		if err := crl.WriteRoot(w.dir, w.root, nil); err == nil || !strings.Contains(err.Error(), "reading the root's list") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(w.path()); err != nil || string(got) != string(content) {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
	}
}

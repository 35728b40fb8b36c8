//go:build pkcs11 && cgo

package setup_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/internal/hsmtest"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// TestTokenRotates: root and intermediate have their keys in a token. The authority issues with
// it, is rotated, and is opened again; no private key of a CA certificate is ever in a file.
func TestTokenRotates(t *testing.T) {
	token := hsmtest.Token(t)
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := setup.Init(t.Context(), setup.Options{
		Dir: dir, Root: setup.Certificate{KMS: token, KeyType: "EC-P384"}, Intermediate: setup.Certificate{KMS: token},
	})
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := os.ReadFile(filepath.Join(dir, "pki.yaml"))
	if err != nil || !strings.Contains(string(yaml), "\nroot_key: \"pkcs11:") || !strings.Contains(string(yaml), "\nintermediate_key: \"pkcs11:") {
		t.Errorf("pki.yaml, %v: %s", err, yaml)
	}
	seen := map[string]bool{}
	for n, step := range []string{"", stepapi.StepRotateIntermediate, "", stepapi.StepAdd, stepapi.StepActivate, stepapi.StepRotateIntermediate} {
		a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if step != "" {
			if _, err := a.ChangeTrust(t.Context(), "test", stepapi.TrustChange{Step: step}); err != nil {
				t.Errorf("%s: %v", step, err)
			}
		}
		issuer := issues(t, a)
		if fresh := n == 0 || step == stepapi.StepRotateIntermediate || step == stepapi.StepActivate; fresh == seen[issuer] {
			t.Errorf("after %q the issuer is %s", step, issuer)
		}
		seen[issuer] = true
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, path := range damage.Files(t, dir, "secrets/*.key") {
		if filepath.Base(path) != "log.key" {
			t.Errorf("there is a key in %s", path)
		}
	}
}

// TestTokenUsesKeys: the key of an imported intermediate may be in a token, and so may that of a
// request.
func TestTokenUsesKeys(t *testing.T) {
	token, root := hsmtest.Token(t), holder(t)
	dir, csr := request(t, setup.Options{Intermediate: setup.Certificate{KMS: strings.Replace(token, "token=pki", "token=pki;id=%b1;object=issuing", 1)}})
	chain := []*x509.Certificate{sign(t, root, csr, nil), root.Cert}
	if _, err := setup.Finish(dir, chain); err != nil {
		t.Fatal(err)
	}
	imported := filepath.Join(t.TempDir(), "ca")
	_, err := setup.Init(t.Context(), setup.Options{
		Dir: imported, PlainKeys: true, Existing: setup.Existing{Root: root.Cert, Intermediate: chain[0]},
		Intermediate: setup.Certificate{KMS: strings.Replace(token, "token=pki", "token=pki;object=issuing", 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{dir, imported} {
		a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if got := issues(t, a); got != certs.Fingerprint(chain[0]) {
			t.Errorf("%s issues", got)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

//go:build pkcs11 && cgo

package keystore_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/hsmtest"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
)

// TestSoftHSM: keys are made in a token, found again, and never replaced; pkcs11-tool of OpenSC,
// which is another program, sees the same.
func TestSoftHSM(t *testing.T) {
	token := hsmtest.Token(t)
	if err := keystore.Check(token); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{keytype.P256, keytype.P384, keytype.RSA3072} {
		key, uri, err := keystore.New(token, kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := keytype.Of(key.Public()); got != kind {
			t.Errorf("%s is %s", kind, got)
		}
		if store, err := keystore.Store(uri); err != nil || keystore.NamesKey(store) || !keystore.NamesKey(uri) {
			t.Errorf("%s is in the store %s, %v", uri, store, err)
		}
		again, err := keystore.Open(uri)
		if err != nil {
			t.Fatal(err)
		}
		if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(again.Public()) {
			t.Errorf("%s is another key when it is opened", uri)
		}
		same, sameURI, err := keystore.New(uri, keytype.P256)
		if err != nil || sameURI != uri || keytype.Of(same.Public()) != kind {
			t.Errorf("a key that is there is used: %v", err)
		}
		if public, ok := again.Public().(*ecdsa.PublicKey); ok {
			sum := sha256.Sum256([]byte("x"))
			signature, err := again.Sign(rand.Reader, sum[:], crypto.SHA256)
			if err != nil || !ecdsa.VerifyASN1(public, sum[:], signature) {
				t.Errorf("signing: %v", err)
			}
		}
	}
	named := strings.Replace(token, "token=pki", "token=pki;id=%a1;object=mine", 1)
	if _, uri, err := keystore.New(named, keytype.P256); err != nil || uri != named && !strings.Contains(uri, "object=mine") {
		t.Errorf("a key with a name of one's own: %s %v", uri, err)
	}
	out, err := exec.CommandContext(t.Context(), "pkcs11-tool", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--token-label", "pki", "--list-objects", "--type", "pubkey").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "mine") || strings.Count(string(out), "artstore-pki-") != 3 {
		t.Errorf("pkcs11-tool: %v\n%s", err, out)
	}

	if _, err := keystore.Open(strings.Replace(token, "token=pki", "token=pki;object=absent", 1)); err == nil {
		t.Error("a key that is not there was opened")
	}
	absent := filepath.Join(t.TempDir(), "pin")
	if _, err := keystore.Open("pkcs11:token=pki;object=mine?pin-source=" + absent); err == nil || !strings.Contains(err.Error(), "reading the PIN: open "+absent) {
		t.Errorf("without the file of the PIN: %v", err)
	}
	if _, _, err := keystore.New(token, keytype.Ed25519); err == nil {
		t.Error("a key that the library cannot make was made")
	}
}

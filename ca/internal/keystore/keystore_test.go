package keystore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
)

// TestCheck: what is a URI, and which ones this program can use. Without build tags these are
// software keys only.
func TestCheck(t *testing.T) {
	for text, want := range map[string]struct {
		uri  bool
		path string
		err  string
	}{
		"":                                  {false, "", "not the URI of a key"},
		"/media/safe/root.key":              {false, "/media/safe/root.key", "not the URI"},
		"root:key":                          {false, "root:key", "not the URI"},
		"softkms:path=/media/safe/root.key": {true, "/media/safe/root.key", ""},
		"softkms:/media/safe/root.key":      {true, "", "wants the path"},
		"softkms:root.key":                  {true, "root.key", ""},
		"softkms:":                          {true, "", "wants the path"},
		"SoftKMS:path=x":                    {true, "x", ""},
		"softkms:path=x?pin-value=1234":     {true, "x", "a PIN is not part of a URI"},
		"pkcs11:token=a?pin-value=1234":     {true, "", "a PIN is not part of a URI"},
		"pkcs11:token=a;pin-value=1234":     {true, "", "a PIN is not part of a URI"},
		"pkcs11:token=a?pin-prompt=PIN":     {true, "", "a PIN is not part of a URI"},
		"awskms:region=%zz":                 {true, "", "not the URI"},
	} {
		if got := keystore.IsURI(text); got != want.uri {
			t.Errorf("%q is a URI: %v", text, got)
		}
		if got := keystore.Path(text); got != want.path {
			t.Errorf("%q is the file %q, want %q", text, got, want.path)
		}
		if err := keystore.Check(text); (err == nil) != (want.err == "") || err != nil && (!strings.Contains(err.Error(), want.err) || strings.Contains(err.Error(), "1234")) {
			t.Errorf("%q: %v, want %q", text, err, want.err)
		}
	}
	for _, text := range []string{"awskms:region=eu-west-1", "azurekms:vault=x", "cloudkms:projects/p", "tpmkms:name=x"} {
		if err := keystore.Check(text); !errors.Is(err, keystore.ErrNotBuilt) {
			t.Skipf("%q: %v: this test program is built with a key store", text, err)
		}
		if _, _, err := keystore.New(text, keytype.P256); !errors.Is(err, keystore.ErrNotBuilt) {
			t.Errorf("%q: a key was made, %v", text, err)
		}
		if _, err := keystore.Open(text); !errors.Is(err, keystore.ErrNotBuilt) {
			t.Errorf("%q: opened, %v", text, err)
		}
	}
	if _, _, err := keystore.New("softkms:path=x", keytype.P256); err == nil {
		t.Error("a software key is made in a key store")
	}
	if got := keystore.PINFile("pkcs11:token=pki?pin-source=/etc/pki/pin"); got != "/etc/pki/pin" {
		t.Errorf("the PIN is in %q", got)
	}
}

// FuzzCheck: no URI makes the parser panic, and no error has the value of a PIN in it.
func FuzzCheck(f *testing.F) {
	f.Add("pkcs11:token=a;object=b?pin-source=/x", "1234")
	f.Add("softkms:path=/x", "")
	f.Add("awskms:key-id=a;region=b", "")
	f.Fuzz(func(t *testing.T, text, pin string) {
		_, _, _ = keystore.IsURI(text), keystore.Path(text), keystore.PINFile(text)
		_ = keystore.NamesKey(text)
		mark := "?"
		if strings.Contains(text, "?") {
			mark = "&"
		}
		if err := keystore.Check(text + mark + "pin-value=" + pin); err == nil {
			t.Errorf("%q was taken with a PIN", text)
		} else if len(pin) > 40 && strings.Contains(err.Error(), pin) {
			t.Errorf("%q: %v", text, err)
		}
		if store, err := keystore.Store(text); err == nil && keystore.NamesKey(store) {
			t.Errorf("%q: the store %q names a key", text, store)
		}
	})
}

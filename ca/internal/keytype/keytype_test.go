package keytype_test

import (
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/keytype"
)

// TestNew: a key is of the kind that was asked for, and of one that profiles know.
func TestNew(t *testing.T) {
	for kind, want := range map[string]string{
		"": keytype.P256, keytype.P256: keytype.P256, keytype.Ed25519: keytype.Ed25519, keytype.RSA3072: keytype.RSA3072,
	} {
		key, err := keytype.New(kind)
		if err != nil {
			t.Errorf("%q: %v", kind, err)
			continue
		}
		if got := keytype.Of(key.Public()); got != want || !slices.Contains(keytype.All, got) {
			t.Errorf("%q: %s", kind, got)
		}
	}
	for _, kind := range []string{keytype.P384, keytype.RSA2048, keytype.RSA4096, "DSA"} {
		if _, err := keytype.New(kind); err == nil {
			t.Errorf("%s was made", kind)
		}
	}
}

package source_test

import (
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// A file that is named itself is judged with the bundle and the key beside it. Faults of these
// are rows, as they are if the directory is named.
func TestBesideNamedFile(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	damaged := []byte("-----BEGIN CERTIFICATE-----\nMIIB!\n-----END CERTIFICATE-----\n")
	for name, c := range map[string]struct {
		bundle, key []byte
		row, state  string
	}{
		"fine":                       {certtest.Encode(root), leaf.KeyPEM(t), "", ""},
		"damage behind the root":     {append(certtest.Encode(root), damaged...), leaf.KeyPEM(t), "ca.crt#2", "ERROR block 2 is damaged or cut off"},
		"damage before the root":     {append(damaged, certtest.Encode(root)...), leaf.KeyPEM(t), "ca.crt", "ERROR block 1 is damaged or cut off"},
		"a key that is cut off":      {certtest.Encode(root), leaf.KeyPEM(t)[:100], "tls.key", "ERROR block 1 is damaged or cut off"},
		"a key that was not written": {certtest.Encode(root), []byte{}, "tls.key", "ERROR the file is empty"},
		"a cut behind the key":       {certtest.Encode(root), append(leaf.KeyPEM(t), leaf.KeyPEM(t)[:100]...), "tls.key#2", "ERROR block 2 is damaged or cut off"},
	} {
		dir := certtest.Write(t, map[string][]byte{"ca.crt": c.bundle, "tls.crt": certtest.Encode(leaf, intermediate), "tls.key": c.key})
		expected := map[string]string{"tls.crt": "OK", "tls.crt#2": "OK"}
		if c.row != "" {
			expected[c.row] = c.state
		}
		t.Run(name, func(t *testing.T) {
			audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(filepath.Join(dir, "tls.crt"))), dir), expected)
		})
	}
}

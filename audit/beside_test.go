package audit_test

import (
	"os"
	"path/filepath"
	"testing"
)

// A file that is named alone is judged with the bundle and the key beside it, so that
// what cannot be used there is a row as it is where the directory is named.
func TestBesideNamedFile(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	damaged := []byte("-----BEGIN CERTIFICATE-----\nMIIB!\n-----END CERTIFICATE-----\n")
	for name, c := range map[string]struct {
		bundle, key []byte
		row, state  string
	}{
		"fine":                       {encode(root), leaf.keyPEM(t), "", ""},
		"damage behind the root":     {append(encode(root), damaged...), leaf.keyPEM(t), "ca.crt#2", "ERROR block 2 is damaged or cut off"},
		"damage before the root":     {append(damaged, encode(root)...), leaf.keyPEM(t), "ca.crt", "ERROR block 1 is damaged or cut off"},
		"a key that is cut off":      {encode(root), leaf.keyPEM(t)[:100], "tls.key", "ERROR block 1 is damaged or cut off"},
		"a key that was not written": {encode(root), []byte{}, "tls.key", "ERROR the file is empty"},
		"a cut behind the key":       {encode(root), append(leaf.keyPEM(t), leaf.keyPEM(t)[:100]...), "tls.key#2", "ERROR block 2 is damaged or cut off"},
	} {
		dir := write(t, map[string][]byte{"ca.crt": c.bundle, "tls.crt": encode(leaf, intermediate), "tls.key": c.key})
		expected := map[string]string{"tls.crt": "OK", "tls.crt#2": "OK"}
		if c.row != "" {
			expected[c.row] = c.state
		}
		t.Run(name, func(t *testing.T) { want(t, states(t, run(t, paths(filepath.Join(dir, "tls.crt"))), dir), expected) })
	}
}

func TestBesideNamedFileUnreadableKey(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("NOT RUN: root reads every file")
	}
	root, intermediate, leaf := hierarchy(t)
	dir := write(t, map[string][]byte{"ca.crt": encode(root), "tls.crt": encode(leaf, intermediate), "tls.key": leaf.keyPEM(t)})
	must(t, os.Chmod(filepath.Join(dir, "tls.key"), 0))
	want(t, states(t, run(t, paths(filepath.Join(dir, "tls.crt"))), dir), map[string]string{"tls.crt": "OK", "tls.crt#2": "OK"})
}

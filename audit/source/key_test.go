//go:build unix

package source_test

import (
	"maps"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// A server has the key of the first certificate of its file. A leaf behind the chain is
// superfluous, unless its own key is in the file too.
func TestSurplusLeaf(t *testing.T) {
	root, mid, leaf := certtest.Hierarchy(t)
	second, third := certtest.New(t, mid, "second"), certtest.New(t, mid, "third")
	for _, c := range []struct {
		name  string
		chain []byte
		keys  []byte
		want  map[string]string
	}{
		{"behind the chain", certtest.Encode(leaf, mid, second), leaf.KeyPEM(t), map[string]string{"tls.crt": "WARN chain-order", "tls.crt#3": "OK"}},
		{"two", certtest.Encode(leaf, mid, second, third), leaf.KeyPEM(t), map[string]string{"tls.crt": "WARN chain-order", "tls.crt#3": "OK", "tls.crt#4": "OK"}},
		{"each with its key", certtest.Encode(leaf, mid, second), append(leaf.KeyPEM(t), second.KeyPEM(t)...), map[string]string{"tls.crt": "OK", "tls.crt#3": "OK"}},
		{"the key of the second", certtest.Encode(leaf, mid, second), second.KeyPEM(t), map[string]string{"tls.crt": "CRIT key-mismatch", "tls.crt#3": "OK"}},
		{"the key of none", certtest.Encode(leaf, mid, second), third.KeyPEM(t), map[string]string{"tls.crt": "CRIT key-mismatch", "tls.crt#3": "CRIT key-mismatch"}},
	} {
		dir := certtest.Write(t, map[string][]byte{"tls.crt": c.chain, "tls.key": c.keys})
		got := audittest.States(t, audittest.Run(t, source.Targets{Names: []string{dir}, Bundle: certtest.Bundle([]*certtest.Pair{root})}), dir)
		delete(got, "tls.crt#2") // of the authority, which has one row
		if first, numbered := got["tls.crt#1"]; numbered {
			got["tls.crt"] = first
			delete(got, "tls.crt#1")
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

package audit_test

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit"
)

// Contract: a block that is taken is the first one of encoding/pem, and what comes after it too.
func FuzzPlainBlock(f *testing.F) {
	root, _, leaf := hierarchy(f)
	f.Add(encode(root, leaf))
	f.Add(pemBlock("CERTIFICATE", bytes.Repeat([]byte{1}, 48)))
	f.Add(pemBlock("CERTIFICATE", bytes.Repeat([]byte{1}, 96)))
	f.Add(pemBlock("CERTIFICATE", []byte{1}))
	f.Add(bytes.ReplaceAll(encode(root), []byte("\n"), []byte("\r\n")))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n" + strings.Repeat("A", 62) + "==\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		der, rest, ok := audit.PlainBlock(data, len(data)/2)
		if !ok {
			return
		}
		block, after := pem.Decode(data)
		if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || !bytes.Equal(block.Bytes, der) || !bytes.Equal(after, rest) {
			t.Errorf("%x and %q, want %+v and %q", der, rest, block, after)
		}
	})
}

func TestPlainBlock(t *testing.T) {
	_, _, leaf := hierarchy(t)
	for _, room := range []int{0, 100, 1 << 20} {
		if der, rest, ok := audit.PlainBlock(append(encode(leaf), "x"...), room); !ok || !bytes.Equal(der, leaf.cert.Raw) || string(rest) != "x" {
			t.Errorf("%d: %x %q %v", room, der, rest, ok)
		}
	}
}

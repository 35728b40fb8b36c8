package rc2_test

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/rc2"
)

var _ cipher.Block = (*rc2.Cipher)(nil)

// The vectors of RFC 2268 §5 whose effective key length is that of the key.
func TestDecrypt(t *testing.T) {
	for _, v := range []struct{ key, plain, cipher string }{
		{"ffffffffffffffff", "ffffffffffffffff", "278b27e42e2f0d49"},
		{"3000000000000000", "1000000000000001", "30649edf9be7d2c2"},
		{"88bca90e90875a7f0f79c384627bafb2", "0000000000000000", "2269552ab0f85ca6"},
	} {
		key, _ := hex.DecodeString(v.key)
		block, _ := hex.DecodeString(v.cipher)
		want, _ := hex.DecodeString(v.plain)
		c, err := rc2.New(key)
		if err != nil {
			t.Fatal(err)
		}
		c.Decrypt(block, block)
		if !bytes.Equal(block, want) || c.BlockSize() != len(want) {
			t.Errorf("key %s: %x, want %x", v.key, block, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, n := range []int{0, 129} {
		if _, err := rc2.New(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes is taken", n)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("it encrypts")
		}
	}()
	c, _ := rc2.New(make([]byte, 16))
	c.Encrypt(make([]byte, 8), make([]byte, 8))
}

// Contract: any key and any block give a block; no two blocks give the same one.
func FuzzDecrypt(f *testing.F) {
	f.Add([]byte("12345"), []byte("12345678"), []byte("12345679"))
	f.Fuzz(func(t *testing.T, key, a, b []byte) {
		c, err := rc2.New(key)
		if err != nil || len(a) < rc2.BlockSize || len(b) < rc2.BlockSize {
			return
		}
		same := bytes.Equal(a[:rc2.BlockSize], b[:rc2.BlockSize])
		c.Decrypt(a, a)
		c.Decrypt(b, b)
		if same != bytes.Equal(a[:rc2.BlockSize], b[:rc2.BlockSize]) {
			t.Error("it is no permutation")
		}
	})
}

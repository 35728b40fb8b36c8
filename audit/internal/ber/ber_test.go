package ber_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/ber"
)

func TestToDER(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("3080", n) + strings.Repeat("0000", n) }
	for name, c := range map[string]struct {
		in, out string
		err     error
	}{
		"DER":                 {"3003020101", "3003020101", nil},
		"indefinite":          {"30800201010000", "3003020101", nil},
		"in indefinite":       {"3080308002010100000000", "30053003020101", nil},
		"long length":         {"3084000000030281010100", "", ber.ErrDamaged},
		"longer than needed":  {"3084000000050282000101", "3003020101", nil},
		"octets in pieces":    {"2480040101040202030000", "0403010203", nil},
		"pieces in pieces":    {"248024800401010000040102" + "0000", "04020102", nil},
		"empty string":        {"24800000", "0400", nil},
		"bits in pieces":      {"23800302000103020402" + "0000", "0303040102", nil},
		"bits left in middle": {"23800302040103020002" + "0000", "", ber.ErrDamaged},
		"bits without number": {"238003000000", "", ber.ErrDamaged},
		"implicit tag":        {"a080040101040102" + "0000", "a006040101040102", nil},
		"tag of two bytes":    {"bf8801800201010000", "bf880103020101", nil},
		"set in its order":    {"3106020102020101", "3106020102020101", nil},
		"constructed piece":   {"2405300304" + "0101", "", ber.ErrDamaged},
		"no end":              {"3080020101", "", ber.ErrDamaged},
		"half an end":         {"308002010100", "", ber.ErrDamaged},
		"primitive, no end":   {"0480010000", "", ber.ErrDamaged},
		"too long":            {"3004020101", "", ber.ErrDamaged},
		"huge":                {"3088ffffffffffffffff", "", ber.ErrDamaged},
		"a tail":              {"300002", "", ber.ErrDamaged},
		"nothing":             {"", "", ber.ErrDamaged},
		"half a tag":          {"1f", "", ber.ErrDamaged},
		"deep":                {deep(ber.MaxDepth + 1), "", ber.ErrLarge},
	} {
		in, err := hex.DecodeString(c.in)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := ber.ToDER(in)
		if !errors.Is(err, c.err) || err == nil && hex.EncodeToString(got) != c.out {
			t.Errorf("%s: %x, %v; want %s, %v", name, got, err, c.out, c.err)
		}
	}
	if _, err := ber.ToDER(make([]byte, ber.MaxSize+1)); !errors.Is(err, ber.ErrLarge) {
		t.Error(err)
	}
	long := bytes.Repeat([]byte{0x04, 0x02, 1, 2}, 70_000)
	got, err := ber.ToDER(append(append([]byte{0x30, 0x80}, long...), 0, 0))
	if err != nil || !bytes.Equal(got[:5], []byte{0x30, 0x83, 4, 0x45, 0xc0}) || !bytes.Equal(got[5:], long) {
		t.Errorf("%x, %v", got[:5], err)
	}
}

// Contract: what comes out is BER that is converted to itself, and what encoding/asn1
// takes for DER with nothing odd in it comes out as it is.
func FuzzToDER(f *testing.F) {
	for _, text := range []string{"3080308002010100000000", "248024800401010000040102" + "0000", "23800302000103020402" + "0000", "bf8801800201010000"} {
		seed, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := ber.ToDER(data)
		if err != nil {
			return
		}
		if len(once) > 3*len(data) {
			t.Errorf("%d bytes of %d", len(once), len(data))
		}
		twice, err := ber.ToDER(once)
		if err != nil && !errors.Is(err, ber.ErrLarge) || err == nil && !bytes.Equal(once, twice) {
			t.Errorf("%x becomes %x and then %x, %v", data, once, twice, err)
		}
		var raw asn1.RawValue
		if _, err := asn1.Unmarshal(once, &raw); err != nil && once[0]&0x1f != 0x1f {
			t.Errorf("%x: %v", once, err)
		}
	})
}

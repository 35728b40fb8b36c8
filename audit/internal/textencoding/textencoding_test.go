package textencoding_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/audit/internal/textencoding"
)

func utf16of(text string, order binary.ByteOrder) (out []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		out = append(out, 0, 0)
		order.PutUint16(out[len(out)-2:], unit)
	}
	return out
}

func TestUTF8(t *testing.T) {
	const text = "-----BEGIN\r\n ä € \U0001f511 end"
	le, be := utf16of(text, binary.LittleEndian), utf16of(text, binary.BigEndian)
	for name, c := range map[string]struct{ data, want string }{
		"nothing":          {"", ""},
		"as it is":         {text, text},
		"marked":           {"\xef\xbb\xbf" + text, text},
		"LE":               {"\xff\xfe" + string(le), text},
		"BE":               {"\xfe\xff" + string(be), text},
		"LE without mark":  {string(le), text},
		"BE without mark":  {string(be), text},
		"half a unit":      {"\xff\xfe" + string(le) + "x", text},
		"half a surrogate": {"\xff\xfea\x00\x00\xd8", "a\ufffd"},
		"two halves":       {"\xff\xfe\x00\xd8a\x00", "\ufffda"},
		"a mark alone":     {"\xff\xfe", ""},
		"DER":              {"\x30\x82\x01\x00\x30\x00\x00\x00", "\x30\x82\x01\x00\x30\x00\x00\x00"},
		"short":            {"a\x00b\x00", "a\x00b\x00"},
	} {
		if got := string(textencoding.UTF8([]byte(c.data))); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Contract: anything comes back as it is, without its mark, or as valid UTF-8 of at
// most one and a half times its size; a second call finds nothing more in what is valid text.
func FuzzUTF8(f *testing.F) {
	f.Add([]byte("\xff\xfea\x00\x00\xd8\x00\xdc"))
	f.Add([]byte("\xfe\xff\x00a"))
	f.Add([]byte("\xef\xbb\xbfabc"))
	f.Add(utf16of("abcdef", binary.LittleEndian))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := textencoding.UTF8(data)
		if !bytes.HasSuffix(data, got) && (!utf8.Valid(got) || len(got) > len(data)+len(data)/2) {
			t.Errorf("%q gives %q", data, got)
		}
	})
}

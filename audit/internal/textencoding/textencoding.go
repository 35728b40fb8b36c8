// Package textencoding converts the encodings in which editors and shells save text: UTF-8
// with a byte order mark, and UTF-16 of both byte orders, with or without a mark. Windows
// writes all of them, and programs that read certificates accept some.
package textencoding

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	markUTF8  = "\xef\xbb\xbf"
	markLE    = "\xff\xfe"
	markBE    = "\xfe\xff"
	unmarked  = 8 // bytes that tell UTF-16 without a mark
	unitBytes = 2
)

// UTF8 returns data in UTF-8 without a byte order mark. Data in none of the encodings is
// returned as it is, as the same slice. Text in UTF-16 becomes a new slice of one and a
// half times its size at most; half a unit at its end is dropped.
func UTF8(data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte(markUTF8)):
		return data[len(markUTF8):]
	case bytes.HasPrefix(data, []byte(markLE)):
		return decode(data[unitBytes:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte(markBE)):
		return decode(data[unitBytes:], binary.BigEndian)
	case ascii(data, 0):
		return decode(data, binary.LittleEndian)
	case ascii(data, 1):
		return decode(data, binary.BigEndian)
	}
	return data
}

// ascii reports whether data begins with ASCII in UTF-16 whose low byte is the
// first (0) or the second (1) one of a unit.
func ascii(data []byte, low int) bool {
	if len(data) < unmarked {
		return false
	}
	for i := 0; i < unmarked; i += unitBytes {
		if c := data[i+low]; data[i+1-low] != 0 || c > '~' || c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

func decode(data []byte, order binary.ByteOrder) []byte {
	out := make([]byte, 0, len(data)/unitBytes)
	for len(data) >= unitBytes {
		r := rune(order.Uint16(data))
		data = data[unitBytes:]
		if utf16.IsSurrogate(r) && len(data) >= unitBytes {
			if both := utf16.DecodeRune(r, rune(order.Uint16(data))); both != utf8.RuneError {
				r, data = both, data[unitBytes:]
			}
		}
		out = utf8.AppendRune(out, r) // a surrogate alone becomes U+FFFD
	}
	return out
}

package ber_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/artstore/artstore-pki/audit/internal/ber"
)

// Dates are read in the forms of RFC 5280 §4.1.2.5 and in those that other issuers wrote.
func TestReadTime(t *testing.T) {
	for in, want := range map[string]string{
		"\x17\x0d260301120000Z":     "2026-03-01T12:00:00Z",
		"\x17\x0d500101000000Z":     "1950-01-01T00:00:00Z", // RFC 5280 §4.1.2.5.1: 50 is 1950
		"\x17\x0d491231235959Z":     "2049-12-31T23:59:59Z",
		"\x17\x0b2603011200Z":       "2026-03-01T12:00:00Z",
		"\x17\x11260301120000+0200": "2026-03-01T10:00:00Z",
		"\x17\x0c260301120000":      "2026-03-01T12:00:00Z",
		"\x18\x0f20600301120000Z":   "2060-03-01T12:00:00Z",
		"\x18\x0d206003011200Z":     "2060-03-01T12:00:00Z",
		"\x18\x0e20600301120000":    "2060-03-01T12:00:00Z",
		"\x17\x0d260230120000Z":     "", // there is no 30 February
		"\x18\x0f2060-03-01 12:0":   "",
		"\x0c\x0d260301120000Z":     "", // a string of text
		"\x17\x0d2603":              "",
		"":                          "",
	} {
		s := cryptobyte.String(in)
		got, ok := ber.ReadTime(&s)
		if ok != (want != "") || ok && got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v %t, want %s", in, got, ok, want)
		}
	}
}

// Of an envelope that is cut off, the header of its SEQUENCE is enough to look inside.
func TestInSequence(t *testing.T) {
	for in, want := range map[string]string{
		"\x30\x03\x02\x01\x03": "\x02\x01\x03", "\x30\x82\x10\x00\x02": "\x02", "\x30\x80\x02": "\x02",
		"\x30\x84\xff": "", "\x31\x03\x02\x01\x03": "", "\x30": "", "": "",
	} {
		if got := ber.InSequence([]byte(in)); string(got) != want {
			t.Errorf("%x: %x, want %x", in, got, want)
		}
	}
}

// Only an indefinite length is converted; everything else comes back as it is.
func TestDefinite(t *testing.T) {
	for in, want := range map[string]string{"\x30\x80\x02\x01\x01\x00\x00": "\x30\x03\x02\x01\x01", "\x30\x03\x02\x01\x01": "\x30\x03\x02\x01\x01", "\x30": "\x30"} {
		if got, err := ber.Definite([]byte(in)); err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%x: %x, %v", in, got, err)
		}
	}
	if _, err := ber.Definite([]byte("\x30\x80\x02")); !errors.Is(err, ber.ErrDamaged) {
		t.Error(err)
	}
}

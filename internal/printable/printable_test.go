package printable_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/internal/printable"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"ingester\tлокальный": "ingester\tлокальный",
		"a\x1b[2Jb":           `a\u001b[2Jb`,
		"one\ntwo\r":          `one\u000atwo\u000d`,
		"one\u2028two":        `one\u2028two`,
		"admin\u202egpj.exe":  `admin\u202egpj.exe`,
		"bad\xffbyte":         `bad\ufffdbyte`,
		"nul\x00\u009b31m":    `nul\u0000\u009b31m`,
	} {
		if got := printable.Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// Contract: what comes out is valid UTF-8 on one line without a control character.
func FuzzClean(f *testing.F) {
	f.Add("\x1b]0;title\a\n")
	f.Fuzz(func(t *testing.T, s string) {
		out := printable.Clean(s)
		if !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
			t.Errorf("Clean(%q) = %q", s, out)
		}
	})
}

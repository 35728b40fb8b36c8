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

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		" \n ":                     "",
		"локально":                 "локальн…",
		"seven 7":                  "seven 7",
		"a\x1b[2J":                 "a [2J",
		"one\ntwo\r\n":             "one two",
		"bad\xffbyt":               "bad byt",
		"admin\u202egp":            "admin g…",
		"  after the spaces":       "after t…",
		"longer than that":         "longer …",
		"seven 7 \t\x00 \u00a0\n ": "seven 7",
	} {
		if got := printable.Line(in, 7); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}

// Contract: what comes out is one line, bounded, without a control character.
func FuzzLine(f *testing.F) {
	f.Add("a\x1b[2Jb\n\u202e…\xff", 200)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most &= 0xfff
		out := printable.Line(s, most)
		if n := utf8.RuneCountInString(out); !utf8.ValidString(out) || n > most+1 || strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("Line(%q, %d) = %q", s, most, out)
		}
		if again := printable.Line(out, most+1); again != out {
			t.Errorf("%q, again %q", out, again)
		}
	})
}

func TestCellAndShorten(t *testing.T) {
	if got := printable.Cell("a\tb\n"); got != `a\u0009b\u000a` {
		t.Errorf("Cell: %q", got)
	}
	for in, want := range map[string]string{"": "", "four": "four", "fives": "five…", "čé": "čé", "ččč": "čč…", "xčč": "xč…"} {
		if got := printable.Shorten(in, 4); got != want {
			t.Errorf("Shorten(%q) = %q, want %q", in, got, want)
		}
	}
}

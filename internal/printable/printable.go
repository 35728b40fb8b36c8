// Package printable makes text of strangers, such as names in certificates, paths and answers
// of servers, safe to print on a terminal or as one line of a log.
package printable

import (
	"fmt"
	"strings"
	"unicode"
)

// Clean replaces control characters, invisible characters that can make a name look like
// another one, and bytes that are not UTF-8, each by a visible form. Tabs stay.
func Clean(s string) string {
	if !strings.ContainsFunc(s, Hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if Hidden(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Hidden reports whether Clean replaces a character. A byte that is not UTF-8 is the
// replacement character here.
func Hidden(r rune) bool {
	// Cf holds the bidirectional controls (Unicode TR 36 §2.9); Zl and Zp break lines as \n does.
	return r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar)
}

// Line returns text for one line of a log. Characters that do not print and bytes that are
// not UTF-8 become spaces, spaces around the text are removed, and "…" stands for the runes
// after the first most ones.
func Line(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s))
	n := 0
	for i := range s {
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// Cell is [Clean] for one cell of a table: tabs are replaced as well.
func Cell(s string) string { return strings.ReplaceAll(Clean(s), "\t", `\u0009`) }

// Shorten cuts a text after most bytes, between two characters, and then ends it with "…".
func Shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Package printable makes text of strangers (names in certificates, paths, what
// a server said) safe to print on a terminal or as one line of a log.
package printable

import (
	"fmt"
	"strings"
	"unicode"
)

// Clean replaces control characters (terminal escapes, line breaks inside a
// name), invisible ones that can make a name look like another, and bytes that
// are no UTF-8 by a visible form. Tabs stay.
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

// Hidden tells which characters Clean replaces. Of bytes that are no UTF-8 it sees
// the replacement character.
func Hidden(r rune) bool {
	// Cf holds the bidirectional controls (Unicode TR 36 §2.9); Zl and Zp break lines as \n does.
	return r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar)
}

// Line makes text fit for one line of a log, where it need not be told what was wrong
// with it: characters that do not print and bytes that are no UTF-8 become spaces, those
// around the text are left out, and what is behind the first most runes is "…".
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

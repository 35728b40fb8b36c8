package enroll

import (
	"strings"
	"unicode"
)

// blot removes every part of the token: an authority that quotes what it refused must not put it into our log.
func blot(message string, token Token) string {
	for part := range strings.SplitSeq(token.Expose(), ".") {
		if len(part) >= minSecretPart {
			message = strings.ReplaceAll(message, part, token.String())
		}
	}
	return message
}

// printable makes foreign text fit for one log line.
func printable(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == maxMessage {
			b.WriteRune('…')
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = ' '
		}
		b.WriteRune(r)
		n++
	}
	return strings.TrimSpace(b.String())
}

package report

import (
	"fmt"
	"strings"
)

// What a stranger wrote is of any length, and a report for people is not. JSON has
// everything whole.
const (
	maxName   = 256     // of one name
	maxPlace  = 1 << 10 // of a path, and what tells parts of the file apart
	maxPhrase = 1 << 10 // of what a finding or an error says
	maxNames  = 8 << 10 // of a list of names
)

// shorten cuts a text at a number of bytes, between two characters.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// shortenPlace leaves out the middle: both ends of a path say something.
func shortenPlace(s string) string {
	if len(s) <= maxPlace {
		return s
	}
	return strings.ToValidUTF8(s[:maxPlace/2], "") + "…" + strings.ToValidUTF8(s[len(s)-maxPlace/2:], "")
}

// shortenList joins as many of a list as have room.
func shortenList(list []string, between string) string {
	var b strings.Builder
	for i, s := range list {
		s = shorten(s, maxName)
		if i > 0 {
			if b.Len()+len(between)+len(s) > maxNames {
				return fmt.Sprintf("%s and %d more", b.String(), len(list)-i)
			}
			b.WriteString(between)
		}
		b.WriteString(s)
	}
	return b.String()
}

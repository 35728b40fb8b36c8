package report

import (
	"fmt"
	"strings"

	"github.com/artstore/artstore-pki/internal/printable"
)

// Texts from certificates have any length, and an attacker chooses them. Reports for
// people cut them at these lengths, in bytes; JSON has everything in full.
const (
	// maxName bounds one name.
	maxName = 256
	// maxPlace bounds a path together with the entry inside the file.
	maxPlace = 1 << 10
	// maxPhrase bounds the text of a finding or an error.
	maxPhrase = 1 << 10
	// maxNames bounds a list of names.
	maxNames = 8 << 10
)

// shortenPlace leaves out the middle of a path: the beginning says which tree it is in,
// and the end has the name of the file.
func shortenPlace(s string) string {
	if len(s) <= maxPlace {
		return s
	}
	return strings.ToValidUTF8(s[:maxPlace/2], "") + "…" + strings.ToValidUTF8(s[len(s)-maxPlace/2:], "")
}

// shortenList joins the items that fit into maxNames, and says how many it left out.
func shortenList(list []string, between string) string {
	var b strings.Builder
	for i, s := range list {
		s = printable.Shorten(s, maxName)
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

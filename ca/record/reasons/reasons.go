// Package reasons has the reasons of a revocation (RFC 5280 §5.3.1): their numbers are
// in the record and in lists, their names are for people.
package reasons

import (
	"fmt"
	"slices"
	"strings"
)

// all are the names of RFC 5280 §5.3.1, by their number. 7 is not used.
var all = [...]string{
	"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
	"cessationOfOperation", "certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise",
}

// Name is the name of a reason.
func Name(code int) string {
	if code < 0 || code >= len(all) || all[code] == "" {
		return fmt.Sprintf("reason %d", code)
	}
	return all[code]
}

// Taken returns the names of the reasons that this authority accepts.
func Taken() (names []string) {
	for code, name := range all {
		if taken(code) {
			names = append(names, name)
		}
	}
	return names
}

// Parse returns the number of a reason that this authority accepts, by its name.
func Parse(name string) (int, error) {
	code := slices.Index(all[:], name)
	if name == "" || code < 0 {
		return 0, fmt.Errorf("%.40q is not a reason of RFC 5280; want one of %s", name, strings.Join(Taken(), ", "))
	}
	return code, Check(code)
}

// Check returns an error for a number that this authority does not accept. It does not accept
// holds: a revocation cannot be undone, and certificates live for hours.
func Check(code int) error {
	switch {
	case taken(code):
		return nil
	case code == 6 || code == 8:
		return fmt.Errorf("reason %s is not supported: a revocation is for good", Name(code))
	}
	return fmt.Errorf("%d is not a reason of RFC 5280", code)
}

// taken reports whether a reason of RFC 5280 §5.3.1 is accepted: 7 is unused, and 6 and 8 are
// for holds.
func taken(code int) bool { return code >= 0 && code <= 10 && (code < 6 || code > 8) }

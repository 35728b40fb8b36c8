package names

import (
	"strings"

	"golang.org/x/net/idna"
)

const (
	acePrefix = "xn--" // RFC 5890 §2.3.2.1

	maxULabels = 4 * maxDNS // bytes of a name that is converted for a message
)

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// isALabel reports whether a label that begins with xn-- is the A-label of its own U-label
// (RFC 5891 §5.4). A label with two spellings would be two names for us and one name for
// other programs.
func isALabel(label string) bool {
	u, err := idna.Lookup.ToUnicode(label)
	if err != nil || isASCII(u) {
		return false
	}
	back, err := idna.Lookup.ToASCII(u)
	return err == nil && back == label
}

// aLabels converts a name for a message, or returns "" if that fails. It converts each label by
// itself, because the library refuses names with underscores.
func aLabels(text string) string {
	if len(text) > maxULabels {
		return ""
	}
	labels := strings.Split(text, ".")
	for i, label := range labels {
		if isASCII(label) {
			continue
		}
		ascii, err := idna.Lookup.ToASCII(label)
		if err != nil {
			return ""
		}
		labels[i] = ascii
	}
	name, err := canonicalDNS(strings.Join(labels, "."))
	if err != nil || len(name) > maxDNS {
		return ""
	}
	return name
}

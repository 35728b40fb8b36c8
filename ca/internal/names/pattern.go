package names

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Pattern stands for many names of one kind:
//
//	*.workers.internal     DNS names with exactly one label before the suffix
//	**.workers.internal    DNS names with one or more labels before the suffix
//	10.20.0.0/16           the IP addresses of a network
//	spiffe://a/workers/*   SPIFFE IDs with exactly one more path segment
//	spiffe://a/workers/**  SPIFFE IDs with one or more further path segments
//
// No pattern stands for its own suffix, or for a wildcard: a certificate for
// "*.workers.internal" is good for names that its holder did not ask for.
type Pattern struct {
	text string
	base string       // suffix of a DNS name, or "spiffe://a/workers"; empty for a network
	net  netip.Prefix // valid for a network only
	deep bool         // "**"
}

const (
	spiffe = "spiffe://"
	one    = "*"
	deep   = "**"
)

// spiffeSegment is a path segment of a SPIFFE ID (SPIFFE-ID §2.2). Percent-encoding
// is no part of it, so no other spelling of a slash or a dot gets past a pattern.
var spiffeSegment = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// String is the canonical spelling.
func (p Pattern) String() string { return p.text }

// ParsePattern reads one pattern. The error says what is wrong with it.
func ParsePattern(text string) (Pattern, error) {
	p, err := parsePattern(text)
	if err != nil {
		return Pattern{}, fmt.Errorf("pattern %.80q %w", text, err)
	}
	return p, nil
}

func parsePattern(text string) (Pattern, error) {
	switch {
	case len(text) > maxURI:
		return Pattern{}, fmt.Errorf("is longer than %d characters", maxURI)
	case strings.Contains(text, "://"):
		return spiffePattern(text)
	case strings.Contains(text, "/"):
		return network(text)
	}
	stars, suffix, _ := strings.Cut(text, ".")
	switch {
	case stars == "":
		return Pattern{}, fmt.Errorf("has no stars: write **.%s for all names below it", suffix)
	case stars != one && stars != deep:
		return Pattern{}, errors.New("is neither *.SUFFIX or **.SUFFIX, nor a network, nor spiffe://DOMAIN/PATH/*; a single name belongs into names")
	case suffix == "":
		return Pattern{}, errors.New("has no suffix: it would stand for every name")
	}
	base, err := canonicalDNS(suffix)
	if err != nil {
		return Pattern{}, err
	}
	return Pattern{text: stars + "." + base, base: base, deep: stars == deep}, nil
}

func network(text string) (Pattern, error) {
	n, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return Pattern{}, errors.New("is not a network such as 10.20.0.0/16 or fd00:1::/64")
	case n.Addr().Is4In6():
		return Pattern{}, errors.New("is an IPv4 network in IPv6: write it as IPv4")
	case n != n.Masked():
		return Pattern{}, fmt.Errorf("has bits behind its length: write %s", n.Masked())
	case n.Bits() == 0:
		return Pattern{}, errors.New("stands for every address")
	}
	return Pattern{text: n.String(), net: n}, nil
}

func spiffePattern(text string) (Pattern, error) {
	i := strings.LastIndex(text, "/")
	base, stars := text[:i], text[i+1:]
	if stars != one && stars != deep || !strings.HasPrefix(strings.ToLower(base), spiffe) {
		return Pattern{}, errors.New("is not spiffe://DOMAIN/PATH/* (one path segment) or /** (one or more)")
	}
	base, err := canonicalURI(base)
	if err != nil {
		return Pattern{}, errors.New("has no valid SPIFFE ID before its stars")
	}
	u, err := url.Parse(base)
	if err != nil || u.Port() != "" || u.Path != "" && !isSpiffePath(u.EscapedPath()[1:], true) {
		return Pattern{}, errors.New("has no valid SPIFFE ID before its stars")
	}
	return Pattern{text: base + "/" + stars, base: base, deep: stars == deep}, nil
}

// isSpiffePath checks a path without its first slash.
func isSpiffePath(path string, deep bool) bool {
	n := 0
	for segment := range strings.SplitSeq(path, "/") {
		if n++; !spiffeSegment.MatchString(segment) || segment == "." || segment == ".." {
			return false
		}
	}
	return deep || n == 1
}

// Match reports whether the pattern stands for a canonical name.
func (p Pattern) Match(name string) bool {
	addr, err := netip.ParseAddr(name)
	isAddr := err == nil
	switch {
	case p.net.IsValid():
		return isAddr && p.net.Contains(addr)
	case isAddr:
		return false
	case strings.HasPrefix(p.base, spiffe):
		rest, ok := strings.CutPrefix(name, p.base+"/")
		return ok && isSpiffePath(rest, p.deep)
	case strings.Contains(name, "://") || IsWildcard(name):
		return false
	}
	left, ok := strings.CutSuffix(name, "."+p.base)
	return ok && left != "" && (p.deep || !strings.Contains(left, "."))
}

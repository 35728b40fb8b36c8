package names

import (
	"net/netip"
	"slices"
	"strings"
)

// Claim is the names, wildcards and patterns for which one owner may have certificates. Names
// are canonical.
type Claim struct {
	Owner    string
	Names    []string
	Patterns []Pattern
}

// Overlap is a pattern or wildcard of one owner, and a name, wildcard or pattern
// of another, that have names in common.
type Overlap struct {
	Owner, Text string
	Other, With string
}

// Overlaps returns the first overlap of each pair of owners, at most limit. Two owners that
// list the same name are no overlap, because the configuration says so explicitly. It looks
// up the ancestors of each claim in an index, so its time is linear in the number of claims.
func Overlaps(claims []Claim, limit int) (out []Overlap) {
	all, index := spans(claims)
	seen := make(map[[2]string]bool)
	for _, s := range all {
		for _, end := range s.ends {
			for _, p := range index[s.key[:end]] {
				pair := [2]string{min(p.owner, s.owner), max(p.owner, s.owner)}
				if p.owner == s.owner || seen[pair] || !p.meets(s) {
					continue
				}
				if seen[pair] = true; len(out) == limit {
					return out
				}
				out = append(out, Overlap{p.owner, p.text, s.owner, s.text})
			}
		}
	}
	return out
}

// span is a name or pattern as a path from the general to the special step: labels of a DNS
// name from the right, bits of an address, or segments of a URI.
type span struct {
	owner, text string
	key         string
	ends        []int // where each step of the path ends in key
	rest        rest
}

// rest says which paths below its own a span stands for.
type rest int

const (
	nothing rest = iota // a single name
	oneStep
	someSteps
	anySteps // a network, whose steps are bits
)

// meets reports whether a pattern has a name in common with a span below it.
func (s span) meets(below span) bool {
	steps := len(below.ends) - len(s.ends)
	switch s.rest {
	case oneStep:
		return below.rest == nothing && steps == 1 || below.rest != nothing && steps == 0
	case someSteps:
		return below.rest != nothing || steps > 0
	case anySteps:
		return true
	}
	return false
}

// spans returns all claims as spans, sorted, and those of them that stand for
// more than one name by their key.
func spans(claims []Claim) (all []span, index map[string][]span) {
	index = make(map[string][]span)
	add := func(s span) {
		all = append(all, s)
		if s.rest != nothing {
			index[s.key] = append(index[s.key], s)
		}
	}
	for _, c := range claims {
		for _, n := range c.Names {
			add(nameSpan(c.Owner, n))
		}
		for _, p := range c.Patterns {
			add(patternSpan(c.Owner, p))
		}
	}
	slices.SortStableFunc(all, func(a, b span) int { return strings.Compare(a.owner, b.owner) })
	return all, index
}

func nameSpan(owner, name string) span {
	if addr, err := netip.ParseAddr(name); err == nil {
		return path(owner, name, bits(netip.PrefixFrom(addr, addr.BitLen())), nothing)
	}
	if base, ok := strings.CutPrefix(name, wildcard); ok {
		return path(owner, name, labels(base), oneStep)
	}
	if strings.Contains(name, "://") {
		return path(owner, name, segments(name), nothing)
	}
	return path(owner, name, labels(name), nothing)
}

func patternSpan(owner string, p Pattern) span {
	if p.net.IsValid() {
		return path(owner, p.text, bits(p.net), anySteps)
	}
	rest := oneStep
	if p.deep {
		rest = someSteps
	}
	if strings.HasPrefix(p.base, spiffe) {
		return path(owner, p.text, segments(p.base), rest)
	}
	return path(owner, p.text, labels(p.base), rest)
}

// path joins steps with a byte that no step contains.
func path(owner, text string, steps []string, rest rest) span {
	var key strings.Builder
	ends := make([]int, len(steps))
	for i, s := range steps {
		key.WriteString(s)
		key.WriteByte(0)
		ends[i] = key.Len()
	}
	return span{owner, text, key.String(), ends, rest}
}

func labels(name string) []string {
	steps := append(strings.Split(name, "."), "dns")
	slices.Reverse(steps)
	return steps
}

func segments(uri string) []string {
	scheme, rest, _ := strings.Cut(uri, "://")
	return append([]string{"uri", scheme}, strings.Split(rest, "/")...)
}

func bits(p netip.Prefix) []string {
	steps := make([]string, 1, 1+p.Bits())
	steps[0] = "ip6"
	if p.Addr().Is4() {
		steps[0] = "ip4"
	}
	raw := p.Addr().AsSlice()
	for i := range p.Bits() {
		steps = append(steps, []string{"0", "1"}[raw[i/8]>>(7-i%8)&1])
	}
	return steps
}

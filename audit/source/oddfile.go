package source

import (
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// More is read here than other programs read: a certificate in any text ends like another
// one. A service that is to read the same file does not start, or trusts nobody.

// oddIn is what is odd for each entry of a file: at its leaves the first of what concerns
// an authority there, because peers need the whole chain. Where there is no leaf, each
// certificate has what is odd about itself.
type oddIn map[string]struct {
	leaf  bool
	first *cert.Oddity
}

func (f *file) odd() oddIn {
	if !slices.ContainsFunc(f.parts, func(p format.Part) bool { return p.Oddity != nil }) {
		return nil
	}
	out := oddIn{}
	for _, p := range f.parts {
		at := out[p.In.Suffix()]
		at.leaf = at.leaf || p.DER != nil || p.Cert != nil && !p.Cert.IsCA
		if at.first == nil && p.Cert != nil && p.Cert.IsCA {
			at.first = p.Oddity
		}
		out[p.In.Suffix()] = at
	}
	return out
}

// of is what is odd at a certificate that is reported.
func (o oddIn) of(p *format.Part, s *audit.Subject) (odd *cert.Oddity) {
	if o == nil || s.Cert == nil {
		return nil
	}
	in := o[p.In.Suffix()]
	if odd = p.Oddity; odd == nil && s.Leaf() {
		odd = in.first
	}
	switch {
	case odd == nil, !s.Leaf() && in.leaf:
		return nil
	case inUse(s):
		return odd
	case odd.NotPEM:
		return nil
	}
	milder := *odd
	milder.UnreadByAll = false // nobody is known to read it
	return &milder
}

// inUse reports whether a program is known to read the file: there is a key for the
// certificate, or it is called like a trust bundle.
func inUse(s *audit.Subject) bool {
	return s.Key != nil || slices.ContainsFunc(bundleNames, func(name string) bool {
		rest, found := strings.CutSuffix(s.Place, name)
		return found && (rest == "" || strings.ContainsAny(rest[len(rest)-1:], "/:"))
	})
}

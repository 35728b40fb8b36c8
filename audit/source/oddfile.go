package source

import (
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// An audit reads certificates in more forms than other programs do, because they expire in
// each form. A service that cannot read the form does not start, or trusts no peer.

// oddIn has the oddities of each entry of a file. A leaf is reported with the first oddity of
// an authority in its entry, because peers need the whole chain. In an entry without a
// leaf, each certificate is reported with its own oddity.
type oddIn map[string]struct {
	leaf  bool         // the entry has a leaf
	first *cert.Oddity // of an authority
}

// odd returns the oddities of a file, or nil if there are none.
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

// of returns the oddity to report with a certificate, or nil. If no program is known to read
// the file, the oddity is milder.
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
	milder.UnreadByAll = false
	return &milder
}

// inUse reports whether a program is known to read the file: the certificate has a key, or
// the file has the name of a trust bundle.
func inUse(s *audit.Subject) bool {
	return s.Key != nil || slices.ContainsFunc(bundleNames, func(name string) bool {
		rest, found := strings.CutSuffix(s.Place, name)
		return found && (rest == "" || strings.ContainsAny(rest[len(rest)-1:], "/:"))
	})
}

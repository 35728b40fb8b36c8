package audit_test

import (
	"crypto/x509"
	"slices"

	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// three is a sound root, intermediate and leaf.
func (p pki) three(options ...option) (root, mid, leaf *certified) {
	p.Helper()
	root = p.root("Root")
	mid = p.ca(root, "Intermediate")
	return root, mid, p.leaf(mid, options...)
}

// sameName makes a leaf, and two intermediates of one name under one root: the first
// issued the leaf.
func (p pki) sameName(options ...option) (root, right, wrong, leaf *certified) {
	p.Helper()
	root = p.root("Root")
	right, wrong = p.ca(root, "Intermediate", options...), p.ca(root, "Intermediate", options...)
	return root, right, wrong, p.leaf(right, options...)
}

// again issues a certificate for the name and key of c, as for a cross-signed authority.
func (p pki) again(c, issuer *certified, name string, options ...option) *certified {
	p.Helper()
	return p.ca(issuer, name, append(slices.Clone(options), withKey(c.key))...)
}

// chainCases are whole, broken and strange chains of sound certificates.
func chainCases() []verdictCase {
	return []verdictCase{
		{"leaf of the root", func(p pki) *madeFiles {
			root := p.root("Root")
			return p.chain(p.leaf(root)).trust(root)
		}, ""},
		{"one intermediate", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(root)
		}, ""},
		{"two intermediates", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			low := p.ca(mid, "Lower")
			return p.chain(p.leaf(low), low, mid).trust(root)
		}, ""},
		{"three intermediates", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			low := p.ca(mid, "Lower")
			lowest := p.ca(low, "Lowest")
			return p.chain(p.leaf(lowest), lowest, low, mid).trust(root)
		}, ""},
		{"nine intermediates", func(p pki) *madeFiles {
			root := p.root("Root")
			list, last := []*certified{}, root
			for i := range 9 {
				last = p.ca(last, "Level "+string(rune('1'+i)))
				list = append(list, last)
			}
			slices.Reverse(list)
			return p.chain(append([]*certified{p.leaf(last)}, list...)...).trust(root)
		}, ""},
		{"the root in the chain", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid, root).trust(root)
		}, ""},
		{"the intermediate in the bundle", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf).trust(root, mid)
		}, ""},
		{"the intermediate in both", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(mid, root)
		}, ""},
		{"cross-signed, both ways in the chain", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid, p.again(mid, p.root("Old Root"), "Intermediate")).trust(root)
		}, ""},
		{"cross-signed, the other way first", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, p.again(mid, p.root("Old Root"), "Intermediate"), mid).trust(root)
		}, ""},
		{"cross-signed, only the other way", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, p.again(mid, p.root("Old Root"), "Intermediate")).trust(root)
		}, ""},
		{"cross-signed, both roots in the bundle", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			old := p.root("Old Root")
			return p.chain(leaf, p.again(mid, old, "Intermediate"), mid).trust(old, root)
		}, ""},
		{"cross-signed, one way has expired", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, p.again(mid, root, "Intermediate", expiredOnce()), mid).trust(root)
		}, "an expired certificate is sent along: clients that do not look for another path refuse it, as OpenSSL before 1.1.0 and GnuTLS did in 2020"},
		{"cross-signed, the new root under the old one", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			old := p.root("Old Root")
			return p.chain(leaf, mid, p.again(root, old, "Root")).trust(old)
		}, ""},
		{"two roots of one name, the right one second", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(p.root("Root"), root)
		}, ""},
		{"two roots of one name without key identifiers, the right one second", func(p pki) *madeFiles {
			root := p.root("Root", noKeyIDs())
			return p.chain(p.leaf(root, noKeyIDs())).trust(p.root("Root", noKeyIDs()), root)
		}, ""},
		{"two roots of one name without key identifiers, the right one first", func(p pki) *madeFiles {
			root := p.root("Root", noKeyIDs())
			return p.chain(p.leaf(root, noKeyIDs())).trust(root, p.root("Root", noKeyIDs()))
		}, ""},
		{"two intermediates of one name, the right one first", func(p pki) *madeFiles {
			root, right, wrong, leaf := p.sameName()
			return p.chain(leaf, right, wrong).trust(root)
		}, ""},
		{"two intermediates of one name, the right one second", func(p pki) *madeFiles {
			root, right, wrong, leaf := p.sameName()
			return p.chain(leaf, wrong, right).trust(root)
		}, ""},
		{"two intermediates of one name without key identifiers, the right one second", func(p pki) *madeFiles {
			root, right, wrong, leaf := p.sameName(noKeyIDs())
			return p.chain(leaf, wrong, right).trust(root)
		}, ""},
		{"only the other intermediate of the name", func(p pki) *madeFiles {
			root, _, wrong, leaf := p.sameName()
			return p.chain(leaf, wrong).trust(root)
		}, ""},
		{"only the other intermediate of the name, without key identifiers", func(p pki) *madeFiles {
			root, _, wrong, leaf := p.sameName(noKeyIDs())
			return p.chain(leaf, wrong).trust(root)
		}, ""},
		{"every certificate twice", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, leaf, mid, mid).trust(root, root)
		}, ""},
		{"a surplus intermediate", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid, p.ca(root, "Another")).trust(root)
		}, ""},
		{"a surplus root of somebody else", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid, p.root("Stranger")).trust(root, p.root("Another"))
		}, ""},
		{"a surplus leaf behind the chain", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid, p.leaf(mid)).trust(root)
		}, ""},
		{"a missing intermediate", func(p pki) *madeFiles {
			root, _, leaf := p.three()
			return p.chain(leaf).trust(root)
		}, ""},
		{"the upper of two intermediates missing", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			low := p.ca(mid, "Lower")
			return p.chain(p.leaf(low), low).trust(root)
		}, ""},
		{"the lower of two intermediates missing", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			return p.chain(p.leaf(p.ca(mid, "Lower")), mid).trust(root)
		}, ""},
		{"another root in the bundle", func(p pki) *madeFiles {
			_, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(p.root("Stranger"))
		}, ""},
		{"another root, and the root in the chain", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid, root).trust(p.root("Stranger"))
		}, ""},
		{"another root of the same name", func(p pki) *madeFiles {
			_, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(p.root("Root"))
		}, ""},
		{"the chain reversed", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			m := p.chain(root, mid, leaf).trust(root)
			return m.file(keyFile, leaf.keyPEM(p))
		}, ""},
		{"the intermediate before the leaf", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			m := p.chain(mid, leaf).trust(root)
			return m.file(keyFile, leaf.keyPEM(p))
		}, ""},
		{"the intermediates in the wrong order", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			low := p.ca(mid, "Lower")
			return p.chain(p.leaf(low), mid, low).trust(root)
		}, ""},
		{"two that issued each other", func(p pki) *madeFiles {
			a := p.root("A")
			b := p.ca(a, "B")
			return p.chain(p.leaf(b), b, p.again(a, b, "A")).trust(p.root("Root"))
		}, ""},
		{"under another leaf", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(p.leaf(leaf), leaf, mid).trust(root)
		}, ""},
		{"a self-signed leaf that the bundle does not have", func(p pki) *madeFiles {
			return p.chain(p.leaf(nil)).trust(p.root("Root"))
		}, ""},
		{"a self-signed CA:TRUE that the bundle does not have", func(p pki) *madeFiles {
			return p.chain(p.leaf(nil, with(func(c *x509.Certificate) { c.IsCA = true }), keyUses(0))).trust(p.root("Root"))
		}, ""},
		{"a self-signed leaf that is the bundle", func(p pki) *madeFiles {
			leaf := p.leaf(nil)
			return p.chain(leaf).trust(leaf)
		}, ""},
		{"a self-signed CA:TRUE that is the bundle", func(p pki) *madeFiles {
			leaf := p.leaf(nil, with(func(c *x509.Certificate) { c.IsCA = true }), keyUses(0))
			return p.chain(leaf).trust(leaf)
		}, ""},
		{"an intermediate with its key, at home", func(p pki) *madeFiles {
			root, mid, _ := p.three()
			return p.chain(mid).trust(root).atHome()
		}, ""},
		{"an intermediate used as a leaf, without usages", func(p pki) *madeFiles {
			root := p.root("Root")
			return p.chain(p.ca(root, "Intermediate", keyUses(0))).trust(root)
		}, ""},
		{"the root with its key, at home", func(p pki) *madeFiles {
			root := p.root("Root")
			return p.chain(root).trust(root).atHome()
		}, ""},
		{"a stranger's root with its key", func(p pki) *madeFiles {
			return p.chain(p.root("Stranger")).trust(p.root("Root")).atHome()
		}, ""},
		{"a stranger's intermediate with its key", func(p pki) *madeFiles {
			return p.chain(p.ca(p.root("Stranger"), "Intermediate")).trust(p.root("Root")).atHome()
		}, ""},
		{"an intermediate used as a leaf", func(p pki) *madeFiles {
			root := p.root("Root")
			return p.chain(p.ca(root, "Intermediate", dns("server.test"))).trust(root)
		}, ""},
		{"the root used as a leaf", func(p pki) *madeFiles {
			root := p.root("server", dns("server.test"))
			return p.chain(root).trust(root)
		}, ""},
		{"a stranger's root used as a leaf", func(p pki) *madeFiles {
			return p.chain(p.root("server", dns("server.test"))).trust(p.root("Root"))
		}, ""},
		{"a rogue intermediate of a stranger used as a leaf", func(p pki) *madeFiles {
			return p.chain(p.ca(p.root("Stranger"), "Intermediate", keyUses(0))).trust(p.root("Root"))
		}, ""},
	}
}

// dateCases are chains that are whole and not valid now.
func dateCases() []verdictCase {
	three := func(ofRoot, ofMid, ofLeaf []option) func(pki) *madeFiles {
		return func(p pki) *madeFiles {
			root := p.root("Root", ofRoot...)
			mid := p.ca(root, "Intermediate", ofMid...)
			return p.chain(p.leaf(mid, ofLeaf...), mid).trust(root)
		}
	}
	some := func(o ...option) []option { return o }
	return []verdictCase{
		{"the leaf has expired", three(nil, nil, some(expiredOnce())), ""},
		{"the intermediate has expired", three(nil, some(expiredOnce()), nil), ""},
		{"the root has expired", three(some(expiredOnce()), nil, nil), ""},
		{"all have expired", three(some(expiredOnce()), some(expiredOnce()), some(expiredOnce())), ""},
		{"the leaf is not yet valid", three(nil, nil, some(notYet())), ""},
		{"the intermediate is not yet valid", three(nil, some(notYet()), nil), ""},
		{"the root is not yet valid", three(some(notYet()), nil, nil), ""},
		{"the leaf outlives the intermediate", three(nil, some(valid(-certtest.Day, 200*certtest.Day)), some(valid(-certtest.Day, 360*certtest.Day))), ""},
		{"the leaf is older than its intermediate", three(nil, some(valid(-certtest.Day, 1000*certtest.Day)), some(valid(-30*certtest.Day, 360*certtest.Day))), ""},
		{"the leaf ends before it begins", three(nil, nil, some(valid(10*certtest.Day, -10*certtest.Day))), ""},
		{"the intermediate ends before it begins", three(nil, some(valid(10*certtest.Day, -10*certtest.Day)), nil), ""},
		{"all end in the year 9999", three(some(until9999()), some(until9999()), some(until9999())), ""},
		{"the leaf begins in 1970", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("700101000000Z")...) }))), ""},
		{"the leaf begins in 1950, the first year of UTCTime", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("500101000000Z")...) }))), ""},
		{"GeneralizedTime before 2050", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.Until = raw(24, []byte("20490101000000Z")...) }))), ""},
		{"the leaf begins without seconds", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("2401010000Z")...) }))), ""},
		{"the leaf ends without seconds", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.Until = raw(23, []byte("4901010000Z")...) }))), ""},
		{"the intermediate begins without seconds", three(nil, some(edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("2401010000Z")...) })), nil), ""},
		{"the root begins without seconds", three(some(edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("2401010000Z")...) })), nil, nil), ""},
		{"UTCTime with an offset", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("240101000000+0100")...) }))), ""},
		{"GeneralizedTime with an offset", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.Until = raw(24, []byte("20490101000000+0100")...) }))), ""},
		{"GeneralizedTime with a fraction", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.Until = raw(24, []byte("20490101000000.5Z")...) }))), ""},
		{"the 30th of February", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("240230000000Z")...) }))), ""},
		{"a time that is no time", three(nil, nil, some(edit(func(t *tbsCertificate) { t.Validity.Until = raw(23, []byte("never")...) }))), ""},
	}
}

func until9999() option {
	return edit(func(t *tbsCertificate) { t.Validity.Until = raw(24, []byte("99991231235959Z")...) })
}

package trust

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Fleet is who holds certificates, by lineage, at one moment.
type Fleet struct {
	lineages []lineage
	// trusting has the digests of bundles with a root, by the root.
	trusting map[string]map[string]bool
}

// lineage are the live certificates of one lineage, the oldest first.
type lineage []truststore.Holding

// NewFleet groups holdings by lineage. documents are the versions that a holder may have in
// effect.
func NewFleet(held []truststore.Holding, documents []*Document) Fleet {
	f := Fleet{trusting: map[string]map[string]bool{}}
	for begin := 0; begin < len(held); {
		end := begin + 1
		for end < len(held) && held[end].Lineage == held[begin].Lineage {
			end++
		}
		f.lineages = append(f.lineages, held[begin:end])
		begin = end
	}
	for _, d := range documents {
		digest := d.Digest()
		for _, root := range d.Roots {
			if f.trusting[root] == nil {
				f.trusting[root] = map[string]bool{}
			}
			f.trusting[root][digest] = true
		}
	}
	return f
}

// Size returns how many lineages have a live certificate.
func (f Fleet) Size() int { return len(f.lineages) }

// Unreported returns how many lineages have not reported any bundle.
func (f Fleet) Unreported() (n int) {
	for _, l := range f.lineages {
		if len(l.newest().Reports) == 0 {
			n++
		}
	}
	return n
}

// Without returns the holders that have not reported a bundle with the root as in effect, each
// with the reason. They would refuse a peer whose certificate chains to it. Of a holder whose
// certificate is in use by several processes, each has to report such a bundle.
func (f Fleet) Without(root string) []stepapi.Holder {
	var out []stepapi.Holder
	for _, l := range f.lineages {
		if reason := l.lacks(f.trusting[root]); reason != "" {
			h := l.holder(l.newest().NotAfter)
			h.Reason = reason
			out = append(out, h)
		}
	}
	return sortHolders(out)
}

// Users returns the holders that may be using a certificate that one of the intermediates
// signed. A holder that has renewed counts until it has shown a later certificate.
func (f Fleet) Users(intermediates []*x509.Certificate) []stepapi.Holder {
	var out []stepapi.Holder
	for _, l := range f.lineages {
		var last time.Time
		for _, h := range l.inUse() {
			if slices.ContainsFunc(intermediates, func(c *x509.Certificate) bool { return cacert.KeyID(c) == h.Issuer }) && h.NotAfter.After(last) {
				last = h.NotAfter
			}
		}
		if !last.IsZero() {
			out = append(out, l.holder(last))
		}
	}
	return sortHolders(out)
}

func (l lineage) newest() truststore.Holding { return l[len(l)-1] }

// lacks says why a lineage may have a bundle whose digest is not in trusting, "" if all that
// have its certificate have reported one that is.
func (l lineage) lacks(trusting map[string]bool) string {
	reports, lagging := l.newest().Reports, 0
	for _, r := range reports {
		if !trusting[r.Digest] {
			lagging++
		}
		if r.Digest == "" {
			return fmt.Sprintf("more than %d processes report with its certificate", truststore.MaxReports)
		}
	}
	switch {
	case len(reports) == 0:
		return "has not reported yet"
	case lagging == 0:
		return ""
	case len(reports) == 1:
		return "has reported another bundle"
	}
	return fmt.Sprintf("%d of %d processes with its certificate have reported another bundle", lagging, len(reports))
}

// inUse returns the certificates from the oldest one that a process of the holder has shown
// last. All of them, if none has shown one, or one that has ended since.
func (l lineage) inUse() []truststore.Holding {
	oldest := len(l)
	for _, r := range l.newest().Reports {
		oldest = min(oldest, slices.IndexFunc(l, func(h truststore.Holding) bool { return h.Serial == r.Serial }))
	}
	if oldest < 0 || oldest == len(l) {
		return l
	}
	return l[oldest:]
}

// holder is the row for a lineage whose certificate in question ends at expires.
func (l lineage) holder(expires time.Time) stepapi.Holder {
	h := l.newest()
	seen := h.IssuedAt
	for _, r := range h.Reports {
		if r.At.After(seen) {
			seen = r.At
		}
	}
	return HolderOf(h.Certificate, seen, expires)
}

// HolderOf is the row for the holder of a certificate, which was seen last at a moment. The
// certificate that the row is about ends at expires.
func HolderOf(c record.Certificate, seen, expires time.Time) stepapi.Holder {
	_, renewal := lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
	return stepapi.Holder{
		Service: c.Service, Names: c.Names, Serial: certs.HexSerial(c.Serial), LastSeen: seen, NextRenewal: renewal.UTC(), Expires: expires,
	}
}

func sortHolders(list []stepapi.Holder) []stepapi.Holder {
	slices.SortFunc(list, func(a, b stepapi.Holder) int {
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		return strings.Compare(a.Serial, b.Serial)
	})
	return list
}

// NotAccepted returns those of list that no name of accept is for. A name is a service, and
// otherwise a name in the certificates of one service. A name that several services have, such
// as localhost, is an error: it says of none of them that somebody has looked at it.
func (f Fleet) NotAccepted(list []stepapi.Holder, accept []string) (left []stepapi.Holder, err error) {
	accepted := map[string]bool{} // services
	serials := map[string]bool{}  // of holders with an accepted name
	for _, name := range accept {
		services := f.servicesWith(name)
		switch {
		case slices.Contains(services, name):
			accepted[name] = true
		case len(services) > 1:
			return nil, fmt.Errorf("accepting %.80q: certificates of %d services have this name (%s and %s are two); name the services", name, len(services), services[0], services[1])
		default:
			for _, h := range list {
				if slices.Contains(h.Names, name) {
					serials[h.Serial] = true
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(h stepapi.Holder) bool { return accepted[h.Service] || serials[h.Serial] }), nil
}

// servicesWith returns the services that are called name, or whose certificates have it, sorted.
func (f Fleet) servicesWith(name string) []string {
	found := map[string]bool{}
	for _, l := range f.lineages {
		for _, h := range l {
			if h.Service == name || slices.Contains(h.Names, name) {
				found[h.Service] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

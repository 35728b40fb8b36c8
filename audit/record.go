package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Recorded is what the record of an authority knows of one certificate.
type Recorded struct {
	Service             string
	Lineage             string   // the same for a certificate and what replaced it
	Names               []string // as issued
	NotBefore, NotAfter time.Time
	Revoked             bool
	DER                 []byte
}

// Record is the record of an authority. Of each lineage only the latest
// certificate counts, and none if that was revoked: what was replaced may expire
// in peace. A lineage also counts as replaced when another one with the same
// names began after its last renewal: the service has enrolled again. Two that
// renew side by side are replicas, and both count.
type Record struct {
	Name string // of the record, for the report
	// List yields certificates, latest expiry first; it stops when yield says so.
	List func(ctx context.Context, yield func(Recorded) bool) error
	Now  time.Time // zero means the present
}

// gone is how long a service that ended without being revoked is reported.
const gone = 30 * 24 * time.Hour

// Collect implements [Source].
func (r Record) Collect(ctx context.Context, yield func(Subject)) {
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	heads, err := r.heads(ctx)
	if err != nil {
		yield(Subject{Kind: kindRecord, Place: r.Name, Err: err})
	}
	for _, c := range heads {
		s := Subject{Kind: kindRecord, Place: r.Name + ": " + c.Service, Lineage: true}
		s.Cert, s.Err = ParseCertificate(c.DER)
		yield(s)
	}
}

// lineage is one line of succession, as far as the list goes back.
type lineage struct {
	head   Recorded
	holder string // service and names
	began  time.Time
}

// heads picks the certificates that ought to be in use. Memory grows with the
// lineages of the last month, not with the record.
func (r Record) heads(ctx context.Context) (heads []Recorded, err error) {
	lineages := map[string]*lineage{}
	err = r.List(ctx, func(c Recorded) bool {
		if r.Now.Sub(c.NotAfter) > gone {
			return false // the rest is older
		}
		l := lineages[c.Lineage]
		if l == nil {
			names := slices.Sorted(slices.Values(c.Names))
			l = &lineage{head: c, holder: fmt.Sprintf("%q %q", c.Service, names)}
			lineages[c.Lineage] = l
		}
		l.began = c.NotBefore // the list goes backwards
		return true
	})
	began := map[string]time.Time{} // the youngest lineage of each holder
	for _, l := range lineages {
		if l.began.After(began[l.holder]) {
			began[l.holder] = l.began
		}
	}
	for _, l := range lineages {
		if !l.head.Revoked && !began[l.holder].After(l.head.NotBefore) {
			heads = append(heads, l.head)
		}
	}
	slices.SortFunc(heads, func(a, b Recorded) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Lineage, b.Lineage))
	})
	return heads, err
}

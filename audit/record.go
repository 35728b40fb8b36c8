package audit

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
)

// Record is the record of an authority. Of each lineage only the latest
// certificate counts, and none if that was revoked: what was replaced may expire
// in peace. A lineage also counts as replaced when another one with the same
// names began after its last renewal: the service has enrolled again. Two that
// renew side by side are replicas, and both count. It comes last among the sources
// of an audit: only what was looked at before can be missed in it.
type Record struct {
	Name string // of the record, for the report
	// List yields certificates, latest expiry first; it stops when yield says so.
	List func(ctx context.Context, yield func(Recorded) bool) error
	Now  time.Time // zero means the present
	// Roots are the trust bundle of the authority. They judge the chains for which
	// there is no other bundle.
	Roots []*x509.Certificate
	// Issuers are the other certificates of the authority, also those that are no
	// longer in use. What one of them or a root has signed ought to be in the record,
	// or to be one of them. Those that stand beside recorded certificates are known.
	Issuers []*x509.Certificate
}

// reportGoneFor is how long a service that ended without being revoked is reported.
const reportGoneFor = 30 * 24 * time.Hour

// recognizeFor is how long what has ended is still recognized where it is in use:
// that it has a successor is the cause that whoever finds it looks for.
const recognizeFor = 7 * 24 * time.Hour

// Collect implements [Source].
func (r Record) Collect(ctx context.Context, yield func(Subject)) {
	r.prepare(ctx, newInventory()).Collect(ctx, yield)
}

// prepare reads the record once: into the inventory, and for the rows of it.
func (r Record) prepare(ctx context.Context, v *inventory) Source {
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	v.asOf = time.Now() // not Now, which may be another moment than that of reading
	if v.recorded == nil {
		v.recorded = map[cert.ID]recordEntry{}
	}
	for _, x := range r.Roots {
		root := cert.FromX509(x)
		v.lent = append(v.lent, root)
		v.authority(root)
	}
	for _, x := range r.Issuers {
		v.authority(cert.FromX509(x))
	}
	heads, err := r.currentCertificates(ctx, v)
	v.torn = v.torn || err != nil
	return &loadedRecord{r.Name, r.Now, heads, err}
}

// loadedRecord is a record that was read. It is judged as of that moment: by the time
// all else has been looked at, a short-lived certificate has a successor that
// the reading could not know.
type loadedRecord struct {
	name  string
	read  time.Time
	heads []Recorded
	err   error
}

// Collect implements [Source].
func (l *loadedRecord) Collect(_ context.Context, yield func(Subject)) {
	if l.err != nil {
		yield(Subject{Kind: kindRecord, Place: l.name, Err: l.err})
	}
	for _, c := range l.heads {
		s := Subject{Kind: kindRecord, Place: l.name + ": " + c.Service, Lineage: true, known: l.read}
		s.Cert, s.Err = cert.Parse(c.DER)
		yield(s)
	}
}

// currentCertificates picks the certificates that ought to be in use, and enters all into the
// inventory. Memory grows with the lineages of the last month and the certificates of
// the last week, not with the record.
func (r Record) currentCertificates(ctx context.Context, v *inventory) (currentCertificates []Recorded, err error) {
	lineages := map[string]*lineage{}
	err = r.List(ctx, func(c Recorded) bool {
		if r.Now.Sub(c.NotAfter) > reportGoneFor {
			return false // the rest is older
		}
		l := lineages[c.Lineage]
		if l == nil {
			names := slices.Sorted(slices.Values(c.Names))
			l = &lineage{head: c, id: derID(c.DER), holder: fmt.Sprintf("%q %q", c.Service, names)}
			lineages[c.Lineage] = l
		}
		l.addEarlier(&c)
		if r.Now.Sub(c.NotAfter) <= recognizeFor {
			v.addRecorded(l, &c)
		}
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
			currentCertificates = append(currentCertificates, l.head)
		}
	}
	slices.SortFunc(currentCertificates, func(a, b Recorded) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Lineage, b.Lineage))
	})
	return currentCertificates, err
}

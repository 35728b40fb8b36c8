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

// Record is the record of an authority as a source. Its rows are the latest certificates
// of all lineages, without revoked ones: a certificate that was replaced may expire. A
// lineage counts as replaced too if another lineage with the same names began after its
// last renewal, because then the service has enrolled again. Two lineages that are renewed
// in parallel are replicas, and both have a row. A Record is the last source of an audit:
// it reports the certificates that the sources before it did not find.
type Record struct {
	// Name is the name of the record in the report.
	Name string
	// List yields certificates, the latest end first, until yield returns false.
	List func(ctx context.Context, yield func(Recorded) bool) error
	// Now is the moment at which the record is judged; zero means the present.
	Now time.Time
	// Roots are the trust bundle of the authority. They judge the chains for which
	// there is no other bundle.
	Roots []*x509.Certificate
	// Issuers are the other certificates of the authority, old ones too. A certificate
	// that one of them or a root has signed should be in the record or be one of them.
	// The intermediates of recorded certificates need not be given.
	Issuers []*x509.Certificate
}

// reportGoneFor is how long after its end the last certificate of a service is reported,
// if it was not revoked.
const reportGoneFor = 30 * 24 * time.Hour

// recognizeFor is how long after its end a replaced certificate is still recognized. If a
// server sends it, the finding is that the server did not load the successor.
const recognizeFor = 7 * 24 * time.Hour

// Collect implements [Source].
func (r Record) Collect(ctx context.Context, yield func(Subject)) {
	r.prepare(ctx, newInventory()).Collect(ctx, yield)
}

// prepare reads the record once, into the inventory and for its own rows.
func (r Record) prepare(ctx context.Context, v *inventory) Source {
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	v.asOf = time.Now() // the moment of reading, which Now need not be
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

// loadedRecord is a record that was read. It is judged as of the moment of reading, because
// a short-lived certificate may be replaced while the other sources are asked.
type loadedRecord struct {
	name  string
	read  time.Time
	heads []Recorded
	err   error // of reading; heads has what was read before it
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

// currentCertificates returns the certificates that should be in use, and adds all recent
// ones to the inventory. Memory grows with the lineages of the last month and the
// certificates of the last week, and not with the record.
func (r Record) currentCertificates(ctx context.Context, v *inventory) (currentCertificates []Recorded, err error) {
	lineages := map[string]*lineage{}
	err = r.List(ctx, func(c Recorded) bool {
		if r.Now.Sub(c.NotAfter) > reportGoneFor {
			return false // the others ended before
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

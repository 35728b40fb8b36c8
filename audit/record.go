package audit

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
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
	l, _ := r.load(ctx, nil) // its rows have the error
	return l.prepare(ctx, v)
}

// Load reads the record now, and returns it as a source that any number of runs may share. keep
// is what [Config.Keeper] has returned for these runs; nil keeps nothing. If the error is not
// nil, the source has what was read before it.
func (r Record) Load(ctx context.Context, keep func(Subject) Subject) (Source, error) {
	return r.load(ctx, keep)
}

func (r Record) load(ctx context.Context, keep func(Subject) Subject) (*loadedRecord, error) {
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	v := newInventory() // gathers; prepare copies from it
	v.recorded = map[cert.ID]recordEntry{}
	l := &loadedRecord{name: r.Name, read: r.Now, asOf: time.Now()} // the moment of reading, which Now need not be
	for _, x := range r.Roots {
		root := cert.FromX509(x)
		l.roots = append(l.roots, root)
		v.authority(root)
	}
	for _, x := range r.Issuers {
		v.authority(cert.FromX509(x))
	}
	l.heads, l.err = r.currentCertificates(ctx, v)
	l.recorded, l.issuers, l.signers = v.recorded, v.issuers, v.signers
	if keep != nil {
		l.keepAll(keep)
	}
	return l, l.err
}

// loadedRecord is a record that was read. It is judged as of the moment of reading, because
// a short-lived certificate may be replaced while the other sources are asked.
type loadedRecord struct {
	name  string
	read  time.Time
	asOf  time.Time
	heads []Recorded // nil if they were kept
	kept  []Subject
	err   error // of reading; the rest is what was read before it

	roots    []*cert.Certificate
	recorded map[cert.ID]recordEntry
	issuers  map[string][]*cert.Certificate
	signers  map[cert.ID]bool
}

// keepAll judges the heads once, and drops what was needed for that only.
func (l *loadedRecord) keepAll(keep func(Subject) Subject) {
	for _, c := range l.heads {
		l.kept = append(l.kept, keep(l.subject(&c)))
	}
	l.heads = nil
	for _, e := range l.recorded {
		if e.line.number == "" {
			e.line.number = e.line.serial()
			e.line.head.DER, e.line.head.Chain = nil, nil
		}
	}
}

// prepare adds the record to the inventory. Several runs may do that at the same time.
func (l *loadedRecord) prepare(_ context.Context, v *inventory) Source {
	v.asOf, v.torn = l.asOf, v.torn || l.err != nil
	v.lent = append(v.lent, l.roots...)
	if v.recorded == nil {
		v.recorded, v.issuers, v.signers = l.recorded, l.issuers, l.signers
		return l
	}
	// A second record: the maps of the first one may be of another run as well.
	v.recorded, v.issuers, v.signers = maps.Clone(v.recorded), maps.Clone(v.issuers), maps.Clone(v.signers)
	maps.Copy(v.recorded, l.recorded)
	maps.Copy(v.signers, l.signers)
	for name, more := range l.issuers {
		v.issuers[name] = slices.Concat(v.issuers[name], more)
	}
	return l
}

// Collect implements [Source].
func (l *loadedRecord) Collect(_ context.Context, yield func(Subject)) {
	if l.err != nil {
		yield(Subject{Kind: kindRecord, Place: l.name, Err: l.err})
	}
	for _, s := range l.kept {
		yield(s)
	}
	for _, c := range l.heads {
		yield(l.subject(&c))
	}
}

// subject returns the subject of a head.
func (l *loadedRecord) subject(c *Recorded) Subject {
	s := Subject{Kind: kindRecord, Place: l.name + ": " + c.Service, Lineage: true, known: l.read}
	s.Cert, s.Err = cert.Parse(c.DER)
	return s
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

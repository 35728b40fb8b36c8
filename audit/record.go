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
	Chain               []byte // DER of the intermediates, one behind the other, its issuer first
}

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
}

// gone is how long a service that ended without being revoked is reported.
const gone = 30 * 24 * time.Hour

// remembered is how long what has ended is still recognized where it is in use:
// that it has a successor is the cause that whoever finds it looks for.
const remembered = 7 * 24 * time.Hour

// Collect implements [Source].
func (r Record) Collect(ctx context.Context, yield func(Subject)) {
	r.prepare(ctx, newView()).Collect(ctx, yield)
}

// prepare reads the record once: into the view, and for the rows of it.
func (r Record) prepare(ctx context.Context, v *view) Source {
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	v.asOf = time.Now() // not Now, which may be another moment than that of reading
	if v.recorded == nil {
		v.recorded = map[certID]entry{}
	}
	heads, err := r.heads(ctx, v)
	v.torn = v.torn || err != nil
	return &ledger{r.Name, r.Now, heads, err}
}

// ledger is a record that was read. It is judged as of that moment: by the time
// all else has been looked at, a short-lived certificate has a successor that
// the reading could not know.
type ledger struct {
	name  string
	read  time.Time
	heads []Recorded
	err   error
}

// Collect implements [Source].
func (l *ledger) Collect(_ context.Context, yield func(Subject)) {
	if l.err != nil {
		yield(Subject{Kind: kindRecord, Place: l.name, Err: l.err})
	}
	for _, c := range l.heads {
		s := Subject{Kind: kindRecord, Place: l.name + ": " + c.Service, Lineage: true, known: l.read}
		s.Cert, s.Err = ParseCertificate(c.DER)
		yield(s)
	}
}

// lineage is one line of succession, as far as the list goes back.
type lineage struct {
	head   Recorded
	id     certID // of the head
	holder string // service and names
	began  time.Time

	renewals int           // that the list shows
	longest  time.Duration // between two of them

	disk, wire string // where the head was found
	older      string // where one that it has replaced was found
}

// add takes the certificate that came before those that the line has.
func (l *lineage) add(c *Recorded) {
	if !l.began.IsZero() {
		l.renewals++
		l.longest = max(l.longest, l.began.Sub(c.NotBefore))
	}
	l.began = c.NotBefore
}

// note remembers where a certificate of the line was found.
func (l *lineage) note(id certID, r *Row) {
	switch {
	case id != l.id:
		l.older = r.Place
	case r.Kind == kindEndpoint:
		l.wire = r.Place
	default:
		l.disk = r.Place
	}
}

// serial is the head's, as this project shows it.
func (l *lineage) serial() string {
	if c := remains(l.head.DER); c != nil {
		return c.serial
	}
	return "another"
}

// heads picks the certificates that ought to be in use, and enters all into the
// view. Memory grows with the lineages of the last month and the certificates of
// the last week, not with the record.
func (r Record) heads(ctx context.Context, v *view) (heads []Recorded, err error) {
	lineages := map[string]*lineage{}
	err = r.List(ctx, func(c Recorded) bool {
		if r.Now.Sub(c.NotAfter) > gone {
			return false // the rest is older
		}
		l := lineages[c.Lineage]
		if l == nil {
			names := slices.Sorted(slices.Values(c.Names))
			l = &lineage{head: c, id: derID(c.DER), holder: fmt.Sprintf("%q %q", c.Service, names)}
			lineages[c.Lineage] = l
		}
		l.add(&c)
		if r.Now.Sub(c.NotAfter) <= remembered {
			v.enter(l, &c)
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
			heads = append(heads, l.head)
		}
	}
	slices.SortFunc(heads, func(a, b Recorded) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Lineage, b.Lineage))
	})
	return heads, err
}

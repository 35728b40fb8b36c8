package audit

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
)

// A program that audits the same places for months keeps the subjects that it has found, and
// runs an audit of them whenever somebody asks. Most checks look at the content of a
// certificate, and nearly all of the time of an audit is theirs. They run once, when the
// certificate is read. What is left for each run are the checks of dates and those that
// compare rows, so the report is as fresh as one of the files themselves.

// kept is what stays of the judgement of a subject: the findings that time does not change.
type kept struct{ findings []Finding }

// changesWithTime reports whether the result of a check of one subject depends on the moment.
// The verdict on a chain changes too, when a certificate of it ends: [Subject.ChainEnds] says
// when the subject has to be read again.
func (c *check) changesWithTime() bool { return c.id == "chain-ends" || slices.Contains(ofDates, c.id) }

// keeper is a call of [Config.Keeper].
type keeper struct {
	table  []check // without those that change with time
	at     criteria
	now    func() time.Time
	lent   []*cert.Certificate // the roots of the record
	asking bool                // there are lists or a record, which ask for the issuer of a leaf

	nothing kept // is shared by all subjects without such findings
	mu      sync.Mutex
	rulings map[rulingKey]*ruling // that leaves below one issuer share
}

// rulingKey has all that is left of a ruling: the verdict, the certificate that ends first, and
// the path above the leaf.
type rulingKey struct {
	verdict chainResult
	last    *x509.Certificate
	length  int // of the path, with the leaf
	path    [4]*x509.Certificate
}

// maxRulings bounds the rulings that are shared.
const maxRulings = 4 << 10

// shared returns the compact form of a ruling, which is one for all equal ones.
func (k *keeper) shared(r *ruling) *ruling {
	key := rulingKey{verdict: r.verdict, last: r.last}
	if len(r.paths) > 0 {
		if len(r.paths[0]) > len(key.path)+1 {
			return r.compact()
		}
		key.length = len(r.paths[0])
		copy(key.path[:], r.paths[0][1:])
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.rulings[key]
	if one == nil {
		if one = r.compact(); k.rulings == nil || len(k.rulings) >= maxRulings {
			k.rulings = map[rulingKey]*ruling{} // those in use stay valid
		}
		k.rulings[key] = one
	}
	return one
}

// Keeper returns a function that judges a subject and returns it in a form that is small, and
// that [Run] judges again for little. Only a Run with the same checks, measures and lists may
// get it. Of the Sources only a record that [Record.Load] has returned is looked at: its roots
// judge the chains that have no other bundle. Several goroutines may call the function.
func (cfg *Config) Keeper() func(Subject) Subject {
	k := &keeper{table: cfg.table(), at: cfg.newCriteria(), now: cfg.Now, asking: len(cfg.Lists) > 0}
	if k.now == nil {
		k.now = time.Now
	}
	k.table = slices.DeleteFunc(k.table, func(c check) bool { return c.changesWithTime() })
	for _, s := range cfg.Sources {
		if l, ok := s.(*loadedRecord); ok {
			k.lent, k.asking = l.roots, true
		}
	}
	return k.keep
}

// keep judges a subject that is not kept already. A document stays as it is: there are few, and their dates are most of
// what is judged.
func (k *keeper) keep(s Subject) Subject {
	if s.kept != nil {
		return s
	}
	if s.Kind == "" {
		s.Kind = kindOf(&s)
	}
	s.kept = &k.nothing
	if s.Cert == nil {
		return s
	}
	at := k.at
	at.now = k.now()
	if s.Bundle == nil && s.Leaf() && s.Kind != kindRecord {
		s.Bundle = k.lent
	}
	if found := runChecks(&s, k.table, at); len(found) > 0 {
		s.kept = &kept{slices.Clone(found)}
	}
	if s.parsed() {
		s.ruled = k.shared(s.ruling(at))
	}
	s.Order, s.remedy = nil, ""
	if s.TLS != nil { // the state has all that the server sent
		s.TLS = &tls.ConnectionState{Version: s.TLS.Version, CipherSuite: s.TLS.CipherSuite, CurveID: s.TLS.CurveID}
	}
	if !s.Cert.IsCA { // one of an authority is shared by all who have it
		s.compactCert(k.asking)
	}
	return s
}

// compactCert makes the certificate small. asking says that checks will ask for its issuer. If
// that is not at hand, it may be a certificate of the record, which only its signature tells:
// then the certificate stays whole.
func (s *Subject) compactCert(asking bool) {
	var issuer *cert.Certificate
	if paths := s.ruled; paths != nil && len(paths.paths) > 0 && len(paths.paths[0]) > 1 {
		above := paths.paths[0][1]
		at := func(c *cert.Certificate) bool { return c.X509() == above }
		if i := slices.IndexFunc(s.Chain, at); i >= 0 {
			issuer = s.Chain[i]
		} else if i := slices.IndexFunc(s.Bundle, at); i >= 0 {
			issuer = s.Bundle[i]
		}
	}
	if issuer == nil && asking && s.Cert.X509() != nil && !s.Cert.SelfSigned() {
		row := Row{Subject: *s}
		if issuer = row.issuer(); issuer == nil {
			return
		}
	}
	s.Cert = s.Cert.Compact(issuer)
}

// compact returns the ruling without the leaf and without the paths that no check of rows asks
// for.
func (r *ruling) compact() *ruling {
	out := *r
	out.text, out.remedy, out.paths = "", "", nil
	if len(r.paths) > 0 {
		path := slices.Clone(r.paths[0])
		path[0] = nil
		out.paths = [][]*x509.Certificate{path}
	}
	return &out
}

// judge returns the findings of a subject that was judged before, in the order of the table.
// timed are those of the table that change with time.
func (k *kept) judge(s *Subject, table, timed []check, at criteria) []Finding {
	fresh := runChecks(s, timed, at)
	if len(fresh) == 0 || len(k.findings) == 0 {
		return slices.Concat(fresh, k.findings)
	}
	order := func(f Finding) int { return slices.IndexFunc(table, func(c check) bool { return c.id == f.Check }) }
	all := slices.Concat(fresh, k.findings)
	slices.SortFunc(all, func(a, b Finding) int { return order(a) - order(b) })
	return all
}

// timed returns the checks of a table that change with time.
func timed(table []check) (out []check) {
	for _, c := range table {
		if c.changesWithTime() {
			out = append(out, c)
		}
	}
	return out
}

// again returns a kept subject for one run, which changes the document of a list and the key.
func (s Subject) again() Subject {
	if s.Document == nil {
		return s
	}
	d := *s.Document
	d.Details = slices.Clone(d.Details)
	s.Document = &d
	if s.Key != nil {
		key := *s.Key
		s.Key = &key
	}
	return s
}

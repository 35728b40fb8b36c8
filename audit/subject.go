package audit

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"regexp"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/wording"
)

// KindEndpoint is the kind of what a server shows.
const KindEndpoint = "endpoint"

// Kinds of other subjects, as reports name them.
const (
	kindFile   = "file"
	kindRecord = "record"
	kindList   = "crl"
	kindKey    = "key"
)

// Source finds certificates. Collect yields each of them, and whatever it could
// not look at, as a Subject, one after another and in an order that depends on
// nothing but what is there: rows come in that order. It returns when it is done
// or ctx is.
//
// A source that walks directories may have a method OmitTo(add func(path, reason string))
// Source, which returns the same source for a run that counts what it leaves out on
// purpose; add may be called by several goroutines. One that knows whether it will ask
// servers may have a method Endpoints() bool; of any other, servers are expected.
type Source interface {
	Collect(ctx context.Context, yield func(Subject))
}

// Subject is one certificate where it was found, or a place that could not be
// looked at. What a source does not know stays zero, and is not judged.
type Subject struct {
	// Kind is file, endpoint, record, crl or key. [Run] fills in an empty one: file, or
	// what Document says.
	Kind  string
	Place string // path, host:port, or the record with the service in it
	Block int    // PEM block in the file, from 1; 0 if there is one certificate only

	// Cert is nil if Err says why there is none. With Err beside it, it is one that
	// crypto/x509 refuses, and nothing but its dates is judged; or that of a server
	// with which crypto/tls comes to no agreement.
	Cert   *cert.Certificate
	Chain  []*cert.Certificate // what came with it: intermediates, in the order found
	Bundle []*cert.Certificate // roots that must verify it; nil: the chain is not judged
	Key    *cert.KeyFile       // the private key that belongs to it
	Host   string              // the name by which a client reaches it
	TLS    *tls.ConnectionState
	// Lineage says that the record counts this certificate as the latest of a
	// service, so that a program is known to renew it.
	Lineage bool

	Err error // why it could not be checked

	SentAbove bool // a server has sent it behind the certificate that it shows
	// OldestVersion is the oldest version of TLS that a server accepts beside the one in
	// TLS; 0: nobody asked, or none.
	OldestVersion uint16
	// Order is Cert and Chain as they lie or were sent; nil if that is no chain.
	Order []*cert.Certificate
	// Document stands in place of Cert; with Key beside it, it is that key alone.
	Document *cert.Document
	Lists    []*cert.List // that lie where Cert does
	Oddity   *cert.Oddity // why others do not read the file; nil if they do

	ruled  *ruling   // on the chain, once a check has asked
	remedy string    // set by a check whose finding needs another one than the table has
	given  bool      // a list of Config.Lists
	known  time.Time // judged at this moment, the one of reading; zero: when it is its turn
}

// shortLived is the longest life of a certificate that nobody renews by hand:
// the CA/Browser Forum draws the same line (Baseline Requirements 1.6.1,
// short-lived subscriber certificate, from March 2026).
const shortLived = 7 * wording.Day

// Leaf reports whether this certificate could be parsed and is judged as the first
// of a chain. That is every end-entity certificate, and every other one that is used
// like one: peers verify what a server shows first, whatever its basic constraints
// say (RFC 9846 §4.5.1, RFC 5280 §6.1).
func (s *Subject) Leaf() bool { return s.parsed() && !s.Authority() }

// Authority reports whether a certificate is judged as that of an authority. Beside its
// own key it is at home if it may issue, and neither its names nor its usages are
// those of a service.
func (s *Subject) Authority() bool {
	c := s.Cert
	switch {
	case c == nil || !c.IsCA:
		return false
	case s.Kind == KindEndpoint:
		return s.SentAbove
	}
	inPlace := func() bool { return authorityFile.MatchString(filepath.Base(s.Place)) }
	switch {
	case s.Key == nil || !s.Key.Fits:
		return c.ForSigningOnly() || !c.HasHostNames || inPlace()
	case c.HasHostNames && !inPlace():
		return false
	}
	// Without a key usage it is what openssl req -x509 makes for authorities and servers alike.
	told := c.KeyUsage != 0 || inPlace() || c.SelfIssued() && authoritySubject.MatchString(c.Name)
	return c.ForSigningOnly() || c.MayIssue() && !c.ForTLS() && told
}

// Names that nobody gives to the file of a service's certificate, or to its subject. They
// tell what the rest of it leaves open: the authority that kubeadm makes, in ca.crt, has
// the name of a host.
var (
	authorityFile    = regexp.MustCompile(`(?i)(^|[-_.])(ca|root|rootca|intermediate)[-_.]`)
	authoritySubject = regexp.MustCompile(`(?i)(^| )(ca|root|intermediate|authority)( |$)`)
)

// parsed reports whether there is a certificate that crypto/x509 takes. Of a server
// whose handshake failed that can be so beside an error.
func (s *Subject) parsed() bool { return s.Cert != nil && s.Cert.X509() != nil }

// AutoRenewed reports whether a program is expected to renew the certificate.
func (s *Subject) AutoRenewed() bool {
	// Whether one that could be read in part only is an authority's is unknown; a life this short says no.
	return s.Cert != nil && !s.Authority() && (s.Lineage || s.Cert.Life() <= shortLived)
}

// Protocol is the version of TLS that a server agreed to; "" if there was none.
func (s *Subject) Protocol() string {
	if s.TLS == nil {
		return ""
	}
	return tls.VersionName(s.TLS.Version)
}

// KeyExchange is "" when the handshake ended before one was agreed.
func (s *Subject) KeyExchange() string {
	if s.TLS == nil || s.TLS.CurveID == 0 {
		return ""
	}
	return s.TLS.CurveID.String()
}

// ChainEnds is the first end of a certificate on the chain that was verified, the leaf
// included, and zero if none was.
func (s *Subject) ChainEnds() time.Time {
	if s.ruled == nil || s.ruled.last == nil {
		return time.Time{}
	}
	if s.ruled.last.NotAfter.Before(s.Cert.NotAfter) {
		return s.ruled.last.NotAfter.UTC()
	}
	return s.Cert.NotAfter.UTC()
}

// InRecord reports whether it is in the record of an authority.
func (s *Subject) InRecord() bool { return s.Kind == kindRecord }

// InFile reports whether it is in a file, so that its place is a path.
func (s *Subject) InFile() bool { return s.Kind == kindFile || s.Kind == kindList || s.Kind == kindKey }

// kindOf is the kind of a subject whose source has left that open.
func kindOf(s *Subject) string {
	switch {
	case s.Document != nil && s.Document.What == cert.RevocationList:
		return kindList
	case s.Document != nil && s.Key != nil:
		return kindKey
	}
	return kindFile
}

// Row is one certificate, or one place that could not be checked.
type Row struct {
	Subject
	State    string // a word: OK, WARN, CRIT, EXPIRED, NOT-YET, OVERDUE, REVOKED, ERROR
	Findings []Finding
	Accepted []string // ids of checks whose findings the baseline has taken away
	Judged   time.Time
	Also     []string // further places of the same CA certificate
}

// Severity is that of the worst finding.
func (r *Row) Severity() Severity {
	worst := severityOK
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Rank is 3 for what has a critical finding and 0 for what is fine. It puts what could not be checked between critical findings and warnings.
func (r *Row) Rank() int {
	switch severity := r.Severity(); {
	case severity == Crit:
		return 3
	case r.Err != nil:
		return 2
	case severity == Warn:
		return 1
	}
	return 0
}

// End is when what the row is about ends; zero if it does not say.
func (r *Row) End() time.Time {
	switch {
	case r.Cert != nil:
		return r.Cert.NotAfter
	case r.Document != nil:
		return r.Document.Until
	}
	return time.Time{}
}

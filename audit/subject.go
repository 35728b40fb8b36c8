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

// KindEndpoint is the kind of a certificate that a server sends.
const KindEndpoint = "endpoint"

// Kinds of other subjects, as reports name them.
const (
	kindFile   = "file"
	kindRecord = "record"
	kindList   = "crl"
	kindKey    = "key"
)

// Source finds certificates. Collect yields each certificate, and each place that it could
// not read, as a Subject, one after the other. The order must be the same for the same
// input, because the rows of the report have that order. Collect returns when it is done
// or when ctx ends.
//
// A source may have two more methods. OmitTo(add func(path, reason string)) Source returns
// the same source for a run that counts the paths that it leaves out on purpose; several
// goroutines may call add. Endpoints() bool says whether the source will ask servers; a
// source without it is taken to ask some.
type Source interface {
	Collect(ctx context.Context, yield func(Subject))
}

// Subject is one certificate in the place where it was found, or a place that could not be
// read. A field that a source does not know stays zero, and is not judged.
type Subject struct {
	// Kind is file, endpoint, record, crl or key. [Run] fills in an empty one: file, or
	// what Document says.
	Kind string
	// Place is a path, host:port, or the name of a record and a service in it.
	Place string
	// Block is the number of the PEM block in the file, from 1. It is 0 if there is one
	// certificate only.
	Block int

	// Cert is nil if Err says why there is none. If both are set, crypto/x509 refuses the
	// certificate, and only its dates are judged; or the handshake with the server that
	// sent it has failed.
	Cert *cert.Certificate
	// Chain are the intermediates that were found with it, in their order.
	Chain []*cert.Certificate
	// Bundle are the roots that must verify it; nil means that the chain is not judged.
	Bundle []*cert.Certificate
	// Key is the private key that was found for it; nil if there is none.
	Key *cert.KeyFile
	// Host is the name by which a client reaches the server; "" if the name is not judged.
	Host string
	// TLS is nil if the subject is no endpoint, or its handshake failed early.
	TLS *tls.ConnectionState
	// Lineage is set if the record has this certificate as the latest of a service, so a
	// program renews it.
	Lineage bool

	// Err says why the subject could not be checked.
	Err error

	// SentAbove is set if a server has sent it behind its own certificate.
	SentAbove bool
	// OldestVersion is the oldest version of TLS that a server accepts beside the one in
	// TLS. It is 0 if there is none, or if the server was not asked.
	OldestVersion uint16
	// Order has Cert and Chain in the order of the file or of the handshake; nil if that
	// order says nothing.
	Order []*cert.Certificate
	// Document stands in place of Cert. If Key is set too, the document is that key.
	Document *cert.Document
	// Lists are revocation lists that were found in the same place.
	Lists []*cert.List
	// Oddity says why other programs do not read the file; nil if they do.
	Oddity *cert.Oddity
	// Stale is set if its source fails now: it is when the source was last read, and the
	// subject is as it was then.
	Stale time.Time

	kept   *kept     // set if it was judged before; see Config.Keeper
	ruled  *ruling   // on the chain; nil until a check has asked
	remedy string    // set by a check that has a better remedy than the table
	given  bool      // a list of Config.Lists
	known  time.Time // judge it at this moment; zero means the moment at which it is added
}

// shortLived is the longest life of a certificate that is certainly renewed by a program.
// The CA/Browser Forum has the same limit (Baseline Requirements §1.6.1, short-lived
// subscriber certificate, from March 2026).
const shortLived = 7 * wording.Day

// Leaf reports whether this certificate could be parsed and is judged as the first of a
// chain: each end-entity certificate, and each CA certificate that is used like one. Peers
// verify the first certificate of a server whatever its basic constraints say (RFC 9846
// §4.5.1, RFC 5280 §6.1).
func (s *Subject) Leaf() bool { return s.parsed() && !s.Authority() }

// Authority reports whether a CA certificate is judged as that of an authority. A service
// may use a CA certificate as its own, which is a finding. Therefore a CA certificate
// beside its own key counts as an authority only if it may issue and neither its names
// nor its usages are those of a service.
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
	// Without a key usage only names can tell: openssl req -x509 makes the same certificate
	// for authorities and for servers.
	told := c.KeyUsage != 0 || inPlace() || c.SelfIssued() && authoritySubject.MatchString(c.Name)
	return c.ForSigningOnly() || c.MayIssue() && !c.ForTLS() && told
}

// These match names of files and subjects of authorities. They decide where the certificate
// itself does not: the authority of kubeadm, in ca.crt, has the name of a host.
var (
	authorityFile    = regexp.MustCompile(`(?i)(^|[-_.])(ca|root|rootca|intermediate)[-_.]`)
	authoritySubject = regexp.MustCompile(`(?i)(^| )(ca|root|intermediate|authority)( |$)`)
)

// parsed reports whether crypto/x509 accepts the certificate. The subject may have an error
// all the same, if it is a server whose handshake failed.
func (s *Subject) parsed() bool { return s.Cert != nil && s.Cert.Accepted() }

// AutoRenewed reports whether a program is expected to renew the certificate.
func (s *Subject) AutoRenewed() bool {
	// Of a certificate that crypto/x509 refuses it is unknown whether it is an authority's.
	// No authority lives so short.
	return s.Cert != nil && !s.Authority() && (s.Lineage || s.Cert.Life() <= shortLived)
}

// Protocol returns the version of TLS that a server agreed to, or "" without a handshake.
func (s *Subject) Protocol() string {
	if s.TLS == nil {
		return ""
	}
	return tls.VersionName(s.TLS.Version)
}

// KeyExchange returns the name of the group of the key exchange, or "" if the handshake
// ended before.
func (s *Subject) KeyExchange() string {
	if s.TLS == nil || s.TLS.CurveID == 0 {
		return ""
	}
	return s.TLS.CurveID.String()
}

// ChainEnds returns the first end of a certificate on the verified chain, in UTC. The leaf
// is on the chain. It returns the zero time if no chain was verified.
func (s *Subject) ChainEnds() time.Time {
	if s.ruled == nil || s.ruled.last == nil {
		return time.Time{}
	}
	if s.ruled.last.NotAfter.Before(s.Cert.NotAfter) {
		return s.ruled.last.NotAfter.UTC()
	}
	return s.Cert.NotAfter.UTC()
}

// InRecord reports whether the subject was found in the record of an authority.
func (s *Subject) InRecord() bool { return s.Kind == kindRecord }

// InFile reports whether the subject was found in a file: then its place is a path.
func (s *Subject) InFile() bool { return s.Kind == kindFile || s.Kind == kindList || s.Kind == kindKey }

// kindOf returns the kind of a subject whose source has not set one.
func kindOf(s *Subject) string {
	switch {
	case s.Document != nil && s.Document.What == cert.RevocationList:
		return kindList
	case s.Document != nil && s.Key != nil:
		return kindKey
	}
	return kindFile
}

// Row is one line of the report: a certificate, a document, or a place that could not be
// checked.
type Row struct {
	Subject
	// State is OK, WARN, CRIT, EXPIRED, NOT-YET, OVERDUE, REVOKED or ERROR.
	State    string
	Findings []Finding
	// Accepted are the ids of checks whose findings the baseline has removed.
	Accepted []string
	// Judged is the moment at which the row was judged.
	Judged time.Time
	// Also are further places of the same CA certificate.
	Also []string
}

// Severity returns the severity of the worst finding.
func (r *Row) Severity() Severity {
	worst := severityOK
	for _, f := range r.Findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// Rank orders rows by how bad they are: 3 with a critical finding, 2 if the row could not
// be checked, 1 with a warning, 0 otherwise.
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

// End returns when the certificate or the document ends, or the zero time if it has no end.
func (r *Row) End() time.Time {
	switch {
	case r.Cert != nil:
		return r.Cert.NotAfter
	case r.Document != nil:
		return r.Document.Until
	}
	return time.Time{}
}

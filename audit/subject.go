package audit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// Kinds of subjects, as reports name them.
const (
	kindFile     = "file"
	kindEndpoint = "endpoint"
	kindRecord   = "record"
)

// Source finds certificates. Collect yields each of them, and whatever it could
// not look at, as a Subject; it may yield from several goroutines. It returns
// when it is done or ctx is.
type Source interface {
	Collect(ctx context.Context, yield func(Subject))
}

// Subject is one certificate where it was found, or a place that could not be
// looked at. What a source does not know stays zero, and is not judged.
type Subject struct {
	Kind  string // file, endpoint or record
	Place string // path, host:port, or the record with the service in it
	Block int    // PEM block in the file, from 1; 0 if there is one certificate only

	// Cert is nil if Err says why there is none. With Err beside it, it is one that
	// crypto/x509 refuses: only Raw, the serial number, the dates and the common
	// names are filled in, and nothing but the dates is judged.
	Cert   *x509.Certificate
	Chain  []*x509.Certificate // what came with it: intermediates, in the order found
	Bundle []*x509.Certificate // roots that must verify it; nil: the chain is not judged
	Key    *KeyFile            // the private key that belongs to it
	Host   string              // the name by which a client reaches it
	TLS    *tls.ConnectionState
	// Lineage says that the record counts this certificate as the latest of a
	// service, so that a program is known to renew it.
	Lineage bool

	Err error // why it could not be checked

	verdict     verdict // on the chain
	verdictText string

	order   []*x509.Certificate // Cert and Chain as they lie or were sent; nil if that is no chain
	sharers []string            // names of others in the report with the same public key
}

// KeyFile is what is known of a private key. The key itself is not kept.
type KeyFile struct {
	Path string
	Mode fs.FileMode
	Fits bool
}

// shortLived is the longest life of a certificate that nobody renews by hand:
// the CA/Browser Forum draws the same line (Baseline Requirements 1.6.1,
// short-lived subscriber certificate, from March 2026).
const shortLived = 7 * 24 * time.Hour

// leaf reports whether this is an end-entity certificate that could be parsed.
func (s *Subject) leaf() bool { return s.Cert != nil && s.Err == nil && !s.Cert.IsCA }

// renews reports whether a program is expected to renew the certificate.
func (s *Subject) renews() bool {
	// Whether one that could be read in part only is an authority's is unknown; a life this short says no.
	return s.Cert != nil && !s.Cert.IsCA && (s.Lineage || life(s.Cert) <= shortLived)
}

// life is the time from issue to end, without the back-dating.
func life(c *x509.Certificate) time.Duration {
	return c.NotAfter.Sub(lifetime.IssuedAt(c.NotBefore, c.NotAfter))
}

package audit

import (
	"context"
	"crypto/tls"
	"io/fs"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// Kinds of subjects, as reports name them.
const (
	kindFile     = "file"
	kindEndpoint = "endpoint"
	kindRecord   = "record"
	kindList     = "crl"
)

// Source finds certificates. Collect yields each of them, and whatever it could
// not look at, as a Subject, one after another and in an order that depends on
// nothing but what is there: rows come in that order. It returns when it is done
// or ctx is.
type Source interface {
	Collect(ctx context.Context, yield func(Subject))
}

// Subject is one certificate where it was found, or a place that could not be
// looked at. What a source does not know stays zero, and is not judged.
type Subject struct {
	Kind  string // file, endpoint, record or crl
	Place string // path, host:port, or the record with the service in it
	Block int    // PEM block in the file, from 1; 0 if there is one certificate only

	// Cert is nil if Err says why there is none. With Err beside it, it is one that
	// crypto/x509 refuses, and nothing but its dates is judged.
	Cert   *Certificate
	Chain  []*Certificate // what came with it: intermediates, in the order found
	Bundle []*Certificate // roots that must verify it; nil: the chain is not judged
	Key    *KeyFile       // the private key that belongs to it
	Host   string         // the name by which a client reaches it
	TLS    *tls.ConnectionState
	// Lineage says that the record counts this certificate as the latest of a
	// service, so that a program is known to renew it.
	Lineage bool

	Err error // why it could not be checked

	verdict     verdict // on the chain
	verdictText string

	order []*Certificate            // Cert and Chain as they lie or were sent; nil if that is no chain
	doc   *document                 // in place of Cert
	known time.Time                 // judged at this moment, the one of reading; zero: when it is its turn
	later func(yield func(Subject)) // finds subjects when it is their turn, in place of this one
	seen  *bool                     // set when this is yielded
}

// KeyFile is what is known of a private key. The key itself is not kept.
type KeyFile struct {
	Path string
	Mode fs.FileMode
	Fits bool
	// Locked says that it is behind a password, so that whoever may read the file
	// does not have it.
	Locked bool
}

// shortLived is the longest life of a certificate that nobody renews by hand:
// the CA/Browser Forum draws the same line (Baseline Requirements 1.6.1,
// short-lived subscriber certificate, from March 2026).
const shortLived = 7 * 24 * time.Hour

// leaf reports whether this is an end-entity certificate that could be parsed.
func (s *Subject) leaf() bool { return s.Cert != nil && s.Err == nil && !s.Cert.isCA }

// renews reports whether a program is expected to renew the certificate.
func (s *Subject) renews() bool {
	// Whether one that could be read in part only is an authority's is unknown; a life this short says no.
	return s.Cert != nil && !s.Cert.isCA && (s.Lineage || life(s.Cert) <= shortLived)
}

// life is the time from issue to end, without the back-dating.
func life(c *Certificate) time.Duration {
	return c.notAfter.Sub(lifetime.IssuedAt(c.notBefore, c.notAfter))
}

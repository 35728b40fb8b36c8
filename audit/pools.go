package audit

import (
	"crypto/x509"
	"slices"
	"sync"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/openssl"
	"github.com/artstore/artstore-pki/internal/certs"
)

// pools keeps the certificate pools of chains and bundles that many leaves share. For a file
// with thousands of leaves, making the pool again for each leaf would take most of the
// time of an audit.
type pools struct {
	mu    sync.Mutex
	made  map[[2]listKey]*x509.CertPool
	trust map[listKey]anchors
}

// maxPools bounds the pools that are kept, because most files have a chain of their own.
const maxPools = 256

// listKey identifies a list by its first element and its length, and not by its content, so
// a list must not change after its first use.
type listKey struct {
	first **cert.Certificate
	size  int
}

func listKeyOf(certs []*cert.Certificate) (id listKey) {
	if len(certs) > 0 {
		id = listKey{&certs[0], len(certs)}
	}
	return id
}

// anchors are the parts of a trust bundle.
type anchors struct {
	roots *x509.CertPool
	rest  []*cert.Certificate // certificates that are not self-issued
}

// of returns the pool of one list, or of two together.
func (p *pools) of(lists ...[]*cert.Certificate) *x509.CertPool {
	var id [2]listKey
	for i, l := range lists {
		id[i] = listKeyOf(l)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made[id] == nil {
		if p.made == nil || len(p.made) >= maxPools {
			p.made = map[[2]listKey]*x509.CertPool{} // pools in use stay valid
		}
		p.made[id] = certs.Pool(cert.X509s(slices.Concat(lists...))...)
	}
	return p.made[id]
}

// anchors returns the roots of a bundle, and its other certificates.
func (p *pools) anchors(bundle []*cert.Certificate) (roots *x509.CertPool, rest []*cert.Certificate) {
	id := listKeyOf(bundle)
	p.mu.Lock()
	defer p.mu.Unlock()
	a, known := p.trust[id]
	if !known {
		if p.trust == nil || len(p.trust) >= maxPools {
			p.trust = map[listKey]anchors{}
		}
		a.roots = certs.Pool()
		for _, c := range bundle {
			switch {
			case !c.Verifies():
			case c.SelfIssued():
				a.roots.AddCert(c.X509())
			default:
				a.rest = append(a.rest, c)
			}
		}
		p.trust[id] = a
	}
	return a.roots, a.rest
}

// indexes keeps the indexes for OpenSSL of lists that many leaves share, as pools does.
type indexes struct {
	mu   sync.Mutex
	made map[listKey]openssl.Index
}

// of returns the index of a list.
func (x *indexes) of(certs []*cert.Certificate) openssl.Index {
	id := listKeyOf(certs)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.made[id] == nil {
		if x.made == nil || len(x.made) >= maxPools {
			x.made = map[listKey]openssl.Index{} // indexes in use stay valid
		}
		x.made[id] = openssl.NewIndex(cert.X509s(certs))
	}
	return x.made[id]
}

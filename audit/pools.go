package audit

import (
	"crypto/x509"
	"slices"
	"sync"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/openssl"
	"github.com/artstore/artstore-pki/internal/certs"
)

// pools keeps the pool of a list that many leaves share: in one file with
// thousands of each, making it anew for every leaf is all that an audit would do.
type pools struct {
	mu    sync.Mutex
	made  map[[2]listKey]*x509.CertPool
	trust map[listKey]anchors
}

// maxPools bounds them: most files have a list of their own.
const maxPools = 256

// listKey tells lists apart without looking at what is in them.
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
	rest  []*cert.Certificate // names another issuer than itself
}

// of is the pool of one list, or of two.
func (p *pools) of(lists ...[]*cert.Certificate) *x509.CertPool {
	var id [2]listKey
	for i, l := range lists {
		id[i] = listKeyOf(l)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made[id] == nil {
		if p.made == nil || len(p.made) >= maxPools {
			p.made = map[[2]listKey]*x509.CertPool{} // those in use live on
		}
		p.made[id] = certs.Pool(cert.X509s(slices.Concat(lists...))...)
	}
	return p.made[id]
}

// anchors are the roots of a bundle, and what else is in it.
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

// indexes are kept for lists that many leaves share, as pools are.
type indexes struct {
	mu   sync.Mutex
	made map[listKey]openssl.Index
}

func (x *indexes) of(certs []*cert.Certificate) openssl.Index {
	id := listKeyOf(certs)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.made[id] == nil {
		if x.made == nil || len(x.made) >= maxPools {
			x.made = map[listKey]openssl.Index{} // those in use live on
		}
		x.made[id] = openssl.NewIndex(cert.X509s(certs))
	}
	return x.made[id]
}

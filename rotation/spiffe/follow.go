package spiffe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/artstore/artstore-pki/rotation"
)

// Feed delivers SVIDs and bundles. *workloadapi.X509Source is one; that package links gRPC,
// so the caller imports it and this package does not.
type Feed interface {
	x509svid.Source
	x509bundle.Source
	// Updated returns a channel with capacity 1 that gets a value after each change. It
	// is always the same channel, so a feed can have one follower only.
	Updated() <-chan struct{}
}

// Follow returns a [rotation.Source] that yields the SVID of feed and the bundle of its own
// trust domain, at the start and after each update. Bundles of federated trust domains are
// left out: an identity has one bundle, and a partner in it could issue IDs of our own
// domain. The caller closes feed.
//
// SVIDs often have no DNS name, but clients of package rotation verify one. Give the
// server a DNS name beside its SPIFFE ID, or connect to it through go-spiffe with
// [NewSource]. In a server, [rotation.AllowNames] takes SPIFFE IDs.
func Follow(feed Feed) rotation.Source { return follower{feed} }

type follower struct{ feed Feed }

// Watch implements [rotation.Source]. A refused candidate ends it only at the start, so
// that a wrong feed shows at once. Later the identity reports the refusal, and the next
// update may be good.
func (f follower) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	for first := true; ; first = false {
		m, err := f.material()
		if err != nil {
			return err // rotation calls Watch again after a pause
		}
		if err := yield(m); err != nil && first {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, open := <-f.feed.Updated():
			if !open {
				return errors.New("following SPIFFE feed: it ended")
			}
		}
	}
}

func (f follower) material() (rotation.Material, error) {
	svid, err := f.feed.GetX509SVID()
	if err != nil {
		return rotation.Material{}, fmt.Errorf("reading SVID: %w", err)
	}
	bundle, err := f.feed.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return rotation.Material{}, fmt.Errorf("reading trust bundle of %s: %w", svid.ID.TrustDomain(), err)
	}
	m := rotation.Material{
		Certificate: tls.Certificate{PrivateKey: svid.PrivateKey},
		Roots:       bundle.X509Authorities(), Version: svid.ID.String(),
	}
	for _, c := range svid.Certificates {
		m.Certificate.Certificate = append(m.Certificate.Certificate, c.Raw)
	}
	return m, nil
}

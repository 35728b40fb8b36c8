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

// Feed is where certificates come from: *workloadapi.X509Source is one. That
// package links gRPC, so it is the caller who imports it, or does not.
type Feed interface {
	x509svid.Source
	x509bundle.Source
	// Updated returns the one channel that is sent on after each change; it keeps
	// a signal that nobody waits for. So a feed has one follower.
	Updated() <-chan struct{}
}

// Follow returns a [rotation.Source] that yields the SVID of feed and the
// bundle of its own trust domain, at the start and after each update. Bundles
// of federated domains are left out: an identity trusts one list, and a partner
// on it could speak for our own domain. Closing feed is the caller's part.
//
// SVIDs often have no DNS names, and clients of rotation check one: give the
// server a DNS name beside its SPIFFE ID, or reach it through go-spiffe with
// [NewSource]. For servers, [rotation.AllowNames] takes SPIFFE IDs.
func Follow(feed Feed) rotation.Source { return follower{feed} }

type follower struct{ feed Feed }

// Watch implements [rotation.Source]. A refused candidate ends it only at the
// start, so that a wrong feed shows at once: later the identity has reported
// the refusal, and the next update may be good.
func (f follower) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	for first := true; ; first = false {
		m, err := f.material()
		if err != nil {
			return err // tried again, with a growing pause
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

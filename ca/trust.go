package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/internal/certs"
)

// Every change of trust has four steps: make keys and certificates, write them, write
// current.json (the commit), publish the new state. A crash before the commit leaves
// unused files. After a crash between commit and publication the next start has the new
// state; clients accept both the old and the new one.

// RotateIntermediate makes a new intermediate under the signing root and issues from it.
// The old one stays listed, and signs its revocation list, until its last leaf has
// expired. It needs the root key.
func (a *Authority) RotateIntermediate(ctx context.Context) error {
	err := a.update(ctx, func(next *state) error { return a.issueUnder(ctx, next, next.roots) })
	if err != nil {
		return fmt.Errorf("rotating the intermediate: %w", err)
	}
	a.logger.InfoContext(ctx, "intermediate rotated", "fingerprint", certs.Fingerprint(a.state.Load().intermediates[0]))
	return nil
}

// AddRoot makes a new root, adds it to the bundle and returns its fingerprint. Nothing is
// signed under it yet. Clients fetch the bundle with their next refresh: wait until
// [Authority.TrustAdopted] returns no service, then call [Authority.ActivateRoot].
func (a *Authority) AddRoot(ctx context.Context) (fingerprint string, err error) {
	err = a.update(ctx, func(next *state) error {
		root, err := cacert.New(cacert.SuccessorOf(next.roots[0], next.config.Name), cacert.Issuer{})
		if err != nil {
			return err
		}
		if err := errors.Join(a.files.WriteIssuer(root), crl.WriteRoot(a.files.Path, root)); err != nil {
			return err
		}
		next.roots = append(slices.Clone(next.roots), root.Cert)
		fingerprint = certs.Fingerprint(root.Cert)
		return a.files.WriteTrust(next.roots, next.intermediates)
	})
	if err != nil {
		return "", fmt.Errorf("adding a root: %w", err)
	}
	a.logger.InfoContext(ctx, "root added to the trust bundle", "fingerprint", fingerprint)
	return fingerprint, nil
}

// ActivateRoot makes a new intermediate under the given root of the bundle and issues from
// it. A client without that root then refuses the new certificates. ActivateRoot does not
// check that, [Authority.TrustAdopted] does. It needs the root key. Activating the signing
// root changes nothing.
func (a *Authority) ActivateRoot(ctx context.Context, fingerprint string) error {
	err := a.update(ctx, func(next *state) error {
		i, err := findRoot(next.roots, fingerprint)
		if err != nil || i == 0 {
			return err
		}
		roots := append([]*x509.Certificate{next.roots[i]}, slices.Delete(slices.Clone(next.roots), i, i+1)...)
		return a.issueUnder(ctx, next, roots)
	})
	if err != nil {
		return fmt.Errorf("activating root: %w", err)
	}
	a.logger.InfoContext(ctx, "root signs from now on", "fingerprint", fingerprint)
	return nil
}

// RemoveRoot takes a root and its intermediates out of the bundle. It refuses the signing
// root, and a root to which an unexpired certificate chains.
func (a *Authority) RemoveRoot(ctx context.Context, fingerprint string) error {
	err := a.update(ctx, func(next *state) error {
		i, err := findRoot(next.roots, fingerprint)
		if err != nil {
			return err
		}
		if i == 0 {
			return errors.New("it is the root that signs")
		}
		users, err := a.usersOf(ctx, next, next.roots[i])
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return fmt.Errorf("certificates of %s chain to it and have not expired", strings.Join(users, ", "))
		}
		gone := next.roots[i]
		next.intermediates = slices.DeleteFunc(slices.Clone(next.intermediates), func(c *x509.Certificate) bool { return c.CheckSignatureFrom(gone) == nil })
		next.roots = slices.Delete(slices.Clone(next.roots), i, i+1)
		return a.files.WriteTrust(next.roots, next.intermediates)
	})
	if err != nil {
		return fmt.Errorf("removing root: %w", err)
	}
	a.logger.InfoContext(ctx, "root removed from the trust bundle", "fingerprint", fingerprint)
	return nil
}

// TrustAdopted returns the services that have an unexpired, unrevoked
// certificate and have not reported the current trust bundle as in effect, sorted.
func (a *Authority) TrustAdopted(ctx context.Context) (pending []string, err error) {
	return a.record.WithoutTrust(ctx, a.state.Load().digest, time.Now())
}

// RootUsers returns the services that have an unexpired, unrevoked certificate that chains
// to a root of the bundle, sorted. While there is one, RemoveRoot refuses the root.
func (a *Authority) RootUsers(ctx context.Context, fingerprint string) ([]string, error) {
	st := a.state.Load()
	i, err := findRoot(st.roots, fingerprint)
	if err != nil {
		return nil, err
	}
	return a.usersOf(ctx, st, st.roots[i])
}

// usersOf is RootUsers against one state.
func (a *Authority) usersOf(ctx context.Context, st *state, root *x509.Certificate) ([]string, error) {
	var issuers []string
	for _, c := range st.intermediates {
		if c.CheckSignatureFrom(root) == nil {
			issuers = append(issuers, cacert.KeyID(c))
		}
	}
	return a.record.UsersOf(ctx, issuers, time.Now())
}

// issueUnder makes a new intermediate under roots[0], fills in next and commits it. The
// new intermediate has the kind of key and the lifetime of the old one.
func (a *Authority) issueUnder(ctx context.Context, next *state, roots []*x509.Certificate) error {
	rootKey, err := a.files.ReadKey(roots[0], next.config.RootKey)
	if err != nil {
		return err
	}
	old := next.intermediates[0]
	fresh, err := cacert.New(cacert.SuccessorOf(old, next.config.Name), cacert.Issuer{Cert: roots[0], Key: rootKey})
	if err != nil {
		return err
	}
	kept, err := a.unretired(ctx, next.intermediates)
	if err != nil {
		return err
	}
	if err := errors.Join(a.files.WriteIssuer(fresh), crl.WriteRoot(a.files.Path, cacert.Issuer{Cert: roots[0], Key: rootKey})); err != nil {
		return err
	}
	next.roots, next.signer = roots, fresh.Key
	next.intermediates = append([]*x509.Certificate{fresh.Cert}, kept...)
	return a.files.WriteTrust(next.roots, next.intermediates)
}

// unretired returns the intermediates with a leaf that has not expired. The others need no
// revocation list any more. Their files stay, because the record refers to them.
func (a *Authority) unretired(ctx context.Context, list []*x509.Certificate) ([]*x509.Certificate, error) {
	var kept []*x509.Certificate
	for _, c := range list {
		used, err := a.record.Unexpired(ctx, cacert.KeyID(c), time.Now())
		if err != nil {
			return nil, err
		}
		if used {
			kept = append(kept, c)
		}
	}
	return kept, nil
}

// findRoot returns the index of the root with this fingerprint, in any usual spelling.
func findRoot(roots []*x509.Certificate, fingerprint string) (int, error) {
	fp, err := certs.ParseFingerprint(fingerprint)
	if err != nil {
		return 0, err
	}
	for i, c := range roots {
		if certs.Fingerprint(c) == fp {
			return i, nil
		}
	}
	return 0, fmt.Errorf("root %s is not in the trust bundle", fp)
}

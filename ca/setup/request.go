package setup

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/durable"
)

var (
	// ErrWaiting reports a directory of [Request] that [Finish] has not made an authority yet.
	ErrWaiting = statedir.ErrWaiting
	// ErrNoRequest reports a certificate for a directory that has requested none.
	ErrNoRequest = statedir.ErrNoRequest
	// ErrNotBuilt reports the URI of a key in a store that this program was built without.
	ErrNotBuilt = keystore.ErrNotBuilt

	errFinished = errors.New("it is an authority already; the certificate of a later intermediate is not for init")
)

// Request makes the directory of an authority whose root somebody else holds: keys, an empty
// record, and a request for the certificate of the intermediate (RFC 2986, PEM), which is
// written to file too. There is no pki.yaml until [Finish]; everything that opens an
// authority says [ErrWaiting]. Options of the root and of what is imported are refused.
//
// In a directory that waits already, Request only writes the file again, so it can be run again
// after a kill. A file that exists is replaced by no other than the same request.
func Request(ctx context.Context, opt Options, file string) (*Result, error) {
	opt = opt.withDefaults()
	w := &newAuthority{}
	if !statedir.Waiting(opt.Dir) {
		if err := w.initialise(ctx, opt, w.makeRequest); err != nil {
			return nil, err
		}
	}
	text, _, err := statedir.Dir{Path: opt.Dir}.ReadRequest()
	if err != nil {
		return nil, err
	}
	if old, readErr := os.ReadFile(file); readErr != nil || string(old) != string(text) {
		if err := durable.WriteNew(file, text, durable.Public); err != nil {
			return nil, fmt.Errorf("writing the request, which is also in %s: %w", statedir.Dir{Path: opt.Dir}.RequestPath(), err)
		}
	}
	return w.result(opt.Dir), nil
}

// makeRequest makes the key of the intermediate and the request.
func (w *newAuthority) makeRequest(opt Options) (err error) {
	if opt.OfflineRoot != "" || !opt.RootPassword.IsZero() || opt.Existing != (Existing{}) || opt.Root.KMS != "" || len(opt.Root.Permit)+len(opt.Intermediate.Permit) > 0 {
		return errors.New("requesting an intermediate: whoever holds the root decides on root, key of the root and permitted names")
	}
	t, err := opt.Intermediate.template(opt.Name)
	if err != nil {
		return fmt.Errorf("requesting an intermediate: %w", err)
	}
	w.requestURI = t.KeyURI
	w.request, w.requestKey, err = cacert.Request(t)
	return err
}

// Finish makes a directory of [Request] an authority. chain is the certificate of the
// intermediate and then its root, which becomes the trust bundle. The certificate must be that
// of the request, be a CA that signs certificates and lists, be within the dates of the root,
// chain to it, and permit the authority's own names. No password is needed.
//
// pki.yaml comes last. After a kill, Finish is run again; it also removes what is left of a
// request that was answered.
func Finish(dir string, chain []*x509.Certificate) (*Result, error) {
	f := statedir.Dir{Path: dir}
	_, csr, err := f.ReadRequest()
	if err != nil {
		return nil, fmt.Errorf("finishing %s: %w", dir, err)
	}
	if len(chain) != 2 {
		return nil, fmt.Errorf("finishing %s: %d certificates, want that of the intermediate and then that of the root", dir, len(chain))
	}
	w := &newAuthority{intermediate: cacert.Issuer{Cert: chain[0]}, root: cacert.Issuer{Cert: chain[1]}}
	if err := cacert.Check(chain[0], chain[1], csr.PublicKey); err != nil {
		return nil, fmt.Errorf("finishing %s: %w", dir, err)
	}
	if !statedir.Waiting(dir) {
		return w.finishAgain(f, chain)
	}
	if err := w.rules(f.RequestedConfig()); err != nil {
		return nil, err
	}
	roots, intermediates := chain[1:], chain[:1]
	if err := f.WriteCert(chain[1]); err != nil {
		return nil, err
	}
	if err := f.AdoptRequest(chain[0]); err != nil {
		return nil, err
	}
	if err := errors.Join(f.WriteTrust(roots, intermediates), f.WriteCopies(roots, intermediates)); err != nil {
		return nil, err
	}
	if err := f.FinishRequest(); err != nil {
		return nil, err
	}
	return w.result(dir), nil
}

// finishAgain is Finish after one that was killed when pki.yaml was in its place. A
// request for a later intermediate is not touched.
func (w *newAuthority) finishAgain(f statedir.Dir, chain []*x509.Certificate) (*Result, error) {
	_, intermediates, err := f.ReadTrust()
	if err != nil {
		return nil, err
	}
	if !intermediates[0].Equal(chain[0]) {
		return nil, fmt.Errorf("finishing %s: %w", f.Path, errFinished)
	}
	if err := w.rules(f.File(statedir.ConfigFile)); err != nil {
		return nil, err
	}
	return w.result(f.Path), f.DropRequest()
}

// rules reads a pki.yaml and compares its names with the certificates.
func (w *newAuthority) rules(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	var cfg policy.Config
	if err := cfg.Decode(data); err != nil {
		return fmt.Errorf("reading configuration %s: %w", path, err)
	}
	rules, err := cfg.Parse()
	if err != nil {
		return err
	}
	w.shared = rules.SharedNames()
	return w.tryNames(rules)
}

package trustplan

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// nextIssuer makes an intermediate under the active root, or takes the one that the holder of
// that root has signed; the root has no key then.
func (b Before) nextIssuer(change stepapi.TrustChange) (fresh, root cacert.Issuer, err error) {
	root.Cert = b.Roots[0]
	if change.Signed != "" {
		var by *x509.Certificate
		if fresh, by, err = b.answer(change); err == nil && !by.Equal(root.Cert) {
			err = &StepError{fmt.Errorf("rotating the intermediate: %q is not the active root; add it first", by.Subject.CommonName)}
		}
		return fresh, root, err
	}
	if root.Key, err = b.Files.ReadKey(root.Cert, b.Config.RootKey); err != nil {
		return fresh, root, err
	}
	fresh, err = b.successor(b.Intermediates[0], root, keyPlace{b.Config, change.DryRun})
	return fresh, root, err
}

// newPair makes a root with an intermediate under it, or takes those that the holder of the
// root has made; the root has no key then.
func (b Before) newPair(change stepapi.TrustChange) (issuing, root cacert.Issuer, err error) {
	place := keyPlace{b.Config, change.DryRun}
	if change.Signed == "" {
		if root, err = b.successor(b.Roots[0], cacert.Issuer{}, place); err == nil {
			issuing, err = b.successor(b.Intermediates[0], root, place)
		}
		return issuing, root, err
	}
	issuing, root.Cert, err = b.answer(change)
	if err == nil && slices.ContainsFunc(b.Roots, root.Cert.Equal) {
		err = fmt.Errorf("adding root %s: it is in the trust bundle already", short(certs.Fingerprint(root.Cert)))
	}
	return issuing, root, err
}

// answer reads what the holder of a root has signed. Its faults are the caller's, so they are a
// [StepError].
func (b Before) answer(change stepapi.TrustChange) (issuing cacert.Issuer, root *x509.Certificate, err error) {
	if issuing, root, err = b.Files.Answer([]byte(change.Signed), b.Roots); err != nil {
		return issuing, nil, &StepError{err}
	}
	outside, err := cacert.Outside([]*x509.Certificate{issuing.Cert, root}, b.OwnNames)
	if err == nil && len(outside) > 0 {
		err = &StepError{fmt.Errorf("the signed certificate does not permit the authority's own names %s", strings.Join(outside, ", "))}
	}
	return issuing, root, err
}

// keyPlace decides where a new key is made.
type keyPlace struct {
	config policy.Config
	dryRun bool // a key store keeps what it has made, so nothing is made there
}

// successor makes a root (parent zero) or an intermediate like old, with a new key. The key is in
// the key store that pki.yaml names, and otherwise goes to the state directory: a root that is
// in a token is not followed by one that is in a file.
func (b Before) successor(old *x509.Certificate, parent cacert.Issuer, place keyPlace) (cacert.Issuer, error) {
	want, store := cacert.SuccessorOf(old, place.config.Name), place.config.IntermediateKey
	var err error
	if parent.Cert == nil {
		if store, err = place.config.RootStore(); err != nil {
			return cacert.Issuer{}, err
		}
	}
	if store != "" && !place.dryRun {
		if want.Key, want.KeyURI, err = b.Files.NewKey(want.KeyType, store); err != nil {
			return cacert.Issuer{}, err
		}
	}
	return cacert.New(want, parent)
}

// Write writes the certificates and keys of the step to the directory, and returns their rows for
// the record, sealed by the key of the log, and those of the roots whose lists are signed. A list
// is in its row only: [Plan.StoreLists] writes it.
func (p *Plan) Write(files statedir.Dir, logKey *translog.Key) ([]truststore.Row, error) {
	rows, err := p.writeIssuers(files, logKey)
	if err == nil {
		err = p.signLists(files, rows)
	}
	return rows, err
}

// StoreLists writes the lists of the step to the directory. It is for a step that is in the
// record: one that was refused must not revoke.
func (p *Plan) StoreLists(files statedir.Dir) error {
	for i, root := range p.lists {
		if err := crl.StoreRoot(files.Path, root.Cert, p.signed[i]); err != nil {
			return err
		}
	}
	return nil
}

// Answers reports whether the step has used the answer to a request for an intermediate.
func (p *Plan) Answers() bool { return p.change.Signed != "" && len(p.fresh) > 0 }

// signLists signs the lists of p.lists, in their order, and puts each into the row of its root.
func (p *Plan) signLists(files statedir.Dir, rows []truststore.Row) (err error) {
	p.signed = nil
	for _, root := range p.lists {
		list := p.given
		if list == nil {
			if list, err = crl.SignRoot(files.Path, root, p.revokedUnder(root.Cert)); err != nil {
				return err
			}
		}
		p.signed = append(p.signed, list)
		i := slices.IndexFunc(rows, func(r truststore.Row) bool { return r.Fingerprint == certs.Fingerprint(root.Cert) })
		rows[i].CRL = list.DER() // writeIssuers has made a row for each root of p.lists
	}
	return nil
}

// revokedUnder returns the intermediates that the list of a root has to name. Those that are
// not in use any more are on the list before.
func (p *Plan) revokedUnder(root *x509.Certificate) (out []crl.Revoked) {
	for _, fp := range slices.Sorted(maps.Keys(p.Doc.Revoked)) {
		if c := p.Find[fp]; c != nil && c.CheckSignatureFrom(root) == nil {
			out = append(out, crl.Revoked{Serial: c.SerialNumber, At: p.Doc.Revoked[fp], Reason: reasonCACompromise})
		}
	}
	return out
}

// reasonCACompromise is the reason of the entry of an intermediate (RFC 5280 §5.3.1).
const reasonCACompromise = 2

func (p *Plan) writeIssuers(files statedir.Dir, logKey *translog.Key) (rows []truststore.Row, err error) {
	for _, i := range p.fresh {
		write := files.WriteIssuer
		if i.Key == nil { // a root of somebody else
			write = func(i cacert.Issuer) error { return files.WriteCert(i.Cert) }
		}
		if err := write(i); err != nil {
			return nil, err
		}
	}
	changed := slices.Clone(p.fresh)
	for _, root := range p.lists {
		if !slices.ContainsFunc(changed, func(i cacert.Issuer) bool { return i.Cert.Equal(root.Cert) }) {
			changed = append(changed, root)
		}
	}
	for _, i := range changed { // the key of a root is never in the record: steps that need it are taken where it is
		row, err := files.Row(i.Cert, logKey, !cacert.IsRoot(i.Cert))
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

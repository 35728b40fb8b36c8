package trustplan

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Before is the trust that a step begins with, and what the next one is made from.
type Before struct {
	Doc                  *trust.Document
	Roots, Intermediates []*x509.Certificate // of Doc, in its order
	Config               policy.Config
	OwnNames             []string // of the authority: each new CA certificate has to permit them
	Files                statedir.Dir
	// Unexpired reports whether an intermediate, by subject key id, has an unexpired leaf.
	Unexpired func(ctx context.Context, issuer string, now time.Time) (bool, error)
}

// Plan makes the next document and the certificates of it. Nothing is written, but for keys that
// a key store makes. What makes no sense now is a [StepError].
func (b Before) Plan(ctx context.Context, change stepapi.TrustChange) (*Plan, error) {
	p := &Plan{change: change, Find: ByFingerprint(b.Roots, b.Intermediates)}
	named, err := fingerprintIn(change.Certificate)
	if err != nil {
		return nil, &StepError{err}
	}
	if change.Version != 0 && change.Version != b.Doc.Version {
		return nil, &StepError{fmt.Errorf("step %s was chosen by version %d of the trust, which has version %d now", change.Step, change.Version, b.Doc.Version)}
	}
	if err := needsName(change.Step, named, b.Doc); err != nil {
		return nil, &StepError{err}
	}
	switch d, now := b.Doc, time.Now().UTC(); change.Step {
	case stepapi.StepAdd:
		err = b.planAdd(p, now)
	case stepapi.StepTry:
		err = b.planTry(p, named)
	case stepapi.StepActivate:
		root := orStaged(d, named)
		p.Text, p.cutOff = "activating root "+short(root), func(f trust.Fleet) []stepapi.Holder { return f.Without(root) }
		p.Doc, err = d.Activate(root, p.rootOf, now)
	case stepapi.StepRollback:
		err = p.planRollback(d, now)
	case stepapi.StepRemove:
		p.Text, p.cutOff = "removing root "+short(named), func(f trust.Fleet) []stepapi.Holder { return f.Users(p.under(d, named)) }
		p.Doc, err = d.Remove(named, p.rootOf)
	case stepapi.StepRotateIntermediate:
		if err := b.planIntermediate(ctx, p); err != nil {
			return nil, err
		}
	case stepapi.StepRevokeIntermediate:
		err = b.planRevocation(p, named, now)
	default:
		err = fmt.Errorf("step %.40q: want add, try, activate, rollback, remove, rotate-intermediate or revoke-intermediate", change.Step)
	}
	if err == nil {
		err = p.check(b.Doc, time.Now())
	}
	if err != nil {
		return nil, &StepError{err}
	}
	return p, nil
}

// needsName refuses a step that has to say which certificate it is about, and does not.
func needsName(step, named string, d *trust.Document) error {
	switch step {
	case stepapi.StepTry, stepapi.StepActivate:
		if named == "" && d.Staged == nil {
			return fmt.Errorf("step %s: no root is staged, and no fingerprint names one", step)
		}
	case stepapi.StepRemove, stepapi.StepRevokeIntermediate:
		if named == "" {
			return fmt.Errorf("step %s: the fingerprint of the certificate is missing", step)
		}
	}
	return nil
}

// planAdd makes a root like the active one and an intermediate like the issuing one under it.
// The intermediate is made at once, so that no later step needs the key of the root.
func (b Before) planAdd(p *Plan, now time.Time) error {
	if b.Doc.Staged != nil { // before keys are made
		_, err := b.Doc.Add("", "", now)
		return err
	}
	issuing, root, err := b.newPair(p.change)
	if err != nil {
		return err
	}
	p.use(root)
	p.use(issuing)
	if root.Key != nil {
		p.lists = []cacert.Issuer{root}
	}
	p.Text = "adding root " + short(certs.Fingerprint(root.Cert))
	p.Doc, err = b.Doc.Add(certs.Fingerprint(root.Cert), certs.Fingerprint(issuing.Cert), now)
	return err
}

// planTry refuses services without a profile, which would never get a certificate. Peers that
// do not have the root would refuse those that try it.
func (b Before) planTry(p *Plan, named string) (err error) {
	root := orStaged(b.Doc, named)
	for _, service := range p.change.Services {
		if _, known := b.Config.Profiles[service]; !known {
			return fmt.Errorf("trying root %s: service %.80q has no profile", short(root), service)
		}
	}
	p.Text = fmt.Sprintf("trying root %s with %s", short(root), strings.Join(p.change.Services, ", "))
	if len(p.change.Services) > 0 {
		p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Without(root) }
	}
	p.Doc, err = b.Doc.Try(root, p.change.Services)
	return err
}

// planRollback undoes the last step. Whoever uses a certificate under the root that leaves, or
// does not have the root that is active again, would be cut off.
func (p *Plan) planRollback(d *trust.Document, now time.Time) (err error) {
	var gone string
	if p.Doc, gone, err = d.Rollback(p.rootOf, now); err != nil {
		return err
	}
	switch active := p.Doc.Roots[0]; {
	case gone != "":
		p.Text = "rolling back root " + short(gone) + " out of the bundle"
		p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Users(p.under(d, gone)) }
	case active != d.Roots[0]:
		p.Text = "rolling back to root " + short(active)
		p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Without(active) }
	default:
		p.Text = "rolling back the trial of root " + short(d.Staged.Root)
	}
	return nil
}

// planIntermediate makes an intermediate under the active root. The old one stays listed, and
// signs its revocation list, until its last leaf has expired.
func (b Before) planIntermediate(ctx context.Context, p *Plan) error {
	fresh, root, err := b.nextIssuer(p.change)
	if err != nil {
		return err
	}
	used, err := b.unretired(ctx, b.Intermediates)
	if err != nil {
		return err
	}
	p.use(fresh)
	if root.Key != nil {
		p.lists = []cacert.Issuer{root}
	}
	p.Text = "rotating the intermediate to " + short(certs.Fingerprint(fresh.Cert))
	p.Doc = b.Doc.Issue(certs.Fingerprint(fresh.Cert), p.rootOf, func(fp string) bool { return slices.Contains(used, p.Find[fp]) })
	for _, fp := range b.Doc.Intermediates {
		if !slices.Contains(p.Doc.Intermediates, fp) {
			p.Retires = append(p.Retires, cacert.KeyID(p.Find[fp])) // a leaf may be committed until the step is
		}
	}
	return nil
}

// unretired returns the intermediates with a leaf that has not expired. The others need no
// revocation list any more. Their files stay, because the record refers to them.
func (b Before) unretired(ctx context.Context, list []*x509.Certificate) ([]*x509.Certificate, error) {
	var kept []*x509.Certificate
	for _, c := range list {
		used, err := b.Unexpired(ctx, cacert.KeyID(c), time.Now())
		if err != nil {
			return nil, err
		}
		if used {
			kept = append(kept, c)
		}
	}
	return kept, nil
}

// planRevocation signs a list of the root that names an intermediate.
func (b Before) planRevocation(p *Plan, named string, now time.Time) (err error) {
	p.Text = "revoking intermediate " + short(named)
	if p.Find[named] == nil { // one that is not in use any more
		_, others, err := b.Files.Authorities()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(others, func(c *x509.Certificate) bool { return certs.Fingerprint(c) == named })
		if i < 0 || p.rootIssued(others[i]) == "" {
			return fmt.Errorf("revoking intermediate %s: no root of the bundle has signed it, or it is not known here", short(named))
		}
		p.Find[named] = others[i]
	}
	if p.Doc, err = b.Doc.Revoke(named, now); err != nil {
		return err
	}
	root := cacert.Issuer{Cert: p.Find[p.rootOf(named)]}
	if p.change.Signed != "" {
		p.given, err = crl.ReadSigned(b.Files.Path, []byte(p.change.Signed), root.Cert, p.Find[named])
	} else {
		root.Key, err = b.Files.ReadKey(root.Cert, b.Config.RootKey)
	}
	if err != nil {
		return err
	}
	p.lists = []cacert.Issuer{root}
	p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Users([]*x509.Certificate{p.Find[named]}) }
	return nil
}

// fingerprintIn reads a fingerprint in any usual spelling; "" is none.
func fingerprintIn(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	return certs.ParseFingerprint(text)
}

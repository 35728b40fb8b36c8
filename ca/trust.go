package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// A change of trust is a step from one version of the trust to the next (package trust). It
// has four parts: make keys and certificates and write them; decide and commit the next
// version in the record, in one transaction; write current.json; publish the new state. A
// crash before the commit leaves files that nothing refers to. After the commit each process
// and each start follows the record (followTrust), this one included.
// docs/design/0031-stages-of-a-root.md

// Names for users of this module of what goes over the wire.
type (
	// TrustChange is one step.
	TrustChange = stepapi.TrustChange
	// TrustStatus says in which stages roots are, and who is not ready.
	TrustStatus = stepapi.TrustStatus
	// Holder is a service that holds a certificate.
	Holder = stepapi.Holder
)

// CutOffError refuses a step that would cut off services. Nothing was changed.
type CutOffError struct {
	// Step is the step in words, such as "activating root 0123456789abcdef".
	Step string
	// Holders would be cut off. TrustChange.Accept can name each of them.
	Holders []Holder
}

func (e *CutOffError) Error() string {
	return e.Step + " would cut off " + stepapi.ServicesOf(e.Holders)
}

// StepError refuses a step that makes no sense now, whatever the services have adopted.
// Nothing was changed.
type StepError struct{ Err error }

func (e *StepError) Error() string { return e.Err.Error() }

func (e *StepError) Unwrap() error { return e.Err }

// errDryRun ends a change after the decision.
var errDryRun = errors.New("nothing was changed")

// ChangeTrust takes one step in the name of a caller, and returns the trust after it; after a
// dry run it is the trust that the step would lead to. The change is in the record when
// ChangeTrust returns, and each replica follows within a second or so. Errors: [CutOffError], [StepError], and
// those of keys and record.
//
// A new intermediate, or a list of a root, takes the key of that root. Activating, rolling
// back and removing need no key.
func (a *Authority) ChangeTrust(ctx context.Context, by string, change TrustChange) (TrustStatus, error) {
	if change.Step == stepapi.StepRequest {
		return a.requestIntermediate(ctx)
	}
	var planned *plan
	for attempt := 0; ; attempt++ {
		err := a.update(ctx, func(next *state) (err error) {
			if err := a.catchUp(ctx, next); err != nil {
				return err
			}
			if planned, err = a.planStep(ctx, next, change); err != nil {
				return err
			}
			return a.take(ctx, next, planned, by)
		})
		switch {
		case (errors.Is(err, truststore.ErrChanged) || errors.Is(err, truststore.ErrInUse)) && attempt < 3: // another process was faster: decide again from what it has done
			continue
		case errors.Is(err, errDryRun):
			return a.statusOf(ctx, planned.doc, planned.find)
		case err != nil:
			return stepapi.TrustStatus{}, fmt.Errorf("changing the trust: %w", err)
		}
		a.logger.WarnContext(ctx, "trust changed", "step", planned.text, "version", planned.doc.Version, "caller", by)
		return a.TrustStatus(ctx)
	}
}

// plan is a step that was found possible, before it is decided and taken.
type plan struct {
	change stepapi.TrustChange
	doc    *trust.Document
	text   string // the step in words, for errors, log and record
	// cutOff returns who would be cut off; nil if nobody can be.
	cutOff func(trust.Fleet) []stepapi.Holder
	// fresh are CA certificates that were made for the step. Their keys are in memory only.
	fresh []cacert.Issuer
	// lists are roots whose list is signed anew, with the document's revocations.
	lists []cacert.Issuer
	// given is the list of a root in lists without a key: its holder has signed it.
	given *crl.List
	find  map[string]*x509.Certificate // all certificates of the document before the step, and fresh
	// retires are intermediates, by subject key id, that were found to have no unexpired leaf.
	retires []string
}

// planStep makes the next document and the certificates of it. Nothing is written.
func (a *Authority) planStep(ctx context.Context, st *state, change stepapi.TrustChange) (*plan, error) {
	p := &plan{change: change, find: st.byFingerprint()}
	named, err := fingerprintIn(change.Certificate)
	if err != nil {
		return nil, &StepError{err}
	}
	if change.Version != 0 && change.Version != st.trust.Version {
		return nil, &StepError{fmt.Errorf("step %s was chosen by version %d of the trust, which has version %d now", change.Step, change.Version, st.trust.Version)}
	}
	if err := needsName(change.Step, named, st.trust); err != nil {
		return nil, &StepError{err}
	}
	switch d, now := st.trust, time.Now().UTC(); change.Step {
	case stepapi.StepAdd:
		err = a.planAdd(st, p, now)
	case stepapi.StepTry:
		err = p.planTry(st, named)
	case stepapi.StepActivate:
		root := orStaged(d, named)
		p.text, p.cutOff = "activating root "+short(root), func(f trust.Fleet) []stepapi.Holder { return f.Without(root) }
		p.doc, err = d.Activate(root, p.rootOf, now)
	case stepapi.StepRollback:
		err = p.planRollback(d, now)
	case stepapi.StepRemove:
		p.text, p.cutOff = "removing root "+short(named), func(f trust.Fleet) []stepapi.Holder { return f.Users(p.under(d, named)) }
		p.doc, err = d.Remove(named, p.rootOf)
	case stepapi.StepRotateIntermediate:
		if err := a.planIntermediate(ctx, st, p); err != nil {
			return nil, err
		}
	case stepapi.StepRevokeIntermediate:
		err = a.planRevocation(st, p, named, now)
	default:
		err = fmt.Errorf("step %.40q: want add, try, activate, rollback, remove, rotate-intermediate or revoke-intermediate", change.Step)
	}
	if err == nil {
		err = p.check(st.trust, time.Now())
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

// check refuses a document that nobody could read, and a step after which a certificate that
// has ended would sign.
func (p *plan) check(before *trust.Document, now time.Time) error {
	signs := []string{p.doc.Intermediates[0]}
	if s := p.doc.Staged; s != nil && len(s.Services) > 0 {
		signs = append(signs, s.Intermediate)
	}
	for _, fp := range signs {
		if fp == before.Intermediates[0] { // no step may be refused because of what was before it
			continue
		}
		for _, c := range []*x509.Certificate{p.find[fp], p.find[p.rootOf(fp)]} {
			if c != nil && !now.Before(c.NotAfter) {
				return fmt.Errorf("%s: %q, which would sign, ended at %s", p.text, c.Subject.CommonName, validity.Stamp(c.NotAfter))
			}
		}
	}
	if err := p.doc.Check(); err != nil {
		return fmt.Errorf("%s: %w", p.text, err)
	}
	return nil
}

// planAdd makes a root like the active one and an intermediate like the issuing one under it.
// The intermediate is made at once, so that no later step needs the key of the root.
func (a *Authority) planAdd(st *state, p *plan, now time.Time) error {
	if st.trust.Staged != nil { // before keys are made
		_, err := st.trust.Add("", "", now)
		return err
	}
	issuing, root, err := a.newPair(st, p.change)
	if err != nil {
		return err
	}
	p.use(root)
	p.use(issuing)
	if root.Key != nil {
		p.lists = []cacert.Issuer{root}
	}
	p.text = "adding root " + short(certs.Fingerprint(root.Cert))
	p.doc, err = st.trust.Add(certs.Fingerprint(root.Cert), certs.Fingerprint(issuing.Cert), now)
	return err
}

// planTry refuses services without a profile, which would never get a certificate. Peers that
// do not have the root would refuse those that try it.
func (p *plan) planTry(st *state, named string) (err error) {
	root := orStaged(st.trust, named)
	for _, service := range p.change.Services {
		if _, known := st.config.Profiles[service]; !known {
			return fmt.Errorf("trying root %s: service %.80q has no profile", short(root), service)
		}
	}
	p.text = fmt.Sprintf("trying root %s with %s", short(root), strings.Join(p.change.Services, ", "))
	if len(p.change.Services) > 0 {
		p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Without(root) }
	}
	p.doc, err = st.trust.Try(root, p.change.Services)
	return err
}

// planRollback undoes the last step. Whoever uses a certificate under the root that leaves, or
// does not have the root that is active again, would be cut off.
func (p *plan) planRollback(d *trust.Document, now time.Time) (err error) {
	var gone string
	if p.doc, gone, err = d.Rollback(p.rootOf, now); err != nil {
		return err
	}
	switch active := p.doc.Roots[0]; {
	case gone != "":
		p.text = "rolling back root " + short(gone) + " out of the bundle"
		p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Users(p.under(d, gone)) }
	case active != d.Roots[0]:
		p.text = "rolling back to root " + short(active)
		p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Without(active) }
	default:
		p.text = "rolling back the trial of root " + short(d.Staged.Root)
	}
	return nil
}

// planIntermediate makes an intermediate under the active root. The old one stays listed, and
// signs its revocation list, until its last leaf has expired.
func (a *Authority) planIntermediate(ctx context.Context, st *state, p *plan) error {
	fresh, root, err := a.nextIssuer(st, p.change)
	if err != nil {
		return err
	}
	used, err := a.unretired(ctx, st.intermediates)
	if err != nil {
		return err
	}
	p.use(fresh)
	if root.Key != nil {
		p.lists = []cacert.Issuer{root}
	}
	p.text = "rotating the intermediate to " + short(certs.Fingerprint(fresh.Cert))
	p.doc = st.trust.Issue(certs.Fingerprint(fresh.Cert), p.rootOf, func(fp string) bool { return slices.Contains(used, p.find[fp]) })
	for _, fp := range st.trust.Intermediates {
		if !slices.Contains(p.doc.Intermediates, fp) {
			p.retires = append(p.retires, cacert.KeyID(p.find[fp])) // a leaf may be committed until the step is
		}
	}
	return nil
}

// nextIssuer makes an intermediate under the active root, or takes the one that the holder of
// that root has signed; the root has no key then.
func (a *Authority) nextIssuer(st *state, change stepapi.TrustChange) (fresh, root cacert.Issuer, err error) {
	root.Cert = st.roots[0]
	if change.Signed != "" {
		var by *x509.Certificate
		if fresh, by, err = a.answer(st, change); err == nil && !by.Equal(root.Cert) {
			err = &StepError{fmt.Errorf("rotating the intermediate: %q is not the active root; add it first", by.Subject.CommonName)}
		}
		return fresh, root, err
	}
	if root.Key, err = a.files.ReadKey(root.Cert, st.config.RootKey); err != nil {
		return fresh, root, err
	}
	fresh, err = a.successor(st.intermediates[0], root, keyPlace{st.config, change.DryRun})
	return fresh, root, err
}

// newPair makes a root with an intermediate under it, or takes those that the holder of the
// root has made; the root has no key then.
func (a *Authority) newPair(st *state, change stepapi.TrustChange) (issuing, root cacert.Issuer, err error) {
	place := keyPlace{st.config, change.DryRun}
	if change.Signed == "" {
		if root, err = a.successor(st.roots[0], cacert.Issuer{}, place); err == nil {
			issuing, err = a.successor(st.intermediates[0], root, place)
		}
		return issuing, root, err
	}
	issuing, root.Cert, err = a.answer(st, change)
	if err == nil && slices.ContainsFunc(st.roots, root.Cert.Equal) {
		err = fmt.Errorf("adding root %s: it is in the trust bundle already", short(certs.Fingerprint(root.Cert)))
	}
	return issuing, root, err
}

// answer reads what the holder of a root has signed. Its faults are the caller's, so they are a
// [StepError].
func (a *Authority) answer(st *state, change stepapi.TrustChange) (issuing cacert.Issuer, root *x509.Certificate, err error) {
	if issuing, root, err = a.files.Answer([]byte(change.Signed), st.roots); err != nil {
		return issuing, nil, &StepError{err}
	}
	outside, err := cacert.Outside([]*x509.Certificate{issuing.Cert, root}, st.rules.Own.Names)
	if err == nil && len(outside) > 0 {
		err = &StepError{fmt.Errorf("the signed certificate does not permit the authority's own names %s", strings.Join(outside, ", "))}
	}
	return issuing, root, err
}

// requestIntermediate makes a request for the holder of a root, or returns the one that is open.
// It changes nothing else: the answer comes with a step, and needs this state directory, which has
// the key.
func (a *Authority) requestIntermediate(ctx context.Context) (out stepapi.TrustStatus, err error) {
	if out, err = a.TrustStatus(ctx); err != nil {
		return out, err
	}
	err = a.update(ctx, func(next *state) error {
		text, err := a.files.OpenRequest(cacert.SuccessorOf(next.intermediates[0], next.config.Name), next.config.IntermediateKey)
		if out.Request = string(text); err == nil {
			err = errDryRun // the state stays as it is
		}
		return err
	})
	if !errors.Is(err, errDryRun) {
		return out, fmt.Errorf("requesting an intermediate: %w", err)
	}
	return out, nil
}

// keyPlace decides where a new key is made.
type keyPlace struct {
	config policy.Config
	dryRun bool // a key store keeps what it has made, so nothing is made there
}

// successor makes a root (parent zero) or an intermediate like old, with a new key. The key is in
// the key store that pki.yaml names, and otherwise goes to the state directory: a root that is
// in a token is not followed by one that is in a file.
func (a *Authority) successor(old *x509.Certificate, parent cacert.Issuer, place keyPlace) (cacert.Issuer, error) {
	want, store := cacert.SuccessorOf(old, place.config.Name), place.config.IntermediateKey
	var err error
	if parent.Cert == nil {
		if store, err = place.config.RootStore(); err != nil {
			return cacert.Issuer{}, err
		}
	}
	if store != "" && !place.dryRun {
		if want.Key, want.KeyURI, err = a.files.NewKey(want.KeyType, store); err != nil {
			return cacert.Issuer{}, err
		}
	}
	return cacert.New(want, parent)
}

// planRevocation signs a list of the root that names an intermediate.
func (a *Authority) planRevocation(st *state, p *plan, named string, now time.Time) (err error) {
	p.text = "revoking intermediate " + short(named)
	if p.find[named] == nil { // one that is not in use any more
		_, others, err := a.files.Authorities()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(others, func(c *x509.Certificate) bool { return certs.Fingerprint(c) == named })
		if i < 0 || p.rootIssued(others[i]) == "" {
			return fmt.Errorf("revoking intermediate %s: no root of the bundle has signed it, or it is not known here", short(named))
		}
		p.find[named] = others[i]
	}
	if p.doc, err = st.trust.Revoke(named, now); err != nil {
		return err
	}
	root := cacert.Issuer{Cert: p.find[p.rootOf(named)]}
	if p.change.Signed != "" {
		p.given, err = crl.ReadSigned(a.files.Path, []byte(p.change.Signed), root.Cert, p.find[named])
	} else {
		root.Key, err = a.files.ReadKey(root.Cert, st.config.RootKey)
	}
	if err != nil {
		return err
	}
	p.lists = []cacert.Issuer{root}
	p.cutOff = func(f trust.Fleet) []stepapi.Holder { return f.Users([]*x509.Certificate{p.find[named]}) }
	return nil
}

// use adds a certificate that was made for the step.
func (p *plan) use(i cacert.Issuer) {
	p.fresh = append(p.fresh, i)
	p.find[certs.Fingerprint(i.Cert)] = i.Cert
}

// rootOf is a [trust.Lineage].
func (p *plan) rootOf(intermediate string) string {
	c := p.find[intermediate]
	if c == nil {
		return ""
	}
	return p.rootIssued(c)
}

// rootIssued returns the root that has signed an intermediate, "" if none that is known has.
func (p *plan) rootIssued(c *x509.Certificate) string {
	for fp, root := range p.find {
		if !root.Equal(c) && cacert.IsRoot(root) && c.CheckSignatureFrom(root) == nil {
			return fp
		}
	}
	return ""
}

// under returns the intermediates of a document that a root has signed.
func (p *plan) under(d *trust.Document, root string) (out []*x509.Certificate) {
	for _, fp := range d.Intermediates {
		if p.rootOf(fp) == root {
			out = append(out, p.find[fp])
		}
	}
	return out
}

// take writes what the step has made, decides and commits it, and loads it into next.
func (a *Authority) take(ctx context.Context, next *state, p *plan, by string) error {
	versions, err := a.documents(ctx)
	if err != nil {
		return err
	}
	decide := func(held []truststore.Holding) error {
		if p.cutOff == nil {
			return nil
		}
		fleet := trust.NewFleet(held, versions)
		left, err := fleet.NotAccepted(p.cutOff(fleet), p.change.Accept)
		switch {
		case err != nil:
			return &StepError{fmt.Errorf("%s: %w", p.text, err)}
		case len(left) > 0:
			return &CutOffError{p.text, left}
		}
		return nil
	}
	if p.change.DryRun {
		held, err := a.trustRecord.Holdings(ctx, time.Now())
		if err != nil {
			return err
		}
		if err := decide(held); err != nil {
			return err
		}
		return errDryRun
	}
	rows, err := a.writeIssuers(p)
	if err != nil {
		return err
	}
	lists, err := a.signLists(p, rows)
	if err != nil {
		return err
	}
	if err := a.commitTrust(ctx, p.doc, truststore.NextVersion{Rows: rows, Decide: decide, Retires: p.retires, Event: p.event(by)}); err != nil {
		return err
	}
	if err := a.settle(ctx, next, p, lists); err != nil {
		return fmt.Errorf("the step is taken, as version %d of the record; this directory follows when its fault is mended: %w", p.doc.Version, err)
	}
	return nil
}

// settle brings the directory and next to a step that is in the record. It may fail: then each
// second, and each start, tries again by the record (followTrust).
func (a *Authority) settle(ctx context.Context, next *state, p *plan, lists []*crl.List) error {
	// A list is written after the commit: a step that the record has refused must not revoke.
	// After a crash in between the list comes from the record (statedir.Dir.Fetch).
	for i, root := range p.lists {
		if err := crl.StoreRoot(a.files.Path, root.Cert, lists[i]); err != nil {
			return err
		}
	}
	if err := a.files.WriteDocument(p.doc); err != nil {
		return err
	}
	if p.change.Signed != "" && len(p.fresh) > 0 { // the step is taken; what is left of the request, the next one replaces
		if err := a.files.DropRequest(); err != nil {
			a.logger.WarnContext(ctx, "answered request not removed", "path", a.files.RequestPath(), "err", err)
		}
	}
	return a.load(next, p.doc)
}

func (p *plan) event(by string) record.Event {
	detail := p.text
	if len(p.change.Accept) > 0 {
		detail += "; accepted to cut off " + strings.Join(p.change.Accept, ", ")
	}
	return record.Event{Caller: by, Detail: clip(detail)}
}

// signLists signs the lists of p.lists, in their order, and puts each into the row of its root.
func (a *Authority) signLists(p *plan, rows []truststore.Row) (lists []*crl.List, err error) {
	for _, root := range p.lists {
		list := p.given
		if list == nil {
			if list, err = crl.SignRoot(a.files.Path, root, p.revokedUnder(root.Cert)); err != nil {
				return nil, err
			}
		}
		lists = append(lists, list)
		i := slices.IndexFunc(rows, func(r truststore.Row) bool { return r.Fingerprint == certs.Fingerprint(root.Cert) })
		rows[i].CRL = list.DER() // writeIssuers has made a row for each root of p.lists
	}
	return lists, nil
}

// revokedUnder returns the intermediates that the list of a root has to name. Those that are
// not in use any more are on the list before.
func (p *plan) revokedUnder(root *x509.Certificate) (out []crl.Revoked) {
	for _, fp := range slices.Sorted(maps.Keys(p.doc.Revoked)) {
		if c := p.find[fp]; c != nil && c.CheckSignatureFrom(root) == nil {
			out = append(out, crl.Revoked{Serial: c.SerialNumber, At: p.doc.Revoked[fp], Reason: reasonCACompromise})
		}
	}
	return out
}

// reasonCACompromise is the reason of the entry of an intermediate (RFC 5280 §5.3.1).
const reasonCACompromise = 2

// writeIssuers writes new certificates and keys to the directory, and returns their rows for
// the record, and those of the roots whose lists are signed.
func (a *Authority) writeIssuers(p *plan) (rows []truststore.Row, err error) {
	for _, i := range p.fresh {
		write := a.files.WriteIssuer
		if i.Key == nil { // a root of somebody else
			write = func(i cacert.Issuer) error { return a.files.WriteCert(i.Cert) }
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
		row, err := a.files.Row(i.Cert, a.logKey, !cacert.IsRoot(i.Cert))
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// commitTrust signs a document and stores it as the next version.
func (a *Authority) commitTrust(ctx context.Context, d *trust.Document, change truststore.NextVersion) error {
	signed, err := trust.Sign(a.logKey, d)
	if err != nil {
		return err
	}
	change.Version, change.Event.At = truststore.Version{Number: d.Version, Document: signed}, time.Now()
	return a.trustRecord.Change(ctx, change)
}

// load fills in the state with a document whose files are in the directory.
func (a *Authority) load(next *state, d *trust.Document) (err error) {
	next.trust = d
	if next.roots, next.intermediates, err = a.files.Certificates(d); err != nil {
		return err
	}
	if next.signer, err = a.files.ReadKey(next.intermediates[0], ""); err != nil {
		return err
	}
	next.tried = nil
	if d.Staged != nil {
		c := next.intermediates[slices.Index(d.Intermediates, d.Staged.Intermediate)]
		key, err := a.files.ReadKey(c, "")
		if err != nil {
			return err
		}
		next.tried = &cacert.Issuer{Cert: c, Key: key}
	}
	return nil
}

// issuerFor returns who signs for a service: the issuing intermediate, or that of the staged
// root for a service that tries it.
func (st *state) issuerFor(service string) cacert.Issuer {
	if st.trust.Tries(service) {
		return *st.tried
	}
	return cacert.Issuer{Cert: st.intermediates[0], Key: st.signer}
}

// byFingerprint returns the certificates of the state by their fingerprints.
func (st *state) byFingerprint() map[string]*x509.Certificate {
	out := make(map[string]*x509.Certificate, len(st.roots)+len(st.intermediates))
	for _, c := range slices.Concat(st.roots, st.intermediates) {
		out[certs.Fingerprint(c)] = c
	}
	return out
}

// enterTrust puts the trust of the directory into a record that has none: one from before
// there were versions, or one that was lost and begun anew. Otherwise the directory follows
// the record. It is called once, by Open.
func (a *Authority) enterTrust(ctx context.Context, st *state) error {
	newest, err := a.trustRecord.Newest(ctx)
	if err != nil {
		return err
	}
	if newest.Number > 0 && newest.Number >= st.trust.Version {
		return a.catchUp(ctx, st)
	}
	d := *st.trust
	d.Version = max(d.Version, 1)
	var rows []truststore.Row
	for _, c := range slices.Concat(st.roots, st.intermediates) {
		row, err := a.files.Row(c, a.logKey, !cacert.IsRoot(c))
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	// A record that has an older version is overruled by the directory. Whoever reads the log has
	// to see that, as any other change.
	event := record.Event{Caller: "the authority", Detail: fmt.Sprintf("the record had version %d, and the directory a newer one, %d, which is in effect", newest.Number, d.Version)}
	err = a.commitTrust(ctx, &d, truststore.NextVersion{Rows: rows, Enters: newest.Number == 0, Event: event})
	switch {
	case errors.Is(err, truststore.ErrChanged): // another replica was faster
		return a.catchUp(ctx, st)
	case err != nil:
		return err
	}
	st.trust = &d
	return a.files.WriteDocument(&d)
}

// followTrust makes the newest version of the record current in this process, if it is not.
// KeepLog calls it each second, and issuing whenever it finds that its version is over.
//
// A document with the number of this process's own is compared as well: if the database was put
// back and changed from there, it has another one of that number, which the others follow.
func (a *Authority) followTrust(ctx context.Context) error {
	newest, err := a.trustRecord.Newest(ctx)
	now := a.state.Load().trust
	if err != nil || newest.Number < now.Version {
		return err
	}
	if newest.Number == now.Version {
		if d, err := trust.Open(a.logKey.Verifier(), newest.Document); err == nil && d.Equal(now) {
			if a.uncopied.Load() {
				a.copyDocument(ctx, d)
			}
			return nil
		}
	}
	var version int64
	err = a.update(ctx, func(next *state) error {
		err := a.catchUp(ctx, next)
		version = next.trust.Version
		return err
	})
	if err != nil {
		return fmt.Errorf("following the trust of the record: %w", err)
	}
	a.logger.InfoContext(ctx, "trust changed by another process", "version", version)
	return nil
}

// catchUp brings the directory and next to the newest version of the record. The document is
// verified with the key of the log, so a database that others can write to cannot bring a root
// of theirs.
func (a *Authority) catchUp(ctx context.Context, next *state) error {
	v, err := a.trustRecord.Newest(ctx)
	if err != nil || v.Number == 0 || v.Number < next.trust.Version {
		return err
	}
	d, err := trust.Open(a.logKey.Verifier(), v.Document)
	if err != nil {
		return err
	}
	if d.Version != v.Number {
		return fmt.Errorf("version %d of the trust is that of another number, %d", v.Number, d.Version)
	}
	if d.Version == next.trust.Version && d.Equal(next.trust) {
		return nil
	}
	if err := a.files.Fetch(ctx, d, a.trustRecord, a.logKey); err != nil {
		return err
	}
	a.copyDocument(ctx, d)
	return a.load(next, d)
}

// copyDocument writes a document of the record to current.json. A directory that is full or
// read-only must not keep the authority at a version that is over, under which it may not issue: the
// record has the document, and the next start reads it there. followTrust tries again each second.
func (a *Authority) copyDocument(ctx context.Context, d *trust.Document) {
	err := a.files.WriteDocument(d)
	failed := a.uncopied.Swap(err != nil)
	switch {
	case err != nil && !failed:
		a.logger.ErrorContext(ctx, "the state directory does not follow the trust of the record, which is in effect", "version", d.Version, "path", a.files.Path, "err", err)
	case err == nil && failed:
		a.logger.InfoContext(ctx, "the state directory follows the trust of the record again", "version", d.Version)
	}
}

// documents returns the versions that a service may have in effect, the newest first. One that the
// key of the log has not signed is passed over: whoever has a bundle that only this one names
// counts as one that has reported none, and a row of somebody else does not stop all steps.
func (a *Authority) documents(ctx context.Context) ([]*trust.Document, error) {
	versions, err := a.trustRecord.Versions(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]*trust.Document, 0, len(versions))
	for _, v := range versions {
		d, err := trust.Open(a.logKey.Verifier(), v.Document)
		if err != nil {
			a.logger.WarnContext(ctx, "a version of the trust is passed over", "version", v.Number, "err", err)
			continue
		}
		out = append(out, d)
	}
	return out, nil
}

// TrustStatus returns the roots with their stages, and for each one who does not trust it yet
// and who still uses it. It is of the newest version of the record, if that can be followed.
func (a *Authority) TrustStatus(ctx context.Context) (TrustStatus, error) {
	if err := a.followTrust(ctx); err != nil {
		a.logger.WarnContext(ctx, "the status of the trust is that of this process", "err", err)
	}
	st := a.state.Load()
	return a.statusOf(ctx, st.trust, st.byFingerprint())
}

// statusOf is TrustStatus of one document. find has its certificates.
func (a *Authority) statusOf(ctx context.Context, d *trust.Document, find map[string]*x509.Certificate) (out stepapi.TrustStatus, err error) {
	held, err := a.trustRecord.Holdings(ctx, time.Now())
	if err != nil {
		return out, err
	}
	versions, err := a.documents(ctx)
	if err != nil {
		return out, err
	}
	fleet, p := trust.NewFleet(held, versions), &plan{find: find}
	out = stepapi.TrustStatus{Version: d.Version, Digest: d.Digest(), Holders: fleet.Size(), Unreported: fleet.Unreported()}
	for _, fp := range d.Roots {
		row := stepapi.RootStatus{
			Fingerprint: fp, Subject: find[fp].Subject.CommonName, Stage: d.Stage(fp), Since: d.Since[fp], NotAfter: find[fp].NotAfter,
			Without: fleet.Without(fp), Users: fleet.Users(p.under(d, fp)),
		}
		if row.Stage == stepapi.StageStaged {
			row.Services = d.Staged.Services
		}
		row.Trusting = fleet.Size() - len(row.Without)
		out.Roots = append(out.Roots, row)
	}
	for i, fp := range d.Intermediates {
		c := find[fp]
		out.Intermediates = append(out.Intermediates, stepapi.IntermediateState{
			Fingerprint: fp, Subject: c.Subject.CommonName, Root: p.rootOf(fp), Issues: i == 0, NotAfter: c.NotAfter,
			Revoked: d.Revoked[fp], Users: len(fleet.Users([]*x509.Certificate{c})),
		})
	}
	return out, nil
}

// unretired returns the intermediates with a leaf that has not expired. The others need no
// revocation list any more. Their files stay, because the record refers to them.
func (a *Authority) unretired(ctx context.Context, list []*x509.Certificate) ([]*x509.Certificate, error) {
	var kept []*x509.Certificate
	for _, c := range list {
		used, err := a.trustRecord.Unexpired(ctx, cacert.KeyID(c), time.Now())
		if err != nil {
			return nil, err
		}
		if used {
			kept = append(kept, c)
		}
	}
	return kept, nil
}

// fingerprintIn reads a fingerprint in any usual spelling; "" is none.
func fingerprintIn(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	return certs.ParseFingerprint(text)
}

// orStaged returns the named root, or the staged one if none is named.
func orStaged(d *trust.Document, named string) string {
	if named == "" && d.Staged != nil {
		return d.Staged.Root
	}
	return named
}

// short is a fingerprint as it is printed in sentences.
func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 16)] }

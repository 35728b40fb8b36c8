package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/trustplan"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
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

// Errors of [Authority.ChangeTrust] that callers match. Nothing was changed.
type (
	// CutOffError refuses a step that would cut off services.
	CutOffError = trustplan.CutOffError
	// StepError refuses a step that makes no sense now.
	StepError = trustplan.StepError
)

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
	var planned *trustplan.Plan
	for attempt := 0; ; attempt++ {
		err := a.update(ctx, func(next *state) (err error) {
			if err := a.catchUp(ctx, next); err != nil {
				return err
			}
			if planned, err = a.before(next).Plan(ctx, change); err != nil {
				return err
			}
			return a.take(ctx, taking{next, planned, by, change.DryRun})
		})
		switch {
		case (errors.Is(err, truststore.ErrChanged) || errors.Is(err, truststore.ErrInUse)) && attempt < 3: // another process was faster: decide again from what it has done
			continue
		case errors.Is(err, errDryRun):
			return a.statusOf(ctx, planned.Doc, planned.Find)
		case err != nil:
			return stepapi.TrustStatus{}, fmt.Errorf("changing the trust: %w", err)
		}
		a.logger.WarnContext(ctx, "trust changed", "step", planned.Text, "version", planned.Doc.Version, "caller", by)
		return a.TrustStatus(ctx)
	}
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

// before is what a step begins with.
func (a *Authority) before(st *state) trustplan.Before {
	return trustplan.Before{
		Doc: st.trust, Roots: st.roots, Intermediates: st.intermediates, Config: st.config, OwnNames: st.rules.Own.Names,
		Files: a.files, Unexpired: a.trustRecord.Unexpired,
	}
}

// taking is a step that is taken.
type taking struct {
	next   *state
	plan   *trustplan.Plan
	by     string // the caller
	dryRun bool
}

// take writes what the step has made, decides and commits it, and loads it into next.
func (a *Authority) take(ctx context.Context, s taking) error {
	versions, err := a.documents(ctx)
	if err != nil {
		return err
	}
	decide := func(held []truststore.Holding) error { return s.plan.Decide(trust.NewFleet(held, versions)) }
	if s.dryRun {
		held, err := a.trustRecord.Holdings(ctx, time.Now())
		if err != nil {
			return err
		}
		if err := decide(held); err != nil {
			return err
		}
		return errDryRun
	}
	rows, err := s.plan.Write(a.files, a.logKey)
	if err != nil {
		return err
	}
	event := record.Event{Caller: s.by, Detail: clip(s.plan.Detail())}
	if err := a.commitTrust(ctx, s.plan.Doc, truststore.NextVersion{Rows: rows, Decide: decide, Retires: s.plan.Retires, Event: event}); err != nil {
		return err
	}
	if err := a.settle(ctx, s.next, s.plan); err != nil {
		return fmt.Errorf("the step is taken, as version %d of the record; this directory follows when its fault is mended: %w", s.plan.Doc.Version, err)
	}
	return nil
}

// settle brings the directory and next to a step that is in the record. It may fail: then each
// second, and each start, tries again by the record (followTrust).
func (a *Authority) settle(ctx context.Context, next *state, p *trustplan.Plan) error {
	// After a crash before this the lists come from the record (statedir.Dir.Fetch).
	if err := p.StoreLists(a.files); err != nil {
		return err
	}
	if err := a.files.WriteDocument(p.Doc); err != nil {
		return err
	}
	if p.Answers() { // the step is taken; what is left of the request, the next one replaces
		if err := a.files.DropRequest(); err != nil {
			a.logger.WarnContext(ctx, "answered request not removed", "path", a.files.RequestPath(), "err", err)
		}
	}
	return a.load(next, p.Doc)
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
	return a.statusOf(ctx, st.trust, trustplan.ByFingerprint(st.roots, st.intermediates))
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
	return trustplan.Status(d, find, trust.NewFleet(held, versions)), nil
}

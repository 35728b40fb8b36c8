// Package devcerts keeps certificates for a developer's ArtStore in a directory:
// an authority, and for each profile of its pki.yaml a directory with tls.crt,
// tls.key and ca.crt. A run looks at all of it, decides what must be replaced,
// and replaces that and nothing else.
//
// Invariants:
//
//   - Files that this package did not make stay as they are (TestDevCertsHeals).
//   - An interrupted run leaves a directory that the next run completes
//     (TestDevCertsInterrupted).
//   - A decision is a pure function of what was looked at before (TestDecide).
//   - Only rotation/enroll reads and writes the directory of a service.
package devcerts

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// Keep makes the certificates that are missing and replaces those that cannot stay. It prints one
// line for each certificate. An error about one certificate does not prevent the others from being
// made; all errors are returned together at the end.
func Keep(ctx context.Context, u *ui.UI, opt Options) error {
	d := &directory{Options: opt, u: u, report: newReport(u, opt.Format)}
	made, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	p, err := d.makePlan(made)
	if err != nil {
		return err
	}
	d.report.begin(p)
	idle := !p.work()
	if d.DryRun || idle {
		err = d.reportPlan(p)
	} else {
		err = d.apply(ctx, p)
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr // the errors of single certificates only repeat it
	}
	if endErr := d.report.end(p); endErr != nil {
		return errors.Join(err, endErr)
	}
	switch {
	case d.DryRun:
		d.u.Infof("dry run: nothing was changed")
	case idle && err == nil:
		d.u.Infof("nothing to do")
	}
	for _, left := range p.abandoned {
		d.u.Infof("%s stays, but %s has no profile for it any more", left, filepath.Join(d.authorityDir(), "pki.yaml"))
	}
	if err == nil {
		d.advise(p)
	}
	return hintForeign(err)
}

// reportPlan reports a plan that is not carried out.
func (d *directory) reportPlan(p *plan) (err error) {
	for _, item := range p.items {
		err = errors.Join(err, d.reportItem(item))
	}
	return errors.Join(err, p.trustErr)
}

// reportItem reports an item about which nothing more will be done.
func (d *directory) reportItem(item *certificate) error {
	if item.action == toKeep && !d.DryRun {
		item.action = wasKept
	}
	d.report.line(item)
	return item.err
}

// apply does what the plan says. One certificate that fails does not keep
// the others from being made: each is complete in itself.
func (d *directory) apply(ctx context.Context, p *plan) (err error) {
	err = p.trustErr
	if p.linkTrust {
		err = errors.Join(err, linkTrust(d.Dir))
	}
	var issuer *issuer
	defer func() {
		if issuer != nil {
			err = errors.Join(err, issuer.Close())
		}
	}()
	for _, item := range p.items {
		if item.action.due() && item.err == nil {
			if issuer == nil {
				var openErr error
				if issuer, openErr = d.openIssuer(ctx); openErr != nil {
					return errors.Join(err, openErr)
				}
			}
			issuer.obtain(ctx, item)
			if ctx.Err() != nil {
				return err
			}
		}
		err = errors.Join(err, d.reportItem(item))
	}
	return err
}

// advise gives a command to try the certificates with: against "dev admin", or
// whatever else listens there.
func (d *directory) advise(p *plan) {
	for _, item := range p.items {
		if item.fixture != "" || item.until.IsZero() {
			continue
		}
		file := func(name string) string { return shellWord(filepath.Join(item.dir, name)) }
		d.u.Infof("next: curl --cacert %s --cert %s --key %s https://localhost:8000/health/live",
			shellWord(filepath.Join(d.Dir, trustName)), file("tls.crt"), file("tls.key"))
		return
	}
}

// shellWord quotes a path where a shell would take it for more or less than one word.
func shellWord(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@:,", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// hintForeign adds what to do about a file that is in the way.
func hintForeign(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return ui.WithHint(err, "move it out of the way and run again; what this command did not make it does not touch")
	}
	return err
}

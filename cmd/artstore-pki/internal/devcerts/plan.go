package devcerts

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// plan is everything that a run would do.
type plan struct {
	items     []*certificate
	linkTrust bool     // DIR/ca.crt is missing
	trustErr  error    // DIR/ca.crt is not the link of this command
	abandoned []string // directories of certificates whose profile is not in pki.yaml any more
}

// work reports whether carrying out the plan would change anything.
func (p *plan) work() bool {
	return p.linkTrust || slices.ContainsFunc(p.items, func(i *certificate) bool { return i.action.due() && i.err == nil })
}

// makePlan looks at everything and decides, without changing anything. made says that the directory
// has its authority; a dry run in an empty directory has none. A pki.yaml from which no
// certificates can be made is an error, with the advice what to edit.
func (d *directory) makePlan(made bool) (*plan, error) {
	facts := authorityFacts{config: policy.Config{Profiles: Profiles()}}
	if made {
		var err error
		if facts, err = readAuthority(d.authorityDir()); err != nil {
			return nil, ui.WithHint(err, "put %s right, or begin anew in another directory", d.authorityDir())
		}
		if has := facts.config.Lifetime.Default; d.LifeSet && has != d.Life {
			return nil, ui.WithHint(fmt.Errorf("--%s %s: certificates in %s live %s", flags.Lifetime, humantime.Format(d.Life), d.Dir, humantime.Format(has)),
				"set lifetime.default (and max) in %s and run again without --%s", filepath.Join(d.authorityDir(), "pki.yaml"), flags.Lifetime)
		}
	}
	p := &plan{}
	for _, service := range slices.Sorted(maps.Keys(facts.config.Profiles)) {
		if service == fixturesName || service == trustName {
			return nil, ui.WithHint(fmt.Errorf("reading the profiles: %q cannot be a service here: %s is something else",
				service, filepath.Join(d.Dir, service)), "give the profile another name")
		}
		profile := facts.config.Profiles[service]
		if len(profile.Names) == 0 {
			return nil, ui.WithHint(fmt.Errorf("reading the profiles: profiles.%s lists no names, so there is no telling what its certificate would be for", service),
				"list them in %s: patterns and wildcards say only what may be asked for", filepath.Join(d.authorityDir(), "pki.yaml"))
		}
		p.items = append(p.items, &certificate{service: service, dir: filepath.Join(d.Dir, service), profile: profile})
	}
	if err := d.addFixtures(p, facts.config.Profiles); err != nil {
		return nil, err
	}
	for _, item := range p.items {
		d.judge(item, facts)
	}
	p.linkTrust, p.trustErr = lookAtTrust(d.Dir)
	p.abandoned = append(p.abandoned, d.abandoned(facts.config.Profiles)...)
	return p, nil
}

// addFixtures adds the fixtures that were asked for now, and those that are there from an earlier
// run. A fixture that is not kept would change its state by itself, and a test that relies on it
// would pass for another reason than it says.
func (d *directory) addFixtures(p *plan, profiles map[string]policy.Profile) error {
	profile, ok := profiles[localName]
	for _, kind := range []string{Expired, NotYetValid} {
		dir := filepath.Join(d.Dir, fixturesName, kind)
		_, err := os.Stat(dir)
		switch {
		case ok && (err == nil || slices.Contains(d.Fixtures, kind)):
			p.items = append(p.items, &certificate{service: localName, fixture: kind, dir: dir, profile: profile})
		case slices.Contains(d.Fixtures, kind):
			return ui.WithHint(fmt.Errorf("--%s: there is no profile %s, whose names it would have", kind, localName),
				"put it back into %s", filepath.Join(d.authorityDir(), "pki.yaml"))
		case err == nil:
			p.abandoned = append(p.abandoned, dir)
		}
	}
	return nil
}

// judge looks at the directory of a certificate and sets its action, reasons and end.
func (d *directory) judge(item *certificate, facts authorityFacts) {
	in := enroll.Inspect(item.dir)
	if in.Foreign != nil { // found now, so that a dry run says it and no token is made
		item.action, item.err = failed, fmt.Errorf("making the certificate of %s: %w", item.service, in.Foreign)
		return
	}
	against := decisionInput{now: time.Now(), facts: facts}
	if usable(in) {
		item.until = in.Chain[0].NotAfter
		var err error
		if against.differs, err = facts.config.Deviations(item.service, in.Chain); err != nil {
			item.action, item.err = failed, err
			return
		}
	}
	item.action, item.reasons = decide(item, in, against)
	if d.Renew && item.action == toKeep {
		item.action, item.reasons = toReplace, []string{"--renew"}
	}
}

// abandoned returns the directories of certificates that this command has made and whose profile is
// not in pki.yaml any more. They stay: a service may still use them.
func (d *directory) abandoned(profiles map[string]policy.Profile) (dirs []string) {
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		return nil // a dry run without a directory
	}
	for _, e := range entries {
		if _, wanted := profiles[e.Name()]; wanted {
			continue
		}
		dir := filepath.Join(d.Dir, e.Name())
		if in := enroll.Inspect(dir); in.Foreign == nil && !empty(in) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

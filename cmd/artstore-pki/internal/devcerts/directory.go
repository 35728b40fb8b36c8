package devcerts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/secret"
)

// The kinds of what is kept in DIR/fixtures: the names of directories, and of flags.
const (
	Expired     = "expired"
	NotYetValid = "not-yet-valid"
)

// Options say what to keep, and where. Dir, Life and Format are needed.
type Options struct {
	Dir      string
	Password secret.String // of the keys of the authority; the zero value: one that stands in DIR/ca
	Life     time.Duration // of the certificates of a new authority
	LifeSet  bool          // Life was asked for: an authority with another one is an error
	Renew    bool          // replace what is good, too
	DryRun   bool          // change nothing
	Fixtures []string      // which fixtures were asked for; those that are there are kept in any case
	Format   string        // output.Table or output.JSON
}

// directory is the directory in one run.
type directory struct {
	Options
	u      *ui.UI
	report *report
}

// Names in the directory.
const (
	authorityName    = "ca"
	trustName        = "ca.crt"
	trustTarget      = "ca/certs/root_ca.crt" // the authority keeps it current
	fixturesName     = "fixtures"
	localName        = "localhost"  // the profile of fixtures, and the one for everything that is not ArtStore
	unfinishedPrefix = ".ca-making" // prefix: an authority that Init has not completed
)

// Profiles returns the profiles of a new authority: it gives each service of ArtStore a key of its own and both of its
// names: code says admin-module, the containers are called artstore_admin_module.
func Profiles() map[string]policy.Profile {
	local := []string{localName, "127.0.0.1", "::1"}
	profiles := map[string]policy.Profile{localName: {Names: local}}
	for _, service := range []string{
		"admin-module", "storage-element", "storage-element-01", "storage-element-02", "storage-element-03",
		"ingester-module", "query-module",
	} {
		container := "artstore_" + strings.ReplaceAll(service, "-", "_")
		profiles[service] = policy.Profile{Names: append([]string{service, container}, local...)}
	}
	return profiles
}

// authorityDir is the state directory of the authority.
func (d *directory) authorityDir() string { return filepath.Join(d.Dir, authorityName) }

// prepare sees to it that the directory is ours and has an authority. It is ours
// if it holds one, or nothing at all, or what an interrupted run of this left.
//
// Crash story: the authority is made under another name and moved into place
// whole, so it is there or it is not. Before that, the directory holds nothing
// but names of ours; after it, every directory of a service is enroll's, which
// is complete or gets replaced.
func (d *directory) prepare(ctx context.Context) (made bool, err error) {
	entries, err := os.ReadDir(d.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading the directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(d.authorityDir(), "pki.yaml")); err == nil {
		return true, d.sweep(entries)
	}
	if i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return !unfinished(e) }); i >= 0 {
		return false, fmt.Errorf("making certificates: %s holds %s, and no authority of this command in %s: %w",
			d.Dir, entries[i].Name(), authorityName, durable.ErrNotEmpty)
	}
	if d.DryRun {
		d.u.Infof("an authority would be made in %s", d.authorityDir())
		return false, nil
	}
	if err := d.makeAuthority(ctx); err != nil {
		return false, fmt.Errorf("making the authority in %s: %w", d.authorityDir(), err)
	}
	return true, d.sweep(entries)
}

// unfinished reports whether a run that was killed has left e.
func unfinished(e fs.DirEntry) bool {
	return e.IsDir() && strings.HasPrefix(e.Name(), unfinishedPrefix)
}

// sweep removes what interrupted runs left, now that there is an authority: one
// that another run is just completing can no longer take the place.
func (d *directory) sweep(entries []fs.DirEntry) error {
	for _, e := range entries {
		if !unfinished(e) || d.DryRun {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.Dir, e.Name())); err != nil {
			return fmt.Errorf("removing what an interrupted run left: %w", err)
		}
	}
	return nil
}

// makeAuthority makes the authority under another name, and moves it into place when
// it is complete: see prepare.
func (d *directory) makeAuthority(ctx context.Context) error {
	if err := durable.MkdirAll(d.Dir); err != nil {
		return err
	}
	if err := os.Chmod(d.Dir, durable.Dir); err != nil { // it may have been there, empty
		return err
	}
	tmp, err := os.MkdirTemp(d.Dir, unfinishedPrefix)
	if err != nil {
		return err
	}
	result, err := setup.Init(ctx, setup.Options{
		Dir: tmp, Name: "ArtStore development", LeafLifetime: d.Life, Password: d.Password, Profiles: Profiles(),
	})
	if err == nil {
		err = os.Rename(tmp, d.authorityDir())
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := durable.SyncDir(d.Dir); err != nil {
		return err
	}
	d.u.Infof("authority made in %s, root fingerprint (SHA-256): %s", d.authorityDir(), result.RootFingerprint)
	if result.PasswordFile != "" {
		d.u.Infof("for development only: the password of its keys was generated and stands beside them")
	}
	return nil
}

// linkTrust makes the trust bundle of the whole directory a link to the one that the
// authority keeps, so that a new root is in it without another run.
func linkTrust(dir string) error {
	if err := os.Symlink(trustTarget, filepath.Join(dir, trustName)); err != nil {
		return fmt.Errorf("making the trust bundle: %w", err)
	}
	return durable.SyncDir(dir)
}

// lookAtTrust tells whether DIR/ca.crt is our link, is missing, or is not ours.
func lookAtTrust(dir string) (missing bool, err error) {
	path := filepath.Join(dir, trustName)
	target, err := os.Readlink(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil || target != trustTarget:
		return false, fmt.Errorf("making the trust bundle: %s is not ours to replace: %w", path, fs.ErrExist)
	}
	return false, nil
}

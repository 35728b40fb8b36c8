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

// The kinds of fixtures: names of directories in DIR/fixtures, and of the flags that ask for them.
const (
	Expired     = "expired"
	NotYetValid = "not-yet-valid"
)

// Options say what to keep, and where. Dir, Life and Format are needed.
type Options struct {
	// Dir is made if it is absent.
	Dir string
	// Password decrypts the keys of the authority. The zero value means the one in DIR/ca.
	Password secret.String
	// Life is the lifetime of certificates of a new authority. LifeSet says that it was asked
	// for: an existing authority with another lifetime is then an error.
	Life    time.Duration
	LifeSet bool
	// Renew replaces certificates that could stay as well.
	Renew bool
	// DryRun changes nothing.
	DryRun bool
	// Fixtures are the kinds that were asked for. Those that are there are kept in any case.
	Fixtures []string
	// Format is output.Table or output.JSON.
	Format string
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
	localName        = "localhost"  // the profile of fixtures, and of programs that are not ArtStore's
	unfinishedPrefix = ".ca-making" // begins the name of an authority that is not complete
)

// Profiles returns the profiles of a new authority: one for each service of ArtStore, with both of
// its names (admin-module in the code, artstore_admin_module as a container), and localhost. Each
// profile is a certificate and a key of its own.
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

// prepare makes sure that the directory has an authority, and refuses a directory that this
// command has not made: one that has neither an authority nor is empty, but for what an
// interrupted run has left. made is false in a dry run that would make the authority.
//
// Crash story: the authority is made under another name and moved into its place by a rename, so
// it is there as a whole or not at all. A crash before the rename leaves a directory with
// unfinishedPrefix, which the next run removes. After the rename, enroll makes the directory of
// each service, which is complete or is replaced by the next run.
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

// unfinished reports whether e is an authority that an interrupted run has not completed.
func unfinished(e fs.DirEntry) bool {
	return e.IsDir() && strings.HasPrefix(e.Name(), unfinishedPrefix)
}

// sweep removes the unfinished authorities of interrupted runs. It is called when the directory has
// its authority: another run that is just making one can no longer move it into the place.
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

// makeAuthority makes the authority under another name, and moves it into its place when it is
// complete. The crash story is at prepare.
func (d *directory) makeAuthority(ctx context.Context) error {
	if err := durable.MkdirAll(d.Dir); err != nil {
		return err
	}
	if err := os.Chmod(d.Dir, durable.Dir); err != nil { // an empty directory may have any mode
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

// lookAtTrust reports whether DIR/ca.crt is missing. Anything there but the link that linkTrust makes
// is an error, because this command does not replace it.
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

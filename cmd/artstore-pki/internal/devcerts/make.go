package devcerts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.step.sm/crypto/x509util"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// issueTimeout bounds the making of one certificate by an authority in this process.
const issueTimeout = time.Minute

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
	result, err := ca.Init(ctx, ca.InitOptions{
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

func linkTrust(dir string) error {
	if err := os.Symlink(trustTarget, filepath.Join(dir, trustName)); err != nil {
		return fmt.Errorf("making the trust bundle: %w", err)
	}
	return durable.SyncDir(dir)
}

// issuer is the authority of the directory, answering at a loopback port for
// as long as there is something to issue: services enrol as they would anywhere.
type issuer struct {
	dir       string
	password  secret.String
	authority *ca.Authority
	server    *serving.Authority
	url       string
	logger    *slog.Logger
	stop      context.CancelFunc
	running   *errgroup.Group
}

func (d *directory) openIssuer(ctx context.Context) (_ *issuer, err error) {
	// Errors alone: that services share localhost with the authority is what they are for here.
	i := &issuer{dir: d.authorityDir(), password: d.Password, logger: d.u.Logger(slog.LevelError)}
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // Close ends it, in order
	i.stop = stop
	i.running, run = errgroup.WithContext(run)
	defer func() {
		if err != nil {
			err = fmt.Errorf("starting the authority in %s: %w", i.dir, err)
			hinted := hints.Loss(err, i.dir)
			if hinted == nil {
				hinted = ui.WithHint(err, "if its keys have a password of their own, --%s names the file", flags.PasswordFile)
			}
			err = errors.Join(hinted, i.Close())
		}
	}()
	if i.authority, err = ca.Open(ctx, ca.Options{Dir: i.dir, Password: i.password, Logger: i.logger}); err != nil {
		return nil, err
	}
	if i.server, err = serving.StartAuthority(ctx, i.authority, i.logger, nil); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", serving.Loopback)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	i.url = serving.URL(ln)
	i.running.Go(func() error { return i.server.Serve(run, ln) })
	return i, nil
}

// Close ends the server, then what it stands on.
func (i *issuer) Close() error {
	i.stop()
	err := i.running.Wait()
	if i.server != nil {
		err = errors.Join(err, i.server.Identity.Close())
	}
	if i.authority != nil {
		err = errors.Join(err, i.authority.Close())
	}
	return err
}

// obtain carries out one item of a plan and writes into it what came of that.
func (i *issuer) obtain(ctx context.Context, item *certificate) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	get := i.enrol
	if item.fixture != "" {
		get = i.fixture
	}
	m, err := get(ctx, item)
	if err != nil {
		item.action, item.err = failed, fmt.Errorf("making the certificate in %s: %w", item.dir, err)
		return
	}
	item.until = m.Certificate.Leaf.NotAfter
	if item.action == toMake {
		item.action = wasMade
	} else {
		item.action = replaced
	}
}

func (i *issuer) enrol(ctx context.Context, item *certificate) (rotation.Material, error) {
	return enroll.Issue(ctx, enroll.Config{
		URL: i.url, Roots: i.authority.Roots(), Dir: item.dir, KeyType: keyTypeFor(item.profile), Logger: i.logger,
		Token: func(ctx context.Context) (secret.String, error) {
			return ca.NewToken(ctx, ca.TokenOptions{Dir: i.dir, Password: i.password, Service: item.service})
		},
	})
}

// keyTypeFor is the default where the profile allows it, else what it lists first.
func keyTypeFor(p policy.Profile) enroll.KeyType {
	if len(p.KeyTypes) == 0 || slices.Contains(p.KeyTypes, "EC-P256") {
		return "EC-P256"
	}
	return enroll.KeyType(p.KeyTypes[0])
}

// fixture gets a certificate whose time is over or has not come, past the API,
// which never issues one.
func (i *issuer) fixture(ctx context.Context, item *certificate) (m rotation.Material, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return m, fmt.Errorf("making a key: %w", err)
	}
	csr, err := x509util.CreateCertificateRequest(item.service, item.profile.Names, key)
	if err != nil {
		return m, fmt.Errorf("making a request: %w", err)
	}
	chain, err := i.authority.IssueFixture(ctx, item.service, csr, i.fixtureDate(item))
	if err != nil {
		return m, err
	}
	m = rotation.Material{Roots: i.authority.Roots()}
	m.Certificate.PrivateKey, m.Certificate.Leaf = key, chain[0]
	for _, c := range chain {
		m.Certificate.Certificate = append(m.Certificate.Certificate, c.Raw)
	}
	return m, enroll.WriteFiles(item.dir, m)
}

// fixtureDate: an expired one ended a minute ago, because its issuer, which it
// must not precede, may be as young as this run.
func (i *issuer) fixtureDate(item *certificate) time.Time {
	if item.fixture == NotYetValid {
		return time.Now().Add(humantime.Year)
	}
	life := i.authority.Config().Lifetime.Default
	if own := item.profile.Lifetime.Default; own != 0 {
		life = own
	}
	return time.Now().Add(-life - time.Minute)
}

package devcerts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"go.step.sm/crypto/x509util"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/caserver"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// issueTimeout bounds how long the authority in this process may take for one certificate.
const issueTimeout = time.Minute

// issuer is the authority of the directory, served at a port of loopback while certificates are
// made. Certificates are obtained over its API, as every service does it.
type issuer struct {
	dir       string
	password  secret.String
	authority *ca.Authority
	server    *caserver.Authority
	url       string
	logger    *slog.Logger
	stop      context.CancelFunc
	running   *errgroup.Group
}

// openIssuer opens the authority and serves it at a free port of loopback. The keys
// are decrypted here, which takes a second: a run that makes nothing does not call it.
func (d *directory) openIssuer(ctx context.Context) (_ *issuer, err error) {
	// Errors only. The warning that services share the name localhost with the authority is of no
	// use here, because certificates for localhost are what the developer has asked for.
	i := &issuer{dir: d.authorityDir(), password: d.Password, logger: d.u.Logger(slog.LevelError)}
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // Close ends it, in order
	i.stop = stop
	i.running, run = errgroup.WithContext(run)
	defer func() {
		if err != nil {
			err = fmt.Errorf("starting the authority in %s: %w", i.dir, err)
			hinted := statehints.Loss(err, i.dir)
			if hinted == nil {
				hinted = ui.WithHint(err, "if its keys have a password of their own, --%s names the file", flags.PasswordFile)
			}
			err = errors.Join(hinted, i.Close())
		}
	}()
	if i.authority, err = ca.Open(ctx, ca.Options{Dir: i.dir, Password: i.password, Logger: i.logger}); err != nil {
		return nil, err
	}
	if i.server, err = caserver.StartAuthority(ctx, i.authority, i.logger, nil); err != nil {
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

// Close ends the server, and then the identity and the authority that it uses.
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

// obtain makes one certificate of a plan, and sets its action to the outcome.
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

// enrol gets a certificate as a service does, with a token for all names of its profile. Files in its
// directory that another program made are an error, and stay.
func (i *issuer) enrol(ctx context.Context, item *certificate) (rotation.Material, error) {
	return enroll.Issue(ctx, enroll.Config{
		URL: i.url, Roots: i.authority.Roots(), Dir: item.dir, KeyType: keyTypeFor(item.profile), Logger: i.logger,
		Token: func(ctx context.Context) (secret.String, error) {
			return ca.StateDir(i.dir).NewToken(ctx, ca.TokenOptions{Password: i.password, Service: item.service})
		},
	})
}

// keyTypeFor returns EC-P256 where the profile allows it, and else the first type that it lists.
func keyTypeFor(p policy.Profile) enroll.KeyType {
	if len(p.KeyTypes) == 0 || slices.Contains(p.KeyTypes, "EC-P256") {
		return "EC-P256"
	}
	return enroll.KeyType(p.KeyTypes[0])
}

// fixture gets a certificate that is expired or not yet valid. It calls the authority itself, because
// the API never issues such a certificate; only the dates differ from an enrolment.
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

// fixtureDate returns the begin of a fixture. One that is not yet valid begins in a year. An expired
// one begins so that it ended a minute ago, and not longer ago: a certificate must not begin
// before its issuer, and the issuer may have been made in this run.
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

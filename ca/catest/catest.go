// Package catest runs a real authority for tests: a state directory on disk, its
// record in SQLite, TLS 1.3 on a loopback port.
//
//	authority := catest.Start(t, catest.Options{Lifetime: 10 * time.Second})
//	token := authority.Token(t, "ingester")
//	// enrol at authority.URL with the root fingerprint authority.RootFingerprint
//	authority.Check(t)
//
// Everything ends with the test. Nothing is mocked: a client that works with this
// authority works with "artstore-pki serve". Each problem fails the test that is given,
// so the caller checks no errors.
package catest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// Options of an authority for tests. The zero value works: the services of ArtStore, keys of
// type EC-P256, certificates for 24 h.
type Options struct {
	// Lifetime is how long certificates are valid: 24 h if 0, 10 s at least.
	Lifetime time.Duration
	// Profiles replace those of the ArtStore services. nil keeps them.
	Profiles map[string]policy.Profile
	// KeyType is the kind of key of root and intermediate. Default EC-P256.
	KeyType string
	// Database is a postgres:// URL that replicas share. Empty means pki.db in the state
	// directory.
	Database string
	// Edit may change pki.yaml before the authority opens it.
	Edit func(yaml []byte) []byte
	// Wrap, if set, wraps the handler, to count requests or to inject faults.
	Wrap func(http.Handler) http.Handler
}

// CA is a running authority.
type CA struct {
	// URL is https://127.0.0.1:port.
	URL string
	// RootFingerprint is the SHA-256 of the first root, in hex.
	RootFingerprint string
	// Dir is the state directory. Its keys are not encrypted, because deriving the
	// key of the encryption would cost time in each test.
	Dir       string
	Authority *ca.Authority
	opt       Options
}

// Start makes, opens and serves an authority until the test ends.
func Start(t testing.TB, opt Options) *CA {
	t.Helper()
	c := &CA{Dir: filepath.Join(t.TempDir(), "ca"), opt: opt}
	result, err := setup.Init(t.Context(), setup.Options{
		Dir: c.Dir, LeafLifetime: opt.Lifetime, Profiles: opt.Profiles, KeyType: opt.KeyType, Database: opt.Database, PlainKeys: true,
	})
	if err != nil {
		t.Fatalf("making the authority: %v", err)
	}
	c.RootFingerprint = result.RootFingerprint
	if opt.Edit != nil {
		c.Rewrite(t, opt.Edit)
	}
	c.open(t)
	return c
}

// Replica starts another authority on a copy of the state directory: it has the
// same keys and, with Options.Database, the same record.
func (c *CA) Replica(t testing.TB) *CA {
	t.Helper()
	r := &CA{Dir: filepath.Join(t.TempDir(), "ca"), RootFingerprint: c.RootFingerprint, opt: c.opt}
	source := os.DirFS(c.Dir)
	err := fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// A file that begins with a dot belongs to a write in progress, such as that of the
		// marker, and may vanish before it is copied.
		if strings.HasPrefix(entry.Name(), ".") && path != "." {
			return nil
		}
		to := filepath.Join(r.Dir, path)
		if entry.IsDir() {
			return durable.MkdirAll(to)
		}
		data, err := fs.ReadFile(source, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return durable.WriteNew(to, data, info.Mode().Perm())
	})
	if err != nil {
		t.Fatalf("copying the state directory: %v", err)
	}
	r.open(t)
	return r
}

// open opens the authority in c.Dir, and serves it until the test ends.
func (c *CA) open(t testing.TB) {
	t.Helper()
	// The context of the test ends before its cleanups, in one of which the server drains.
	ctx := context.WithoutCancel(t.Context())
	var err error
	if c.Authority, err = ca.Open(ctx, ca.Options{Dir: c.Dir, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatalf("opening the authority: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Authority.Close(); err != nil {
			t.Errorf("closing the authority: %v", err)
		}
	})
	c.serve(ctx, t, c.opt)
}

// serve listens with the certificate that Authority.Watch yields, and waits for all
// goroutines at the end of the test.
func (c *CA) serve(ctx context.Context, t testing.TB, opt Options) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		t.Fatalf("listening: %v", err)
	}
	c.URL = "https://" + ln.Addr().String()
	handler := c.Authority.Handler()
	if opt.Wrap != nil {
		handler = opt.Wrap(handler)
	}
	var current atomic.Pointer[tls.Config]
	first, done := make(chan struct{}, 1), make(chan error, 4)
	go func() { done <- c.Authority.KeepLog(ctx) }()
	go func() { done <- c.Authority.KeepWatchers(ctx) }()
	go func() {
		done <- c.Authority.Watch(ctx, func(id ca.ServerIdentity) error {
			current.Store(serverConfig(id.Certificate, id.Roots))
			select {
			case first <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	select {
	case <-first:
	case err := <-done:
		cancel()
		t.Fatalf("watching the authority's certificate: %v", err)
	}
	go func() {
		err := httpserver.Serve(ctx, ln, httpserver.Config{Handler: handler, Drain: time.Second, Logger: slog.New(slog.DiscardHandler), TLS: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil },
		}})
		if errors.Is(err, context.DeadlineExceeded) {
			err = nil // the test has left a connection open
		}
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		for range cap(done) {
			if err := <-done; err != nil {
				t.Errorf("serving the authority: %v", err)
			}
		}
	})
}

// serverConfig returns the configuration of "artstore-pki serve": it accepts a client
// without a certificate, because such a client may enrol.
func serverConfig(cert tls.Certificate, roots []*x509.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    certs.Pool(roots...),
		NextProtos:   []string{"h2", "http/1.1"},
	}
}

// Roots returns the current trust bundle.
func (c *CA) Roots() []*x509.Certificate { return c.Authority.Roots() }

// Token makes an enrolment token for a service, for the given names or for all that its
// profile lists.
func (c *CA) Token(t testing.TB, service string, names ...string) secret.String {
	t.Helper()
	return c.token(t, ca.TokenOptions{Service: service, Names: names})
}

// ChangeTrust takes one step of a change of trust in the name of the operator, and returns the
// trust after it. A step that is refused fails the test.
func (c *CA) ChangeTrust(t testing.TB, change ca.TrustChange) ca.TrustStatus {
	t.Helper()
	status, err := c.Authority.ChangeTrust(t.Context(), "operator", change)
	if err != nil {
		t.Fatalf("step %s: %v", change.Step, err)
	}
	return status
}

// AddRoot stages a root and returns its fingerprint.
func (c *CA) AddRoot(t testing.TB) string {
	t.Helper()
	roots := c.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepAdd}).Roots
	return roots[len(roots)-1].Fingerprint
}

// ActivateRoot activates a root, whoever of its profiles has not adopted it.
func (c *CA) ActivateRoot(t testing.TB, fingerprint string) {
	t.Helper()
	change := stepapi.TrustChange{Step: stepapi.StepActivate, Certificate: fingerprint}
	for service := range c.Authority.Config().Profiles {
		change.Accept = append(change.Accept, service)
	}
	c.ChangeTrust(t, change)
}

// RotateIntermediate makes a new intermediate, which issues from then on.
func (c *CA) RotateIntermediate(t testing.TB) {
	t.Helper()
	c.ChangeTrust(t, stepapi.TrustChange{Step: stepapi.StepRotateIntermediate})
}

// RevokeToken makes a token to revoke the certificate with this serial.
func (c *CA) RevokeToken(t testing.TB, serial string) secret.String {
	t.Helper()
	return c.token(t, ca.TokenOptions{Service: serial, Revoke: true})
}

// Revoke revokes the certificate with this decimal serial for key compromise, as
// an operator does at the record.
func (c *CA) Revoke(t testing.TB, serial string) {
	t.Helper()
	r, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := r.Revoke(t.Context(), serial, 1, "lost"); err != nil {
		t.Fatal(err)
	}
}

// RevokeIntermediate names an intermediate on the list of its root, as after a theft of its
// key, and cuts off all services that have certificates of it. It must not be the one that
// issues.
func (c *CA) RevokeIntermediate(t testing.TB, intermediate *x509.Certificate) {
	t.Helper()
	change := stepapi.TrustChange{Step: stepapi.StepRevokeIntermediate, Certificate: certs.Fingerprint(intermediate)}
	_, err := c.Authority.ChangeTrust(t.Context(), "test", change)
	if cut, ok := errors.AsType[*ca.CutOffError](err); ok {
		for _, h := range cut.Holders {
			change.Accept = append(change.Accept, h.Service)
		}
		_, err = c.Authority.ChangeTrust(t.Context(), "test", change)
	}
	if err != nil {
		t.Fatalf("revoking the intermediate %q: %v", intermediate.Subject.CommonName, err)
	}
}

func (c *CA) token(t testing.TB, opt ca.TokenOptions) secret.String {
	t.Helper()
	token, err := ca.StateDir(c.Dir).NewToken(t.Context(), opt)
	if err != nil {
		t.Fatalf("making a token for %s: %v", opt.Service, err)
	}
	return token
}

// Rewrite edits pki.yaml. The authority reads it with the next call of Authority.Reload.
func (c *CA) Rewrite(t testing.TB, edit func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(c.Dir, "pki.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("reading pki.yaml: %v", err)
	}
	if err := os.WriteFile(path, edit(data), 0o600); err != nil { //nolint:forbidigo // a test's file need not survive a crash
		t.Fatalf("writing pki.yaml: %v", err)
	}
}

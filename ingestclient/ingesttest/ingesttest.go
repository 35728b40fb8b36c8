// Package ingesttest gives a test the two services that an ingest client talks
// to: a reference Admin Module and a reference Storage Element, over mutual TLS
// on free loopback ports, with certificates of a throwaway authority that lives
// in memory.
//
//	stack := ingesttest.Start(t, ingesttest.Options{})
//	client, err := ingestclient.New(stack.Config(), stack.Identity)
//	file, err := client.Upload(ctx, ingestclient.FileContent("a.txt"), ingestclient.Meta{})
//	stack.RotateClient(t)                                          // a new certificate and key
//	stack.SetFaults(t, ingesttest.Fault{Kind: "reset", AfterBytes: 1000, Count: 1}) // then break something
//	stack.SetTokenFault(t, ingesttest.TokenFault{Status: 503, RetryAfter: 2 * time.Second})
//
// [Options] choose the dialect, the mode and the limits. Faults of the Storage
// Element are delays, statuses, resets, stalls, trickles and wrong checksums,
// before, in the middle of or after a body; those of the token endpoint are
// delays, statuses and dropped connections. [Stack.Files], [Stack.Content] and
// [Stack.TokenRequests] tell what has happened. The example is a whole test.
//
// The services are real: tokens are signed and checked, files lie on disk, and
// each is compared with its SHA-256 when the test ends. Tokens are bound to the
// client's certificate (RFC 8705) unless Options says otherwise. Everything is
// torn down by the test's cleanup, after the client's own if that was made later.
package ingesttest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// Names in the certificates.
const (
	clientName  = "ingester"
	adminName   = "admin-module"
	storageName = "storage-element"
)

const (
	startTimeout = 30 * time.Second
	drainTimeout = 2 * time.Second
)

// Fault is one way for the Storage Element to misbehave.
type Fault = devstack.Fault

// File is a stored file: ID, Name, Size in bytes, SHA256 in hex.
type File = devstack.File

// Options choose what to start. The zero value works.
type Options struct {
	// Dialect is "python" or "go", for the token endpoint and the bodies alike. Empty means python.
	Dialect string
	// Mode is edit, rw, ro or ar. Empty means rw.
	Mode string
	// MaxFileSize and Capacity in bytes; above them 413 and 507. 0 means 1 GiB and 16 GiB.
	MaxFileSize, Capacity int64
	// TokenLifetime of access tokens, whole seconds. 0 means 5 min.
	TokenLifetime time.Duration
	// Unbound issues tokens that any certificate may use, and accepts them.
	Unbound bool
	// AdminTLS and StorageTLS replace the generated server configurations, and
	// JWKSTransport the Storage Element's way to the Admin Module; then the
	// certificates are the caller's affair.
	AdminTLS, StorageTLS *tls.Config
	JWKSTransport        http.RoundTripper
	// Logger gets what the services log. nil discards it.
	Logger *slog.Logger
}

// Stack is a running pair of services.
type Stack struct {
	TokenURL     string // of the dialect chosen
	AdminURL     string
	StorageURL   string
	ClientID     string
	ClientSecret secret.String
	// Identity is the client's own.
	Identity *rotation.Identity
	// CA issues further certificates.
	CA *CA

	opt     Options
	client  *source
	admin   *devstack.Admin
	proxy   *tokenProxy
	storage *devstack.Storage
}

// Start returns when both services answer. Failures end the test.
func Start(t testing.TB, opt Options) *Stack {
	t.Helper()
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stack{opt: opt, CA: NewCA(t)}
	s.client = &source{push: make(chan pushed)}
	s.Identity = open(t, s.client.starting(s.CA.Material(t, clientName)))
	s.startAdmin(t)
	s.startStorage(t)
	return s
}

func (s *Stack) startAdmin(t testing.TB) {
	t.Helper()
	var err error
	s.admin, err = devstack.NewAdmin(devstack.AdminConfig{
		Dir: t.TempDir(), TokenLifetime: s.opt.TokenLifetime, BoundTokens: !s.opt.Unbound,
		BcryptCost: bcrypt.MinCost, // hashing for real would be most of a test's time
		Logger:     s.opt.Logger,
	})
	must(t, err)
	s.proxy = &tokenProxy{next: s.admin.Handler()}
	s.AdminURL = s.serve(t, s.admin, s.proxy, s.secured(t, s.opt.AdminTLS, adminName))
	s.TokenURL = s.AdminURL + devstack.TokenPath
	if s.opt.Dialect == "go" {
		s.TokenURL = s.AdminURL + devstack.FormTokenPath
	}
	s.ClientID, s.ClientSecret, err = s.admin.AddAccount(clientName)
	must(t, err)
}

func (s *Stack) startStorage(t testing.TB) {
	t.Helper()
	jwks := s.opt.JWKSTransport
	if jwks == nil {
		own, err := open(t, rotation.Static(s.CA.Material(t, storageName))).Transport(rotation.TransportOptions{})
		must(t, err)
		t.Cleanup(func() { _ = own.Close() }) // nothing is in flight any more
		jwks = own
	}
	var err error
	s.storage, err = devstack.NewStorage(devstack.StorageConfig{
		Dir: t.TempDir(), Mode: devstack.Mode(s.opt.Mode), Dialect: devstack.Dialect(s.opt.Dialect),
		MaxFileSize: s.opt.MaxFileSize, Capacity: s.opt.Capacity,
		JWKSURL: s.AdminURL + devstack.JWKSPath, JWKSTransport: jwks, RequireBound: !s.opt.Unbound,
		Logger: s.opt.Logger,
	})
	must(t, err)
	t.Cleanup(func() { // runs after the server's own cleanup: nothing is on its way any more
		if _, err := s.storage.Verify(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stored files: %v", err)
		}
	})
	s.StorageURL = s.serve(t, s.storage, s.storage.Handler(), s.secured(t, s.opt.StorageTLS, storageName))
}

// service is what both have beside their handler.
type service interface {
	Run(ctx context.Context) error
}

// secured returns a configuration with own, or else with a certificate of this stack's
// authority. Only the client may connect; to the Admin Module the Storage Element too,
// because it fetches keys there.
func (s *Stack) secured(t testing.TB, own *tls.Config, name string) httpserver.Config {
	t.Helper()
	if own != nil {
		return httpserver.Config{TLS: own}
	}
	peers := []string{clientName}
	if name == adminName {
		peers = append(peers, storageName)
	}
	server, err := open(t, rotation.Static(s.CA.Material(t, name))).Server(rotation.ServerOptions{Authorize: rotation.AllowNames(peers...)})
	must(t, err)
	return httpserver.Config{Server: server}
}

func (s *Stack) serve(t testing.TB, svc service, h http.Handler, conf httpserver.Config) (url string) {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	running.Go(func() { report(t, "running a service", svc.Run(ctx)) })
	running.Go(func() {
		// Faults may hold requests beyond any patience; those are cut at the end.
		conf.Handler, conf.Drain, conf.Logger = h, drainTimeout, s.opt.Logger
		err := httpserver.Serve(ctx, ln, conf)
		if !errors.Is(err, context.DeadlineExceeded) {
			report(t, "serving", err)
		}
	})
	return "https://" + ln.Addr().String()
}

// Config is an [ingestclient.Config] for this stack, to be changed as the test likes.
func (s *Stack) Config() ingestclient.Config {
	auth := ingestclient.AuthJSON
	if s.opt.Dialect == "go" {
		auth = ingestclient.AuthPost
	}
	return ingestclient.Config{
		TokenURL: s.TokenURL, ClientAuth: auth, ClientID: s.ClientID, Elements: []ingestclient.Element{{URL: s.StorageURL}}, Logger: s.opt.Logger,
		ClientSecret: func(context.Context) (secret.String, error) { return s.ClientSecret, nil },
	}
}

// RotateClient gives the client a new certificate and key, and returns when they are in use.
func (s *Stack) RotateClient(t testing.TB) {
	t.Helper()
	must(t, s.client.replace(t.Context(), s.CA.Material(t, clientName)))
}

// RotateSigningKey replaces the key that signs tokens; the old one stays published.
func (s *Stack) RotateSigningKey(t testing.TB) {
	t.Helper()
	must(t, s.admin.RotateSigningKey())
}

// Suspend makes the client's credentials worthless.
func (s *Stack) Suspend(t testing.TB) {
	t.Helper()
	must(t, s.admin.Suspend(s.ClientID))
}

// ResetSecret replaces the client's secret and returns the new one; Config goes
// on with the old.
func (s *Stack) ResetSecret(t testing.TB) secret.String {
	t.Helper()
	fresh, err := s.admin.ResetSecret(s.ClientID)
	must(t, err)
	return fresh
}

// SetFaults replaces all faults of the Storage Element; none clears them.
func (s *Stack) SetFaults(t testing.TB, faults ...Fault) {
	t.Helper()
	must(t, s.storage.Faults().Set(faults...))
}

// Fired is how often each kind of fault struck.
func (s *Stack) Fired() map[string]int { return s.storage.Faults().Fired() }

// Files returns what is stored, ordered by name.
func (s *Stack) Files() []File { return s.storage.Files() }

// Content reads a stored file from disk.
func (s *Stack) Content(t testing.TB, id string) []byte {
	t.Helper()
	f, err := s.storage.Open(id)
	must(t, err)
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(f)
	must(t, err)
	return data
}

// open opens an identity that the test's cleanup closes.
func open(t testing.TB, src rotation.Source) *rotation.Identity {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: src, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { report(t, "identity", id.Close()) })
	return id
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func report(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

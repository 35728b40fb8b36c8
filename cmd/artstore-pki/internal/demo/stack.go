package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// Names of the demo's services: profiles of the pki.yaml that init writes.
const (
	nameCA       = "ca"
	nameAdmin    = "admin-module"
	nameStorage  = "storage-element"
	nameIngester = "ingester"
)

const (
	startTimeout  = 2 * time.Minute // a second on a quiet machine; deriving keys from passwords is slow on a busy one
	healthTimeout = 10 * time.Second
	// The account lives as long as the demo; a higher cost would only slow down token requests.
	demoBcryptCost = 10
)

// Options say what to show. Each field is needed.
type Options struct {
	Duration     time.Duration // of the upload load
	LeafLifetime time.Duration // of each certificate; the services rotate as often
	Dir          string        // empty directory for all state
	Logger       *slog.Logger
}

// stack is everything the demo runs, in this process, on loopback ports.
type stack struct {
	opt       Options
	authority *ca.Authority
	password  secret.String
	admin     *devstack.Admin
	storage   *devstack.Storage
	client    *ingestclient.Client
	ingester  *service
	services  []*service

	stop    context.CancelFunc
	running *errgroup.Group
	closers []func() error // run in reverse
}

// service is one rotating identity with, for servers, its address.
type service struct {
	name, short string
	url         string
	healthPath  string // "" for a client
	identity    *rotation.Identity
	rotations   atomic.Int64 // of the leaf; a changed trust bundle alone does not count
}

// startStack returns when all services answer.
func startStack(ctx context.Context, opt Options) (_ *stack, err error) {
	start, cancelStart := context.WithTimeout(ctx, startTimeout)
	defer cancelStart()
	// The services outlive the start's deadline and the demo's own interruption:
	// Close ends them, in order.
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &stack{opt: opt, stop: stop}
	w.running, run = errgroup.WithContext(run)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	for _, step := range []func(start, run context.Context) error{
		w.startCA, w.startAdmin, w.startStorage, w.startIngester, w.waitHealthy,
	} {
		if err := step(start, run); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Close ends everything in reverse order and joins it.
func (w *stack) Close() (err error) {
	for i := len(w.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, w.closers[i]())
	}
	w.stop()
	err = errors.Join(err, w.running.Wait())
	if w.authority != nil {
		err = errors.Join(err, w.authority.Close())
	}
	return err
}

// onClose has f called at the end, before what was registered earlier.
func (w *stack) onClose(f func() error) { w.closers = append(w.closers, f) }

// startCA makes an authority in an empty directory and serves it. Its keys are
// encrypted with a generated password, as init leaves them.
func (w *stack) startCA(start, run context.Context) error {
	dir := filepath.Join(w.opt.Dir, "ca")
	result, err := setup.Init(start, setup.Options{Dir: dir, Name: "ArtStore demo", LeafLifetime: w.opt.LeafLifetime})
	if err != nil {
		return err
	}
	if w.password, err = secret.ReadFile(result.PasswordFile); err != nil {
		return err
	}
	if w.authority, err = ca.Open(start, ca.Options{Dir: dir, Password: w.password, Logger: w.logger(nameCA)}); err != nil {
		return err
	}
	server, err := serving.StartAuthority(start, w.authority, w.logger(nameCA), nil)
	if err != nil {
		return err
	}
	s := w.add(&service{name: nameCA, short: "ca", healthPath: "/health", identity: server.Identity})
	ln, err := s.listenOn(start)
	if err != nil {
		return err
	}
	w.running.Go(func() error { return server.Serve(run, ln) })
	return nil
}

// startAdmin starts the service that issues access tokens. Tokens and signing keys
// live about as long as certificates, so that a short demo sees all of them change.
func (w *stack) startAdmin(start, run context.Context) error {
	s, err := w.enrol(start, nameAdmin)
	if err != nil {
		return err
	}
	s.short, s.healthPath = "admin", "/health/live"
	w.admin, err = devstack.NewAdmin(devstack.AdminConfig{
		Dir:                filepath.Join(w.opt.Dir, nameAdmin),
		TokenLifetime:      w.opt.LeafLifetime,
		SigningKeyRotation: w.opt.LeafLifetime * 3 / 2,
		BoundTokens:        true,
		BcryptCost:         demoBcryptCost,
		Logger:             w.logger(nameAdmin),
	})
	if err != nil {
		return err
	}
	w.running.Go(func() error { return w.admin.Run(run) })
	return w.serve(run, s, w.admin.Handler(), nameIngester, nameStorage)
}

// startStorage starts the service that takes files. It gets the keys of tokens from
// the Admin Module over its own identity, and takes only tokens that are bound to the
// certificate of their connection (RFC 8705 §3).
func (w *stack) startStorage(start, run context.Context) error {
	s, err := w.enrol(start, nameStorage)
	if err != nil {
		return err
	}
	s.short, s.healthPath = "storage", "/health/live"
	jwks, err := s.identity.Transport(rotation.TransportOptions{})
	if err != nil {
		return err
	}
	w.onClose(jwks.Close)
	w.storage, err = devstack.NewStorage(devstack.StorageConfig{
		Dir:           filepath.Join(w.opt.Dir, nameStorage),
		Mode:          "rw",
		JWKSURL:       w.url(nameAdmin) + devstack.JWKSPath,
		JWKSTransport: jwks,
		RequireBound:  true,
		Logger:        w.logger(nameStorage),
	})
	if err != nil {
		return err
	}
	w.running.Go(func() error { return w.storage.Run(run) })
	return w.serve(run, s, w.storage.Handler(), nameIngester)
}

// startIngester makes the client that uploads. It listens nowhere.
func (w *stack) startIngester(start, _ context.Context) error {
	s, err := w.enrol(start, nameIngester)
	if err != nil {
		return err
	}
	s.short, w.ingester = "ingester", s
	id, clientSecret, err := w.admin.AddAccount(nameIngester)
	if err != nil {
		return err
	}
	w.client, err = ingestclient.New(ingestclient.Config{
		TokenURL:     w.url(nameAdmin) + devstack.TokenPath,
		ClientID:     id,
		ClientSecret: func(context.Context) (secret.String, error) { return clientSecret, nil },
		Elements:     []ingestclient.Element{{URL: w.url(nameStorage)}},
		Logger:       w.logger(nameIngester),
	}, s.identity)
	if err != nil {
		return err
	}
	w.onClose(w.client.Close)
	return nil
}

// waitHealthy asks each server once; their listeners already queue connections.
func (w *stack) waitHealthy(start, _ context.Context) error {
	for _, s := range w.services {
		if s.healthPath == "" {
			continue
		}
		if err := w.healthy(start, s); err != nil {
			return err
		}
	}
	return nil
}

// enrol gets a service its identity as a stranger would: with a one-time token
// and the authority's URL, nothing else.
func (w *stack) enrol(ctx context.Context, name string) (*service, error) {
	source, err := enroll.New(enroll.Config{
		URL: w.url(nameCA),
		Dir: filepath.Join(w.opt.Dir, name, "identity"),
		Token: func(ctx context.Context) (secret.String, error) {
			return ca.StateDir(filepath.Join(w.opt.Dir, "ca")).NewToken(ctx, ca.TokenOptions{Password: w.password, Service: name})
		},
		Logger: w.logger(name),
	})
	if err != nil {
		return nil, err
	}
	id, err := rotation.Open(ctx, rotation.Config{Source: source, Logger: w.logger(name), DrainTimeout: identity.Drain})
	if err != nil {
		return nil, fmt.Errorf("enrolling %s: %w", name, err)
	}
	return w.add(&service{name: name, identity: id}), nil
}

// add registers a service and counts the rotations of its leaf.
func (w *stack) add(s *service) *service {
	w.services = append(w.services, s)
	last := s.identity.Current().Thumbprint()
	stop := s.identity.Subscribe(func(c rotation.Change) {
		if c.Generation == nil || c.Generation.Thumbprint() == last {
			return
		}
		last = c.Generation.Thumbprint()
		s.rotations.Add(1)
	})
	w.onClose(func() error { stop(); return s.identity.Close() })
	return s
}

// serve answers at a free loopback port; only peers with one of the names get in.
func (w *stack) serve(run context.Context, s *service, h http.Handler, peers ...string) error {
	server, err := s.identity.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(peers...)})
	if err != nil {
		return err
	}
	ln, err := s.listenOn(run)
	if err != nil {
		return err
	}
	w.running.Go(func() error {
		return httpserver.Serve(run, ln, httpserver.Config{Handler: h, Server: server, Logger: w.logger(s.name)})
	})
	return nil
}

// listenOn listens at a free port of loopback and keeps the URL.
func (s *service) listenOn(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", serving.Loopback)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", s.name, err)
	}
	s.url = serving.URL(ln)
	return ln, nil
}

// url is where the service of that name answers; "" for one that does not.
func (w *stack) url(name string) string {
	for _, s := range w.services {
		if s.name == name {
			return s.url
		}
	}
	return ""
}

// logger marks what a part of the stack logs: all of them share one stderr.
func (w *stack) logger(name string) *slog.Logger { return w.opt.Logger.With("component", name) }

// healthy asks a service as the ingester does.
func (w *stack) healthy(ctx context.Context, s *service) error {
	transport, err := w.ingester.identity.Transport(rotation.TransportOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = transport.Close() }() // one request; nothing is left to lose
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+s.healthPath, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking %s for its health: %w", s.name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s for its health: status %d", s.name, resp.StatusCode)
	}
	return nil
}

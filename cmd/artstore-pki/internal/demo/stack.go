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

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/caserver"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// Names of the services, which are profiles of the pki.yaml that setup.Init writes.
const (
	nameCA       = "ca"
	nameAdmin    = "admin-module"
	nameStorage  = "storage-element"
	nameIngester = "ingester"
)

const (
	// startTimeout bounds the start of all services. A quiet machine needs a second; on a busy
	// one, deriving keys from passwords takes long.
	startTimeout = 2 * time.Minute
	// healthTimeout bounds one request to a service, and the wait for a server in the audit.
	healthTimeout = 10 * time.Second
	// demoBcryptCost is low, because the account lives as long as the demo. A higher cost would
	// only slow down token requests.
	demoBcryptCost = 10
)

// Options say what to show. Each field is needed.
type Options struct {
	// Duration is how long files are uploaded, from the moment at which all services answer.
	Duration time.Duration
	// LeafLifetime is the life of each certificate. A service renews at 0.60 to 0.70 of it.
	LeafLifetime time.Duration
	// Dir is an empty directory for all state. The caller removes it.
	Dir string
	// Logger gets what the packages log, with the service as the attribute component.
	Logger *slog.Logger
}

// stack is everything that the demo runs, in this process, on ports of loopback.
type stack struct {
	opt       Options
	authority *ca.Authority
	password  secret.String // of the keys of the authority
	admin     *devstack.Admin
	storage   *devstack.Storage
	client    *ingestclient.Client // that of ingester
	ingester  *service
	services  []*service // in the order of their start
	registry  *prometheus.Registry
	pages     []pages // in the order in which they are named

	// stop ends the context of all goroutines, which are in running.
	stop    context.CancelFunc
	running *errgroup.Group
	// closers are called by Close, the last one first.
	closers []func() error
}

// service is one rotating identity, with an address if it is a server.
type service struct {
	name string
	// short is the name in the line about the progress.
	short string
	// url is "" for a client, and so is healthPath.
	url        string
	healthPath string
	identity   *rotation.Identity
	// rotations counts new leaves. A change of the trust bundle alone does not count.
	rotations atomic.Int64
}

// startStack starts all services and returns when they answer. After an error nothing is left
// running. The caller closes the stack.
func startStack(ctx context.Context, opt Options) (_ *stack, err error) {
	start, cancelStart := context.WithTimeout(ctx, startTimeout)
	defer cancelStart()
	// The services do not end with the deadline of the start or with an interruption. Close ends
	// them, each before those that it needs.
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &stack{opt: opt, stop: stop, registry: serving.NewRegistry()}
	w.running, run = errgroup.WithContext(run)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	for _, step := range []func(start, run context.Context) error{
		w.startCA, w.startAdmin, w.startStorage, w.startIngester, w.waitHealthy, w.startDashboard, w.startExporter, w.startMetrics,
	} {
		if err := step(start, run); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Close closes everything in reverse order of the start, waits for all goroutines, and closes the
// authority last. It may be called on a stack of which only a part was started.
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

// onClose registers a function for Close, which calls it before those that were registered earlier.
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
	if w.authority, err = ca.Open(start, ca.Options{Dir: dir, Password: w.password, Logger: w.logger(nameCA), Registerer: w.registry}); err != nil {
		return err
	}
	server, err := caserver.StartAuthority(start, w.authority, w.logger(nameCA), w.registry)
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
		Observer:     uploads.NewMetrics(w.registry).Observer(),
	}, s.identity)
	if err != nil {
		return err
	}
	w.onClose(w.client.Close)
	return nil
}

// waitHealthy asks each server once for its health. It needs no second attempt, because the
// listeners are open and queue connections until their servers accept them.
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

// enrol opens the identity of a service, which knows nothing but a one-time token and the URL of
// the authority. The token has the fingerprint of the root in it. A new token is made for each
// enrolment.
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

// add registers a service with an open identity, which Close closes, and counts the rotations of
// its leaf from now on.
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

// serve serves h at a free port of loopback until run ends. Only peers whose certificate has one of
// the names may connect.
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

// listenOn opens a listener at a free port of loopback and keeps its URL in the service.
func (s *service) listenOn(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", serving.Loopback)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", s.name, err)
	}
	s.url = serving.URL(ln)
	return ln, nil
}

// url returns the URL of the service of that name, or "" if it listens nowhere or does not exist.
func (w *stack) url(name string) string {
	for _, s := range w.services {
		if s.name == name {
			return s.url
		}
	}
	return ""
}

// logger returns the logger of a service. Its lines have the name, because all services write to
// one stderr.
func (w *stack) logger(name string) *slog.Logger { return w.opt.Logger.With("component", name) }

// healthy asks a server for its health with the identity of the ingester, over a connection of its
// own. It returns nil for status 200.
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

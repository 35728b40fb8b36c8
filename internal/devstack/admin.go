package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/secret"
)

// Paths of the Admin Module.
const (
	TokenPath     = "/api/v1/auth/token"                             //nolint:gosec // G101: a path, not a credential
	FormTokenPath = "/realms/artstore/protocol/openid-connect/token" //nolint:gosec // G101: a path, not a credential
	JWKSPath      = "/realms/artstore/protocol/openid-connect/certs" // also served at /.well-known/jwks.json
	wellKnownJWKS = "/.well-known/jwks.json"
)

const (
	// defaultTokenLifetime is that of ArtStore's realm in Keycloak.
	defaultTokenLifetime = 5 * time.Minute
	defaultKeyRotation   = 24 * time.Hour
	defaultIssuer        = "artstore-admin-module"
	// retryKeys is the pause after a key that could not be written.
	retryKeys = 10 * time.Second
)

// AdminConfig configures an Admin Module. Dir is required; the zero value of
// every other field works.
type AdminConfig struct {
	// Dir keeps accounts and signing keys (0600). It is made if it is not there.
	Dir string
	// TokenLifetime of access tokens, whole seconds. 0 means 5 min.
	TokenLifetime time.Duration
	// SigningKeyRotation is how long one key signs. 0 means 24 h.
	SigningKeyRotation time.Duration
	// BoundTokens binds each token to the certificate of the client that asked
	// for it (RFC 8705); clients without one get none.
	BoundTokens bool
	// BcryptCost of new secrets, 4 to 31. 0 means 12, a quarter of a second each.
	BcryptCost int
	// Issuer is the iss of tokens. Empty means artstore-admin-module.
	Issuer string
	// ClockOffset is how far this service's clock is ahead, in tokens and in the
	// Date of answers: for tests of what a wrong clock does. Negative is behind.
	ClockOffset time.Duration
	// StorageElements are base URLs for the registry, in order of priority.
	StorageElements []string
	// Logger gets changes of state and refusals. nil means slog.Default.
	Logger *slog.Logger
}

// Admin is a reference Admin Module. It is safe for concurrent use.
type Admin struct {
	cfg      AdminConfig
	accounts *accounts
	guesses  *guesses
	keys     *keystore
	registry *registry
	metrics  *adminMetrics
	log      *slog.Logger
	started  time.Time
}

// NewAdmin opens the directory and makes what is missing in it: two signing
// keys, which take a moment. It starts no goroutine.
func NewAdmin(cfg AdminConfig) (*Admin, error) {
	if cfg.Dir == "" {
		return nil, errors.New("opening the Admin Module: no directory given")
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = defaultTokenLifetime
	}
	if cfg.SigningKeyRotation == 0 {
		cfg.SigningKeyRotation = defaultKeyRotation
	}
	if cfg.Issuer == "" {
		cfg.Issuer = defaultIssuer
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.TokenLifetime < time.Second || cfg.SigningKeyRotation < time.Second {
		return nil, errors.New("opening the Admin Module: TokenLifetime and SigningKeyRotation must be a second at least")
	}
	if err := durable.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("opening the Admin Module: %w", err)
	}
	accounts, err := openAccounts(cfg.Dir, cfg.BcryptCost)
	if err != nil {
		return nil, err
	}
	keys, err := openKeys(cfg.Dir, cfg.TokenLifetime)
	if err != nil {
		return nil, err
	}
	return &Admin{
		cfg: cfg, accounts: accounts, guesses: newGuesses(), keys: keys, registry: newRegistry(cfg.StorageElements),
		metrics: newAdminMetrics(), log: cfg.Logger, started: time.Now(),
	}, nil
}

// AddAccount makes a service account. The secret is returned once: only its
// bcrypt hash is kept.
func (a *Admin) AddAccount(name string) (clientID string, clientSecret secret.String, err error) {
	return a.accounts.add(name)
}

// FindAccount returns the id of the account with this name and secret, so that a
// program that has kept the secret can find the id again. The error is
// [fs.ErrNotExist] if there is none.
func (a *Admin) FindAccount(ctx context.Context, name string, clientSecret secret.String) (clientID string, err error) {
	return a.accounts.find(ctx, name, clientSecret)
}

// Suspend ends the use of the account's credentials. Tokens that it has stay valid
// until they expire. An unknown id is [fs.ErrNotExist].
func (a *Admin) Suspend(clientID string) error {
	return a.accounts.setStatus(clientID, statusSuspended)
}

// ResetSecret replaces the account's secret; the old one is invalid at once, as
// in ArtStore. An unknown id is [fs.ErrNotExist].
func (a *Admin) ResetSecret(clientID string) (secret.String, error) {
	return a.accounts.resetSecret(clientID)
}

// RotateSigningKey does now what Run does on time.
func (a *Admin) RotateSigningKey() error {
	err := a.keys.rotate(time.Now())
	if err == nil {
		a.log.Info("signing key rotated")
	}
	return err
}

// Run replaces signing keys until ctx ends, then returns nil. A key that cannot
// be written is tried again; the old one signs meanwhile.
func (a *Admin) Run(ctx context.Context) error {
	for {
		at, isRotation := a.keys.due(a.cfg.SigningKeyRotation)
		if !wait(ctx, time.Until(at)) {
			return nil
		}
		act := a.RotateSigningKey
		if !isRotation {
			act = func() error { return a.keys.prune(time.Now()) }
		}
		if err := act(); err != nil {
			a.log.Warn("signing key not rotated", "err", err)
			if !wait(ctx, retryKeys) {
				return nil
			}
		}
	}
}

// Handler serves the module's API.
func (a *Admin) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.GetHead) // RFC 9110 §9.1: HEAD wherever GET is
	r.Use(dated(a.cfg.ClockOffset))
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, map[string]string{"detail": "Resource not found", "path": r.URL.Path})
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"detail": "Method Not Allowed"})
	})
	r.Post(TokenPath, a.serveTokenJSON)
	r.Post(FormTokenPath, a.serveTokenForm)
	r.Get(JWKSPath, a.serveJWKS)
	r.Get(wellKnownJWKS, a.serveJWKS)
	r.Get("/api/v1/storage-elements", a.serveElements)
	r.Post("/api/v1/files", a.serveRegister)
	r.Get("/health/live", a.serveHealth("alive"))
	r.Get("/health/ready", a.serveHealth("ready"))
	r.Handle("/metrics", a.metrics.handler())
	return r
}

// serveJWKS publishes the public keys as a JWK Set (RFC 7517 §5).
func (a *Admin) serveJWKS(w http.ResponseWriter, _ *http.Request) {
	answerBy(w)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(a.keys.ring.Load().jwks) // a client that left needs no answer
}

// serveHealth answers both probes alike: an Admin Module that was opened is ready.
func (a *Admin) serveHealth(status string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{
			"status": status, "timestamp": time.Now().UTC(), "service": "artstore-admin-module", "version": version,
		})
	}
}

// refused logs why a token was refused, without the id and the secret that were given. A
// client that went away is not logged: its request was not judged.
func (a *Admin) refused(r *http.Request, err error) {
	if r.Context().Err() == nil {
		a.log.Warn("token refused", "err", err)
	}
}

package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/uuid"
)

const (
	defaultMaxFileSize = 1 << 30
	defaultCapacity    = 16 << 30
	defaultBodyIdle    = 60 * time.Second
	// retryJWKS is the pause between fetches as long as there is no key set at all.
	retryJWKS = time.Second
)

// StorageConfig configures a Storage Element. Dir, JWKSURL and JWKSTransport are
// required; the zero value of every other field works.
type StorageConfig struct {
	// Dir keeps the files. It is made if it is not there.
	Dir string
	// Mode is edit, rw, ro or ar. Empty means rw.
	Mode Mode
	// Dialect of answers, python or go. Empty means python.
	Dialect Dialect
	// MaxFileSize in bytes; above it 413. 0 means 1 GiB.
	MaxFileSize int64
	// Capacity in bytes of content; above it 507. 0 means 16 GiB.
	Capacity int64
	// JWKSURL is where the Admin Module publishes its keys.
	JWKSURL string
	// JWKSTransport carries the requests for it: a transport of this service's identity.
	JWKSTransport http.RoundTripper
	// JWKSRefresh is how often Run fetches them. 0 means 15 s, as ArtStore does.
	JWKSRefresh time.Duration
	// RequireBound refuses tokens that are not bound to a certificate. Those that
	// are bound are always compared with the peer's.
	RequireBound bool
	// ClockOffset is how far this service's clock is ahead, where it judges tokens
	// and in the Date of answers: for tests of what a wrong clock does. Negative is behind.
	ClockOffset time.Duration
	// BodyIdle ends an upload that moves no byte for so long. 0 means 60 s.
	BodyIdle time.Duration
	// FaultControl serves /_faults (POST a JSON array, GET counts, DELETE): every
	// peer that may connect can then break this service. For tests only.
	FaultControl bool
	// Logger gets changes of state and failures. nil means slog.Default.
	Logger *slog.Logger
}

// Storage is a reference Storage Element. It is safe for concurrent use.
type Storage struct {
	cfg     StorageConfig
	id      string
	files   *filestore
	tokens  *verifier
	faults  *Faults
	metrics *storageMetrics
	log     *slog.Logger
}

// Stats are figures of one process. Files and Bytes are what is stored now.
type Stats struct {
	Files       int
	Bytes       int64
	TokenHits   int64 // validations answered from the cache
	TokenMisses int64 // validations that checked a signature
	JWKSFetches int64
}

// File is a stored file.
type File struct {
	ID     string
	Name   string
	Size   int64  // bytes
	SHA256 string // 64 lower-case hex digits
}

// NewStorage opens the directory, removes what was never acknowledged and counts
// the rest. Damaged metadata is an error. It starts no goroutine.
func NewStorage(cfg StorageConfig) (*Storage, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("opening the Storage Element: %w", err)
	}
	if err := durable.MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("opening the Storage Element: %w", err)
	}
	files, err := openFiles(cfg.Dir, cfg.MaxFileSize, cfg.Capacity)
	if err != nil {
		return nil, err
	}
	metrics := newStorageMetrics(
		func() float64 { _, used := files.list(); return float64(used) },
		func() float64 { all, _ := files.list(); return float64(len(all)) })
	return &Storage{
		cfg: cfg, id: uuid.New(), files: files, faults: newFaults(), metrics: metrics, log: cfg.Logger,
		tokens: newVerifier(cfg.JWKSURL, cfg.JWKSTransport, cfg.ClockOffset, metrics),
	}, nil
}

// fill sets the defaults, and refuses what cannot work. MaxFileSize leaves room for the rest
// of the form, so that their sum does not overflow.
func (c *StorageConfig) fill() error {
	if c.Mode == "" {
		c.Mode = modeRW
	}
	if c.Dialect == "" {
		c.Dialect = python
	}
	if c.MaxFileSize == 0 {
		c.MaxFileSize = defaultMaxFileSize
	}
	if c.Capacity == 0 {
		c.Capacity = defaultCapacity
	}
	if c.JWKSRefresh == 0 {
		c.JWKSRefresh = defaultJWKSRefresh
	}
	if c.BodyIdle == 0 {
		c.BodyIdle = defaultBodyIdle
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	jwks, err := url.Parse(c.JWKSURL)
	switch {
	case c.Dir == "":
		return errors.New("no directory given")
	case !slices.Contains([]Mode{modeEdit, modeRW, modeRO, modeAR}, c.Mode):
		return fmt.Errorf("unknown mode %q: use edit, rw, ro or ar", c.Mode)
	case c.Dialect != python && c.Dialect != golang:
		return fmt.Errorf("unknown dialect %q: use python or go", c.Dialect)
	case err != nil || jwks.Host == "":
		return errors.New("JWKSURL is not a URL")
	case c.JWKSTransport == nil:
		return errors.New("JWKSTransport is missing: without it no token can be checked")
	case c.MaxFileSize < 0 || c.Capacity < 0 || c.JWKSRefresh < 0 || c.BodyIdle < 0 || c.MaxFileSize > math.MaxInt64-maxFormOverhead:
		return errors.New("a size or duration is out of range")
	}
	return nil
}

// Faults makes requests fail on demand.
func (s *Storage) Faults() *Faults { return s.faults }

// Stats returns the figures of now.
func (s *Storage) Stats() Stats {
	all, used := s.files.list()
	return Stats{
		Files: len(all), Bytes: used,
		TokenHits: s.tokens.hits.Load(), TokenMisses: s.tokens.misses.Load(), JWKSFetches: s.tokens.fetches.Load(),
	}
}

// Files returns what is stored, ordered by name, then id.
func (s *Storage) Files() []File {
	all, _ := s.files.list()
	out := make([]File, 0, len(all))
	for _, m := range all {
		out = append(out, File{ID: m.ID, Name: m.Name, Size: m.Size, SHA256: m.SHA256})
	}
	slices.SortFunc(out, func(a, b File) int {
		return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID)
	})
	return out
}

// Open opens a stored file's content for reading. An unknown id is [fs.ErrNotExist].
func (s *Storage) Open(id string) (*os.File, error) { return s.files.open(id) }

// Verify reads every file on disk and compares it with what was acknowledged. It
// returns how many fit, and one error for all that do not.
func (s *Storage) Verify(ctx context.Context) (good int, err error) { return s.files.verify(ctx) }

// Run keeps the key set fresh until ctx ends, then releases requests that stall
// on a fault and returns nil. A key set that cannot be fetched stays as it was.
func (s *Storage) Run(ctx context.Context) error {
	defer func() { _ = s.faults.Set() }() // nothing to be invalid
	for {
		pause := s.cfg.JWKSRefresh
		if err := s.tokens.refresh(ctx, 0); err != nil && ctx.Err() == nil {
			s.log.Warn("key set not refreshed", "err", err)
			if s.tokens.keys.Load() == nil {
				pause = min(retryJWKS, pause)
			}
		}
		if !wait(ctx, pause) {
			return nil
		}
	}
}

// Handler serves the element's API.
func (s *Storage) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.GetHead) // RFC 9110 §9.1: HEAD wherever GET is
	r.Use(dated(s.cfg.ClockOffset))
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) { s.fail(w, problemNotFound, "") })
	r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) { s.fail(w, problemMethod, "") })
	r.Get("/api/v1/files", s.serveList)
	r.Post("/api/v1/files/upload", s.serveUpload)
	r.Get("/api/v1/files/{id}", s.serveMetadata)
	r.Delete("/api/v1/files/{id}", s.serveDelete)
	r.Get("/api/v1/files/{id}/download", s.serveDownload)
	r.Get("/api/v1/info", s.serveInfo)
	r.Get("/api/v1/capacity", s.serveCapacity)
	r.Get("/health/live", s.serveLive)
	r.Get("/health/ready", s.serveReady)
	r.Handle("/metrics", s.metrics.handler())
	if s.cfg.FaultControl {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			r.MethodFunc(method, "/_faults", s.faults.serveHTTP)
		}
	}
	return r
}

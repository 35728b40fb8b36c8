// Package httpsrv runs an HTTP server with a limit on everything a stranger can
// make grow: header size, header time, idle time, connections. It is the only
// place of this project that serves.
package httpsrv

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Defaults of Config.
const (
	DefaultMaxConns = 1024
	DefaultDrain    = 10 * time.Second
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
)

// Config says how to serve. The zero value of each field but Handler works.
type Config struct {
	Handler http.Handler
	// Server accepts over TLS, looks after what it accepted and judges requests.
	// nil: TLS does.
	Server Secured
	// TLS is used as it is; nil serves cleartext, for loopback listeners such as metrics.
	TLS *tls.Config
	// MaxConns caps open connections; further ones wait in the kernel's queue. 0 means 1024.
	MaxConns int
	// Drain is how long requests in flight may finish after ctx ends. 0 means 10 s.
	Drain time.Duration
	// BodyTimeout bounds reading one request with its body. 0 means no bound, for uploads, whose handlers watch progress themselves.
	BodyTimeout time.Duration
	// Logger gets what net/http reports (refused handshakes and the like), at debug level. nil means slog.Default.
	Logger *slog.Logger
}

// Secured is what *rotation.Server offers to net/http.
type Secured interface {
	Listener(net.Listener) net.Listener
	Handler(http.Handler) http.Handler
	ConnContext(context.Context, net.Conn) context.Context
}

// Serve serves on ln until ctx ends, then drains. It closes ln. It returns nil
// after a clean drain, [context.DeadlineExceeded] if requests had to be cut, or
// the error that ended serving.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	logger := cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	maxConns := cfg.MaxConns
	if maxConns == 0 {
		maxConns = DefaultMaxConns
	}
	drain := cfg.Drain
	if drain == 0 {
		drain = DefaultDrain
	}
	srv := &http.Server{
		Handler:           cfg.Handler,
		TLSConfig:         cfg.TLS,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       cfg.BodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	ln = netutil.LimitListener(ln, maxConns)
	if cfg.Server != nil {
		ln, srv.Handler, srv.ConnContext = cfg.Server.Listener(ln), cfg.Server.Handler(cfg.Handler), cfg.Server.ConnContext
	}
	done := make(chan error, 1)
	go func() {
		if cfg.TLS != nil && cfg.Server == nil {
			done <- srv.ServeTLS(ln, "", "")
			return
		}
		done <- srv.Serve(ln)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := srv.Shutdown(stop)
	if err != nil {
		err = errors.Join(err, srv.Close())
	}
	if served := <-done; !errors.Is(served, http.ErrServerClosed) { // that one says Shutdown was called
		err = errors.Join(err, served)
	}
	return err
}

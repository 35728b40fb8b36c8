// Package exportercmd is the command exporter: it serves what an audit of its targets finds, at any
// time, by package audit/exporter.
//
// Invariants:
//
//   - Whoever is not on this machine needs TLS and a certificate, unless --allow-cleartext is given
//     (TestScript/exporter).
//   - A page of a stranger in a browser of this machine reads nothing (TestExporterHangup).
//   - SIGHUP reads the configuration again (TestExporterHangup).
package exportercmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/exporter"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/prom"
)

const (
	flagConfig    = "config"
	flagCheck     = "check"
	flagAllow     = "allow"
	flagCleartext = "allow-cleartext"

	defaultConfig = "/etc/artstore-pki/exporter.yaml"
	defaultListen = "127.0.0.1:9879"

	// requestTimeout bounds the reading of one request, which has no body, and answerTimeout the wait
	// for an answer; each 64 KiB of it have a time of their own.
	requestTimeout = 30 * time.Second
	answerTimeout  = 2 * time.Minute
	// maxConns is far more than the Prometheus servers and people that look at one exporter.
	maxConns = 64
)

// statuses ends the help of exporter.
const statuses = `   0    stopped by SIGTERM or SIGINT, or with --check: the configuration can be used
   1    it failed, or the configuration cannot be used; a line for each fault says where
   2    the command line is wrong
   130  interrupted before it served
`

// OpenRecord opens the record of an authority, by its state directory or URL. The caller calls
// release when it was read.
type OpenRecord func(ctx context.Context, name string, cert *tls.Certificate, roots []*x509.Certificate) (record audit.Record, release func(), err error)

// Command returns the command exporter.
func Command(u *ui.UI, open OpenRecord) *cli.Command {
	return &cli.Command{
		Name:  "exporter",
		Usage: "audit continuously, for Prometheus and for people",
		Description: `Audits the files, servers and the record that the configuration names, like "artstore-pki audit",
and serves what it finds: /metrics for Prometheus, / is the page of audit -o html as of now,
/report.json the report, /healthz says whether all was looked at once. Files are read again when
they change, servers and the record by a schedule. SIGHUP reads the configuration again; one with
a fault changes nothing.

   artstore-pki exporter --config /etc/artstore-pki/exporter.yaml

On loopback it serves without TLS. Any other address wants a certificate, and clients with one of
the names of --allow:

   artstore-pki exporter --listen :9879 --allow prometheus --cert tls.crt --key tls.key --ca-cert ca.crt

docs/exporter.md has the configuration and the metrics.`,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: flagConfig, Value: defaultConfig, Usage: "configuration `FILE`"},
			&cli.BoolFlag{Name: flagCheck, Usage: "read the configuration and the files that it names, and end"},
			&cli.StringFlag{Name: flags.Listen, Value: defaultListen, Usage: "`HOST:PORT` to serve at; port 0 chooses a free one"},
			&cli.StringSliceFlag{Name: flagAllow, Usage: "`NAME` in a client certificate that may read, a DNS name or a SPIFFE ID; repeat for more"},
			&cli.BoolFlag{Name: flagCleartext, Usage: "let other machines read without TLS and without a check who they are"},
			&cli.StringFlag{Name: flags.ReadyFile, Usage: "`FILE` that gets the URL once the exporter listens"},
		}, identity.Flags(), u.LogFlags(slog.LevelInfo)),
		CustomHelpTemplate: help.Head + statuses,
		Action:             u.Action(func(u *ui.UI, c *cli.Context) error { return run(u, c, open) }),
	}
}

// gcPercent makes the garbage collector run more often than usual: each scrape makes as much garbage
// as the exporter keeps, and that would double its memory.
const gcPercent = 15

// run serves until its context ends. It reads the configuration and opens the listener before it
// looks at anything, so that a fault of them is said at once.
func run(u *ui.UI, c *cli.Context, open OpenRecord) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	path := c.String(flagConfig)
	if c.Bool(flagCheck) {
		if _, err := exporter.ReadConfig(path); err != nil {
			return err
		}
		u.Infof("exporter: %s can be used", path)
		return nil
	}
	if u.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	logger, registry := u.Logger(slog.LevelInfo), serving.NewRegistry()
	u.WarnOnce(fileperm.File(path, 0o644), "others can change what the exporter reads and where it connects to: "+path)
	e, err := exporter.New(exporter.Options{
		ConfigFile: path, Registry: registry, Program: "artstore-pki " + help.Version(), Logger: logger,
		Record: func(ctx context.Context, cfg *exporter.Config) (audit.Record, func(), error) {
			return open(ctx, cfg.Record, cfg.Certificate, cfg.Roots)
		},
	})
	if err != nil {
		return err
	}
	at, err := listen(u, c, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.shut()) }()
	if at.id != nil {
		registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{c.Command.Name: at.id}))
	}
	return serve(u, c, e, at)
}

// serve runs the exporter with its listener.
func serve(u *ui.UI, c *cli.Context, e *exporter.Exporter, at *listener) error {
	logger := u.Logger(slog.LevelInfo)
	group, ctx, stop := serving.NewGroup(c.Context)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before it is announced: a SIGHUP that nothing receives ends the process
	defer signal.Stop(hangup)
	cfg := httpserver.Config{
		Handler: at.guard(e.Handler()), BodyTimeout: requestTimeout, WriteTimeout: answerTimeout, Logger: logger,
		Conns: func() httpserver.Conns { return httpserver.Conns{Total: maxConns} },
	}
	if at.server != nil { // a nil pointer in the interface would not be nil
		cfg.Server = at.server
	}
	ln := at.Listener
	at.Listener = nil // Serve closes it
	group.Go(func() error { return httpserver.Serve(ctx, ln, cfg) })
	group.Go(func() error { return e.Run(ctx) })
	group.Go(func() error { return reloadOn(ctx, hangup, e) })
	if err := serving.Announce(u, c, "exporter", at.url); err != nil {
		return err
	}
	group.Go(func() error { return serving.Notify(ctx, logger, e.Ready) })
	if err := group.Wait(); err != nil {
		return err
	}
	u.Infof("exporter: stopped")
	return nil
}

// reloadOn reads the configuration at each signal until ctx ends. The exporter logs how that went.
func reloadOn(ctx context.Context, hangup <-chan os.Signal, e *exporter.Exporter) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			_ = e.Reload(ctx) // it is in the log and in a metric
		}
	}
}

// listener is where the exporter is read: over mutual TLS, or on loopback in cleartext.
type listener struct {
	net.Listener
	url       string
	id        *rotation.Identity // nil in cleartext
	server    *rotation.Server
	anyClient bool // in cleartext for other machines
}

// listen opens the listener of the flags, and the identity if there is one.
func listen(u *ui.UI, c *cli.Context, logger *slog.Logger) (l *listener, err error) {
	secured := c.String("cert") != "" || c.String(flags.CAURL) != ""
	allow := c.StringSlice(flagAllow)
	switch {
	case secured && len(allow) == 0:
		return nil, ui.WithHint(ui.UsageErrorf("missing --%s: the names of the clients that may read", flagAllow), "with a certificate, the exporter answers clients with one of these names and nobody else")
	case !secured && len(allow) > 0:
		return nil, ui.UsageErrorf("--%s wants a certificate for the exporter: --cert, or --%s", flagAllow, flags.CAURL)
	}
	ln, err := serving.Listen(c, flags.Listen, c.String(flags.Listen))
	if err != nil {
		return nil, err
	}
	l = &listener{Listener: ln, url: serving.URL(ln), anyClient: c.Bool(flagCleartext)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.shut())
		}
	}()
	if !secured {
		l.url = "http" + l.url[len("https"):]
		if at, ok := ln.Addr().(*net.TCPAddr); !l.anyClient && (!ok || !at.IP.IsLoopback()) {
			return l, ui.WithHint(ui.UsageErrorf("--%s %s: others can reach it, and there is no TLS", flags.Listen, c.String(flags.Listen)),
				"give --cert, --key and --ca-cert with --%s, or use an address of loopback; --%s is for networks in which everybody may read what was found", flagAllow, flagCleartext)
		}
		return l, nil
	}
	if l.id, err = identity.OfFlags(u, c, logger); err != nil {
		return l, err
	}
	l.server, err = l.id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(allow...)})
	return l, err
}

// shut closes what is open.
func (l *listener) shut() (err error) {
	if l.Listener != nil {
		err = l.Close()
	}
	if l.id != nil {
		err = errors.Join(err, l.id.Close())
	}
	return err
}

// guard refuses requests in cleartext that name another host than this machine: a page of a
// stranger may let the name of its server lead to loopback, and would then read the answer.
func (l *listener) guard(next http.Handler) http.Handler {
	if l.server != nil || l.anyClient {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this address is for this machine: want localhost or an address of loopback as host", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

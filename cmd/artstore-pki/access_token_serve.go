package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/tokensocket"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation"
)

// flagSocket is the flag of access-token serve for its socket.
const flagSocket = "socket"

// accessTokenServeCommand declares access-token serve. Its --ready-file is not the shared
// flag, because it gets the path of a socket and no URL.
func accessTokenServeCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "hand out the access token over a Unix socket",
		Description: `Keeps a token as upload and ingest do, renewed before it expires and when the certificate changes,
and answers GET /token on the socket with it, as JSON in the form of RFC 6749 section 5.1. POST
/token/reject with the form field token says that a server answered 401 to a token: the next GET
has another one. Whoever can open the socket has the token: it has mode 0600.

   artstore-pki access-token serve --socket /run/ingester/token.sock --config ingester.env
   curl --unix-socket /run/ingester/token.sock http://localhost/token

A socket that a killed process left is replaced; one that is served is not. SIGTERM ends it.
docs/access-token.md shows how programs use it.`,
		Flags: slices.Concat(uploads.Flags(), u.LogFlags(slog.LevelInfo), serving.MetricsFlags("; meant for loopback"), []cli.Flag{
			&cli.StringFlag{Name: flagSocket, Required: true, Usage: "`PATH` of the socket, in a directory that only its users can enter"},
			values.GroupFlag(),
			&cli.StringFlag{Name: flags.ReadyFile, Usage: "`FILE` that gets the path of the socket once the service answers"},
		}),
		CustomHelpTemplate: help.Head + uploads.Statuses + "\n",
		Action:             u.Action(runAccessTokenServe),
	}
}

// runAccessTokenServe keeps a token fresh and hands it out over a Unix socket until its
// context ends. It checks the settings, and gets its certificate, before it
// touches the socket: a start that fails leaves the socket of a running process alone.
//
// It warns if others could replace the socket, and refuses a socket that another process
// serves (unixsocket.ErrBusy). The mode of the socket decides who may ask. A socket that a
// killed process left is replaced at the next start.
//
// Readiness means that a token could be handed out now, so that a fault of the token
// endpoint is seen before a program asks.
func runAccessTokenServe(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	socket := unixsocket.Socket{Path: c.String(flagSocket), Group: values.GroupOf(c)}
	d, err := uploads.OpenDaemon(u, c, "access-token")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close(c.Context)) }()
	metrics := newTokenMetrics(d.Served.Registry)
	d.Served.Ready = tokenReady(d.Client, d.Identity)
	ln, err := serving.Socket(u, c, flagSocket, socket)
	if err != nil {
		return err
	}
	group, ctx, stop := serving.NewGroup(c.Context)
	defer stop()
	if err := d.Served.Start(ctx, c, group); err != nil {
		return errors.Join(err, ln.Close())
	}
	group.Go(func() error {
		return tokensocket.Serve(ctx, ln, tokensocket.Config{Client: d.Client, Observer: metrics.asked, Logger: d.Config.Logger})
	})
	if err := serving.Announce(u, c, "access-token", socket.Path); err != nil {
		return err
	}
	group.Go(func() error { return serving.Notify(ctx, d.Config.Logger, d.Served.Ready) })
	if err := group.Wait(); err != nil {
		return err
	}
	u.Infof("access-token: stopped")
	return nil
}

// tokenReady returns a function that reports why no token could be handed out now, or nil. It
// asks the client, which answers from its cache as long as the token is fresh, and the
// identity, which is nil without TLS.
func tokenReady(client *ingestclient.Client, id *rotation.Identity) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := client.AccessToken(ctx)
		if id != nil {
			err = errors.Join(err, id.Check())
		}
		return err
	}
}

// tokenMetrics counts the requests on the socket. The metrics of the client count those to the
// token endpoint.
type tokenMetrics struct{ socket *prometheus.CounterVec }

// newTokenMetrics returns metrics that registry shows. It panics if registry has them already.
func newTokenMetrics(registry prometheus.Registerer) tokenMetrics {
	m := tokenMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "artstore_access_token_requests_total",
		Help: "Requests on the socket, by outcome: served, failed, rejected, late, limited.",
	}, []string{"outcome"})}
	registry.MustRegister(m.socket)
	return m
}

// asked counts one request. outcome is one of the words in the text of the metric.
func (m tokenMetrics) asked(outcome string) { m.socket.WithLabelValues(outcome).Inc() }

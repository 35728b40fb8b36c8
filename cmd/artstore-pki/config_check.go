package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/settings"
	"github.com/artstore/artstore-pki/rotation"
)

// configCheckCommand declares config check.
func configCheckCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "check every setting and the certificate files; with --connect also the peers",
		Description: `Says everything that is wrong with the settings at once, and reaches nothing. With --connect it
gets a token and asks each Storage Element, over the certificate that uploads would use, whether
it would take a file with this token: is it ready, its mode and free space, a look-up of an id
that nobody has, an upload without a file. It stores nothing and prints one line for each: ok or
FAIL, what, and what to do about it. Without a token it asks the elements for readiness only.`,
		Flags: append(append(uploads.Flags(), u.LogFlags(slog.LevelError)...),
			&cli.BoolFlag{Name: "connect", Usage: "get a token, and reach each Storage Element over mutual TLS; stores nothing"},
		),
		CustomHelpTemplate: help.Head + uploads.Statuses + "\n",
		Action:             u.Action(runConfigCheck),
	}
}

// runConfigCheck checks the settings and the files that they name. All that is wrong with
// them is one error, with a line for each mistake and status 2. Without --connect it opens
// no connection, so that it can run where an image is built.
//
// With --connect it then asks each peer, and returns status 1 if one cannot be used. It
// stores nothing anywhere. Its lines go to stdout, because they are what was asked for.
func runConfigCheck(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	given, err := uploads.Read(u, c)
	if err != nil {
		return err
	}
	if err := u.Outf("ok    settings"); err != nil || !c.Bool("connect") {
		return err
	}
	return checkPeers(u, c, given)
}

// errPeers is the error after the lines that say FAIL.
var errPeers = errors.New("a peer cannot be used; the lines above say which and why")

// checkPeers asks the token endpoint for a token, and each Storage Element whether it would
// take a file with it, over one identity and without repetitions. It prints one line for
// each peer and returns errPeers if one failed. Faults do not end it: a machine with three
// mistakes should show three lines in one run.
//
// It sends no spans to a collector, because a check is not a part of the uploads.
func checkPeers(u *ui.UI, c *cli.Context, given *settings.Settings) (err error) {
	a, err := uploads.Open(u, c, uploads.Setup{Settings: given, Logger: u.Logger(slog.LevelError), Untraced: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close(c.Context)) }()
	failed := false
	report := func(what string, err error) {
		if err == nil {
			_ = u.Outf("ok    %s", what) // a broken pipe shows at the last line
			return
		}
		failed = true
		line := fmt.Sprintf("FAIL  %s: %s", what, strings.ReplaceAll(err.Error(), "\n", ": "))
		if hint := hints.For(err); hint != "" {
			line += "; " + hint
		}
		_ = u.Outf("%s", line)
	}
	a.Config.MaxAttempts = 1
	client, err := a.NewClient(a.Config)
	if err != nil {
		return err
	}
	_, noToken := client.AccessToken(c.Context)
	report("token from "+given.Token.URL, noToken)
	ask := client.Probe
	if noToken != nil { // without a token an element can still say whether it is ready
		ask = func(ctx context.Context, url string) error {
			return askReady(ctx, uploads.ForElement(a.Config, url), a.Identity)
		}
	}
	for _, url := range given.Storage.URLs {
		report("Storage Element "+url, ask(c.Context, url))
	}
	if failed {
		return errPeers
	}
	return nil
}

// askReady asks the first element of cfg for /health/ready without a token, as a probe of an
// orchestrator does. It returns nil for status 200. The error of a peer that is not reached
// matches ingestclient.ErrConnection, for which there is advice.
func askReady(ctx context.Context, cfg ingestclient.Config, id *rotation.Identity) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.ResponseTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(cfg.Elements[0].URL, "/")+"/health/ready", nil)
	if err != nil {
		return err
	}
	resp, err := probe(cfg, id, req)
	if err != nil {
		return fmt.Errorf("%w: %w", ingestclient.ErrConnection, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or not: nothing is sent after it
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, healthAnswer)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d from /health/ready: it is reached, and not ready", resp.StatusCode)
	}
	return nil
}

// probe sends one request as uploads would: over the identity and the trust of the settings,
// or in cleartext. Cleartext was permitted by a setting that names it, else the settings
// would have been refused. It follows no redirect.
func probe(cfg ingestclient.Config, id *rotation.Identity, req *http.Request) (*http.Response, error) {
	if id == nil || req.URL.Scheme == "http" {
		return (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	}
	transport, err := id.Transport(rotation.TransportOptions{MinVersion: cfg.MinVersion, CipherSuites: cfg.CipherSuites, Trust: cfg.StorageTrust, Proxy: cfg.StorageProxy})
	if err != nil {
		return nil, err
	}
	return transport.RoundTrip(req)
}

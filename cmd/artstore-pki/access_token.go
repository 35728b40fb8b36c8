package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/internal/tokensocket"
)

// accessTokenCommand declares access-token, and access-token serve below it. Both take the
// settings of everything that uploads.
func accessTokenCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "access-token",
		Usage: "print an access token of the service account",
		Description: `Gets a token from the token endpoint, with the same settings as upload, and prints it and nothing
else. It is a secret, and where tokens are bound to certificates (RFC 8705) it works only on a
connection with the certificate that it was fetched with. With --json: one object with
access_token, token_type and expires_in in seconds, as in RFC 6749 section 5.1, and for a bound
token cnf, which names the certificate. docs/access-token.md has the rest.

   artstore-pki access-token --config ingester.env

Each call asks the endpoint. A program that needs tokens all the time asks access-token serve.`,
		Flags: append(append(uploads.Flags(), u.LogFlags(slog.LevelWarn)...),
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object with the token, its type and the seconds that it may be used"},
		),
		CustomHelpTemplate: help.Head + uploads.Statuses + "\n",
		Action:             u.Action(runAccessToken),
		Subcommands:        []*cli.Command{accessTokenServeCommand(u)},
	}
}

// runAccessToken asks the token endpoint for a token and prints it on stdout, alone or with
// --json as an object of RFC 6749 §5.1. Nothing is kept: the next call asks again, and a
// token that was printed stays good until it expires.
//
// ingestclient decides what a good answer is. A token that is bound to a certificate
// (RFC 8705 §3.1) is of use only to a program that has the key of that certificate.
func runAccessToken(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	given, err := uploads.Read(u, c)
	if err != nil {
		return err
	}
	a, err := uploads.Open(u, c, uploads.Setup{Settings: given, Logger: u.Logger(slog.LevelWarn)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close(c.Context)) }()
	client, err := a.NewClient(a.Config)
	if err != nil {
		return err
	}
	token, err := client.AccessToken(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(u.Out).Encode(tokensocket.NewAnswer(token, time.Now())) //nolint:gosec // G117: to print it is what the command is for
	}
	return u.Outf("%s", token.Value.Expose())
}

//go:build !agent

package main

import (
	"context"
	"crypto/x509"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/cacmd"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/dev"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/secret"
)

// This file is what the whole program has and the build without the authority has not.
// commands_agent.go has the same functions for that build.

// buildName follows the version, and buildNote ends the page that --help of the program prints:
// nothing is left out.
const (
	buildName = ""
	buildNote = ""
)

// authorityCommands returns the commands of the authority, and those that start one.
func authorityCommands(u *ui.UI) []*cli.Command {
	return slices.Concat([]*cli.Command{dev.Demo(u)}, cacmd.Commands(u), []*cli.Command{dev.Command(u)})
}

// mintToken returns a token that is signed here.
func mintToken(u *ui.UI, c *cli.Context, service string, names []string) (secret.String, error) {
	return cacmd.MintToken(u, c, service, names)
}

// activeRoot returns the root that signs now, from a state directory.
func activeRoot(dir string) (*x509.Certificate, error) { return cacmd.ActiveRoot(dir) }

// localRecord returns the record in a state directory as the source of an audit.
func localRecord(ctx context.Context, dir, flag string, now time.Time) (audit.Record, func(), error) {
	return records.Local(ctx, dir, flag, now)
}

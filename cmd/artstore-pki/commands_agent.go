//go:build agent

package main

import (
	"context"
	"crypto/x509"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/secret"
)

// This file is the build without the authority, in place of commands_authority.go.

// buildName follows the version, and buildNote ends the page that --help of the program prints.
const (
	buildName = " (without the authority)"
	buildNote = `
This build has no authority. The program on the authority's machine also has:
   ` + commandsLeftOut + "\n"
)

// commandsLeftOut has the names of the commands that this build has not.
const commandsLeftOut = "demo init serve dashboard revoke list show root intermediate renewal migrate backup restore " +
	"doctor password enrolment-key prune log acme record dev"

// hintWhole is the advice for what this build cannot do.
const hintWhole = "the program on the authority's machine has all commands; it is built without -tags agent"

// noAuthority returns the error for something that needs the packages of the authority.
func noAuthority(what string) error {
	return ui.WithHint(ui.UsageErrorf("this build has no authority: %s", what), hintWhole)
}

// authorityCommands returns a hidden command for each that is left out, which says so.
func authorityCommands(*ui.UI) (out []*cli.Command) {
	for name := range strings.FieldsSeq(commandsLeftOut) {
		out = append(out, &cli.Command{
			Name: name, Usage: "not in this build", Hidden: true, SkipFlagParsing: true,
			Action: func(*cli.Context) error { return noAuthority(name + " is a command of the whole program") },
		})
	}
	return out
}

func mintToken(*ui.UI, *cli.Context, string, []string) (secret.String, error) {
	return secret.String{}, noAuthority("a token is asked for with --cert")
}

func activeRoot(string) (*x509.Certificate, error) {
	return nil, noAuthority("the fingerprint of a root is that of a FILE, or of the DIR of an identity")
}

func localRecord(context.Context, string, string, time.Time) (audit.Record, func(), error) {
	return audit.Record{}, nil, noAuthority("--record is the URL of a running authority")
}

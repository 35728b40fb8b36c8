package main

import (
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/printable"
)

func inspectCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      cmdInspect,
		Usage:     "explain the certificates in a file, in a directory or of a server",
		ArgsUsage: "FILE|DIR|HOST:PORT|URL",
		Description: `Prints for each certificate: who, until when, when it is renewed and why then, its key and
whether that fits, its chain drawn up to the root, and what is wrong with it. Chains are
judged by --ca-cert; without it, by the nearest ca.crt beside or above a file. Besides what audit
reads it explains certificate requests, revocation lists, and tokens, of which it shows claims only.`,
		Flags:              judgeFlags(outputText, outputJSON),
		CustomHelpTemplate: commandHelpHead + statusesInspect + "\n",
		Action:             u.runInspect,
	}
}

const cmdInspect = "inspect"

const statusesInspect = `   0    explained, and nothing critical found
   1    something could not be checked; the output says why
   2    the command line is wrong
   3    explained, with a critical finding
   130  interrupted`

func (u *ui) runInspect(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	format := c.String(flagOutput)
	if format != outputText && format != outputJSON {
		return usagef("--%s %q: want %s or %s", flagOutput, printable.Clean(format), outputText, outputJSON)
	}
	summary, err := u.look(c, format, "")
	if err != nil {
		return err
	}
	return conclude(summary, audit.Crit)
}

package main

import (
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

func inspectCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      cmdInspect,
		Usage:     "explain the certificates in a file, in a directory or of a server",
		ArgsUsage: "FILE|DIR|HOST:PORT|URL",
		Description: `Prints for each certificate: who, until when, when it is renewed and why then, its key and
whether that fits, its chain drawn up to the root, and what is wrong with it. Chains are
judged by --ca-cert; without it, by the nearest ca.crt, ca.pem or root_ca.crt beside a file or
above it, up to what was named. Besides what audit reads it explains certificate requests, revocation lists, and tokens, of which it shows claims only.
--pem prints the certificates themselves, a leaf and behind it what came with it.`,
		Flags: append(judgeFlags(outputText, outputJSON, outputPEM),
			&cli.BoolFlag{Name: outputJSON, Usage: "the same as -o json"},
			&cli.BoolFlag{Name: outputPEM, Usage: "the same as -o pem"}),
		CustomHelpTemplate: commandHelpHead + statusesInspect + "\n",
		Action:             u.Action(runInspect),
	}
}

const cmdInspect = "inspect"

const statusesInspect = `   0    explained, and nothing critical found
   1    something could not be checked; the output says why
   2    the command line is wrong
   3    explained, with a critical finding
   130  interrupted`

func runInspect(u *ui.UI, c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	format, err := inspectFormat(c)
	if err != nil {
		return err
	}
	summary, err := auditArguments(u, c, format)
	if err != nil {
		return err
	}
	return exitStatusFor(summary, audit.Crit)
}

func inspectFormat(c *cli.Context) (string, error) {
	switch asJSON, asPEM := c.Bool(outputJSON), c.Bool(outputPEM); {
	case asJSON && asPEM, (asJSON || asPEM) && c.IsSet(flagOutput):
		return "", ui.UsageErrorf("--%s, --%s and --%s exclude each other", outputJSON, outputPEM, flagOutput)
	case asJSON:
		return outputJSON, nil
	case asPEM:
		return outputPEM, nil
	}
	return outputOf(c, outputText, outputJSON, outputPEM)
}

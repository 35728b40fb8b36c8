package main

import (
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// inspectCommand declares inspect: an audit of one place that explains instead of counting.
// It shares the flags that say how to judge with audit.
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
		Flags: append(judgeFlags(output.Text, output.JSON, output.PEM),
			&cli.BoolFlag{Name: output.JSON, Usage: "the same as -o json"},
			&cli.BoolFlag{Name: output.PEM, Usage: "the same as -o pem"}),
		CustomHelpTemplate: help.Head + statusesInspect + "\n",
		Action:             u.Action(runInspect),
	}
}

// cmdInspect is the name of the command. The configuration of an audit asks for it, because
// inspect reads documents that audit leaves out.
const cmdInspect = "inspect"

// statusesInspect ends the help of inspect. Warnings are status 0 here: a person reads the
// output, and audit --fail-on warn is there for programs.
const statusesInspect = `   0    explained, and nothing critical found
   1    something could not be checked; the output says why
   2    the command line is wrong
   3    explained, with a critical finding
   130  interrupted`

// runInspect audits its one argument with a report for people, and returns status 3 for a
// critical finding, status 1 if something could not be checked.
func runInspect(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 1, 1); err != nil {
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

// inspectFormat returns the format of the report, from --output or from one of its two short
// forms, --json and --pem. More than one of the three is an error of the command line.
func inspectFormat(c *cli.Context) (string, error) {
	switch asJSON, asPEM := c.Bool(output.JSON), c.Bool(output.PEM); {
	case asJSON && asPEM, (asJSON || asPEM) && c.IsSet(output.Name):
		return "", ui.UsageErrorf("--%s, --%s and --%s exclude each other", output.JSON, output.PEM, output.Name)
	case asJSON:
		return output.JSON, nil
	case asPEM:
		return output.PEM, nil
	}
	return output.Of(c, output.Text, output.JSON, output.PEM)
}

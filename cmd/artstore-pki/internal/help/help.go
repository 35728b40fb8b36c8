// Package help explains the commands and reads the command line: the form of each help page, the
// order of options and arguments, and completion in shells. It stands around the library of the
// command line; docs/design/0028-what-the-command-line-library-costs.md says why.
//
// Invariants:
//
//   - Each help page names the commands below its own, and ends in the exit statuses
//     (TestEveryCommand).
//   - A command line that is wrong prints nothing on stdout and ends in status 2
//     (TestEveryCommand, TestMissingFlags).
//   - An option counts wherever it stands, before an argument or behind it
//     (TestFlagsAfterArguments).
//   - Each option is completed, and only with values that the command takes
//     (TestCompleteEverything).
package help

import (
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
)

// statusesPlain are the exit statuses of a command that has no others.
const statusesPlain = `   0    done
   1    it failed; the error says what and where
   2    the command line is wrong
   130  interrupted`

// App is the template of the page of the program itself.
const App = `{{.Name}} - {{.Usage}}

USAGE:
   {{.Name}} COMMAND [options] [arguments]

COMMANDS:{{range .VisibleCommands}}
   {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}

   {{.Name}} COMMAND --help explains one command.

EXIT STATUS:
` + statusesPlain + "\n"

// Head is the template of the page of a command, up to the exit statuses. They
// follow it, for a command that has more of them than the usual ones.
const Head = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}}{{if .VisibleFlags}} [options]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{if .Description}}
   {{wrap .Description 3}}
{{end}}{{if .VisibleCommands}}
COMMANDS:{{range .VisibleCommands}}
   {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}
{{end}}{{if .VisibleFlags}}
OPTIONS:{{range .VisibleFlags}}
   {{.}}{{end}}
{{end}}
EXIT STATUS:
`

// groupHelp is the template of a command that only holds others.
const groupHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}} COMMAND [options] [arguments]

COMMANDS:{{range .VisibleCommands}}
   {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}

EXIT STATUS:
` + statusesPlain + "\n"

// Finish completes a command and those below it: their help ends in the exit statuses, and a wrong
// flag is an error with status 2 on stderr, and no page of help on stdout.
func Finish(c *cli.Command) {
	c.OnUsageError = OnUsageError
	c.HideHelpCommand = true
	for _, sub := range c.Subcommands {
		Finish(sub)
	}
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.CustomHelpTemplate = groupHelp
		c.Action = NoCommand
		return
	}
	if c.CustomHelpTemplate == "" {
		c.CustomHelpTemplate = Head + statusesPlain + "\n"
	}
	c.Description = strings.TrimSpace(c.Description)
	c.Action = afterRequired(c.Flags, c.Action)
}

// afterRequired returns do behind a check that all required flags are given. It takes the mark
// Required from the flags, because the library would answer a missing one with a page of help
// on stdout and status 1.
func afterRequired(list []cli.Flag, do cli.ActionFunc) cli.ActionFunc {
	var names []string
	for _, f := range list {
		switch f := f.(type) {
		case *cli.StringFlag:
			if f.Required {
				names, f.Required = append(names, f.Name), false
			}
		case *cli.StringSliceFlag:
			if f.Required {
				names, f.Required = append(names, f.Name), false
			}
		}
	}
	return func(c *cli.Context) error {
		for _, name := range names {
			if !c.IsSet(name) {
				return flags.SeeHelp(c, ui.UsageErrorf("missing --%s", name))
			}
		}
		return do(c)
	}
}

// IsGroup reports whether a command has commands below it and does nothing itself. Some, such as
// ingest, do both.
func IsGroup(c *cli.Command) bool { return c.CustomHelpTemplate == groupHelp }

// NoCommand is the action for a name that is no command, or no name at all: an error of the command
// line, with the nearest name as advice.
func NoCommand(c *cli.Context) error {
	name := c.Args().First()
	if name == "" {
		return flags.SeeHelp(c, ui.UsageErrorf("no command given"))
	}
	err := ui.UsageErrorf("unknown command %q", printable.Clean(name))
	if near := cli.SuggestCommand(c.App.Commands, name); near != "" {
		return ui.WithHint(err, "%s", strings.ToLower(near[:1])+near[1:]) // near is a sentence of the library
	}
	return flags.SeeHelp(c, err)
}

// Version returns the version of the module that the program was built from, as Go recorded it in
// the build, or "unknown" if it did not.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// OnUsageError makes an error of the library one of the command line.
func OnUsageError(c *cli.Context, err error, _ bool) error {
	return flags.SeeHelp(c, ui.UsageErrorf("%w", err))
}

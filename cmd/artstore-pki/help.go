package main

import (
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Exit statuses as each command's help ends in them.
const (
	statusesPlain = `   0    done
   1    it failed; the error says what and where
   2    the command line is wrong
   130  interrupted`
)

const appHelp = `{{.Name}} - {{.Usage}}

USAGE:
   {{.Name}} COMMAND [options] [arguments]

COMMANDS:{{range .VisibleCommands}}
   {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}

   {{.Name}} COMMAND --help explains one command.

EXIT STATUS:
` + statusesPlain + "\n"

const commandHelpHead = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}}{{if .VisibleFlags}} [options]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{if .Description}}
   {{wrap .Description 3}}
{{end}}{{if .VisibleFlags}}
OPTIONS:{{range .VisibleFlags}}
   {{.}}{{end}}
{{end}}
EXIT STATUS:
`

const groupHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}} COMMAND [options] [arguments]

COMMANDS:{{range .VisibleCommands}}
   {{join .Names ", "}}{{"\t"}}{{.Usage}}{{end}}

EXIT STATUS:
` + statusesPlain + "\n"

// finishCommand gives a command what all of them share: its help ends in the
// exit statuses, and a wrong flag is an error with status 2 on stderr, not a
// page of help on stdout.
func finishCommand(c *cli.Command) {
	c.OnUsageError = onUsageError
	c.HideHelpCommand = true
	for _, sub := range c.Subcommands {
		finishCommand(sub)
	}
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.CustomHelpTemplate = groupHelp
		c.Action = noCommand
		return
	}
	if c.CustomHelpTemplate == "" {
		c.CustomHelpTemplate = commandHelpHead + statusesPlain + "\n"
	}
	c.Description = strings.TrimSpace(c.Description)
	c.Action = afterRequired(c.Flags, c.Action)
}

// afterRequired looks for the flags that must be given before it does anything:
// the library answers a missing one with a page of help on stdout and status 1.
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

// isGroup reports whether a command does nothing but hold others. Some, such as
// ingest, have commands below them and do something themselves.
func isGroup(c *cli.Command) bool { return c.CustomHelpTemplate == groupHelp }

// noCommand answers a name that is no command (or none at all).
func noCommand(c *cli.Context) error {
	name := c.Args().First()
	if name == "" {
		return flags.SeeHelp(c, ui.UsageErrorf("no command given"))
	}
	err := ui.UsageErrorf("unknown command %q", printable.Clean(name))
	if near := cli.SuggestCommand(c.App.Commands, name); near != "" {
		return ui.WithHint(err, "%s", strings.ToLower(near[:1])+near[1:]) // the library's whole sentence
	}
	return flags.SeeHelp(c, err)
}

// usageLine is how the command in args is called.
func usageLine(app *cli.App, args []string) string {
	path, last, _ := commandPath(app, args)
	rest := "COMMAND [options] [arguments]"
	if last != nil && !isGroup(last) {
		rest = strings.TrimRight("[options] "+last.ArgsUsage, " ")
	}
	return strings.Join(append(path, rest), " ")
}

// commandPath finds the command that args call: the words that name it, the
// program's name first, the command, nil if there is none, and what follows.
func commandPath(app *cli.App, args []string) (path []string, last *cli.Command, rest []string) {
	path, rest = []string{app.Name}, args[min(1, len(args)):]
	commands := app.Commands
	for len(rest) > 0 {
		c := findCommand(commands, rest[0])
		if c == nil {
			break
		}
		path, last, commands, rest = append(path, rest[0]), c, c.Subcommands, rest[1:]
	}
	return path, last, rest
}

// version is the module's version, or the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

// flagsFirst moves options in front of positional arguments, because urfave/cli
// v2 silently takes every option after the first positional as another
// positional. "--" ends the options.
func flagsFirst(app *cli.App, args []string) ([]string, error) {
	path, last, rest := commandPath(app, args)
	if last == nil { // leave --help, --version and mistakes to the library
		return args, nil
	}
	options, positional, err := splitArgs(last.Flags, rest)
	if err != nil {
		return nil, ui.WithHint(err, "see %s --help", strings.Join(path, " "))
	}
	if len(options) > 0 && len(positional) > 0 {
		if below := findCommand(last.Subcommands, positional[0]); below != nil { // the library would run it, and lose the options
			return nil, ui.WithHint(ui.UsageErrorf("%s %s has options of its own: they go behind it", strings.Join(path, " "), below.Name), "see %s %s --help", strings.Join(path, " "), below.Name)
		}
	}
	out := append(append([]string{args[0]}, path[1:]...), options...)
	if len(positional) > 0 {
		out = append(append(out, "--"), positional...)
	}
	return out, nil
}

func splitArgs(flags []cli.Flag, args []string) (options, positional []string, err error) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return options, append(positional, args[i+1:]...), nil
		case len(a) < 2 || a[0] != '-':
			positional = append(positional, a)
			continue
		}
		name, _, inline := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if slices.Contains(cli.HelpFlag.Names(), name) { // the library takes arguments beside it for topics
			return []string{"--help"}, nil, nil
		}
		options = append(options, a)
		if name == flagExec && !inline { // a command of its own follows
			return options, append(positional, args[i+1:]...), nil
		}
		if inline || !takesValue(flags, name) {
			continue
		}
		if i++; i == len(args) {
			return nil, nil, ui.UsageErrorf("%s: flag needs an argument", printable.Clean(a))
		}
		options = append(options, args[i])
	}
	return options, positional, nil
}

func takesValue(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n != name {
				continue
			}
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false // unknown: the library says so
}

func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	return flags.SeeHelp(c, ui.UsageErrorf("%w", err))
}

const flagExec = "exec"

package help

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Exec is the flag that another command with its arguments follows. Words behind it are never
// taken for options of this program.
const Exec = "exec"

// UsageLine returns the form of the command that args call, for the last line of an error.
func UsageLine(app *cli.App, args []string) string {
	path, last, _ := CommandPath(app, args)
	rest := "COMMAND [options] [arguments]"
	if last != nil && !IsGroup(last) {
		rest = strings.TrimRight("[options] "+last.ArgsUsage, " ")
	}
	return strings.Join(append(path, rest), " ")
}

// CommandPath finds the command that args call: the words that name it, the
// program's name first, the command, nil if there is none, and what follows.
func CommandPath(app *cli.App, args []string) (path []string, last *cli.Command, rest []string) {
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

// FlagsFirst moves options in front of positional arguments, because urfave/cli
// v2 silently takes every option after the first positional as another
// positional. "--" ends the options.
func FlagsFirst(app *cli.App, args []string) ([]string, error) {
	path, last, rest := CommandPath(app, args)
	if last == nil { // leave --help, --version and mistakes to the library
		return args, nil
	}
	options, positional, err := SplitArgs(last.Flags, rest)
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

// SplitArgs tells the options of a command, with their values, from its
// arguments. Everything behind "--" is an argument. Where the command has the option
// [Exec], a "--" behind an argument stands for it. The error is one of the
// command line: the last option lacks its value.
func SplitArgs(flags []cli.Flag, args []string) (options, positional []string, err error) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--" && len(positional) > 0 && i+1 < len(args) && has(flags, Exec):
			return append(options, "--"+Exec), append(positional, args[i+1:]...), nil
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
		if name == Exec && !inline { // a command of its own follows
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

// takesValue reports whether the word behind the option of that name is its value. It is false
// for an option that the command does not have; the library then reports the option.
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
	return false
}

// has reports whether a command has the option of that name.
func has(flags []cli.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// findCommand returns the command of that name, or nil if there is none.
func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

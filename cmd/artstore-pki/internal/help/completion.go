package help

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/settings"
)

// completionScripts are the scripts of the shells, by the name of the shell. They ask the program
// itself what fits, so that they never offer a word that it does not take. The library's own
// completion reads os.Args, stops at options behind arguments and knows no values, and its script
// for fish is a list that is made once.
var completionScripts = map[string]string{
	"bash": `_artstore_pki() {
    COMPREPLY=()
    local found
    while IFS= read -r found; do
        COMPREPLY+=("$found")
    done < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _artstore_pki artstore-pki`,
	"zsh": `#compdef artstore-pki
_artstore_pki() {
    local -a found
    found=("${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n ${found[1]} ]]; then
        compadd -a found
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _artstore_pki ]]; then
    _artstore_pki "$@"
else
    compdef _artstore_pki artstore-pki
fi`,
	"fish": `function __artstore_pki_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    $program complete -- $words "$current" 2>/dev/null
end
complete -c artstore-pki -a '(__artstore_pki_complete)'`,
}

// Completer completes the command lines of a program. The program itself prints
// what fits, so that a script of a shell never offers what is not there.
type Completer struct {
	// App returns a program to look into; it is not run.
	App func() *cli.App
	// Choices are the values of options that take few, by the name of the option. Those of
	// settings, logs and formats are known without it.
	Choices map[string][]string
}

// Scripts returns the command completion, which prints the script of a shell.
func (k Completer) Scripts(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes commands, options and their values",
		ArgsUsage: "bash|zsh|fish",
		Description: `bash: source <(artstore-pki completion bash)
zsh:  source <(artstore-pki completion zsh), behind compinit; or as _artstore-pki in a directory of fpath
fish: artstore-pki completion fish | source`,
		Action: func(c *cli.Context) error {
			if err := flags.WantArgs(c, 1, 1); err != nil {
				return err
			}
			script, known := completionScripts[c.Args().First()]
			if !known {
				return ui.UsageErrorf("shell %q: want bash, zsh or fish", c.Args().First())
			}
			_, err := u.Out.Write([]byte(script + "\n")) // Outf would make one line of it
			return err
		},
	}
}

// Callee returns the hidden command complete, which the scripts call.
func (k Completer) Callee(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "complete",
		Usage:     "print what can stand in place of the last word",
		ArgsUsage: "-- WORD...",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			for _, word := range k.Words(c.Args().Slice()) {
				if err := u.Outf("%s", word); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// Words returns the words that can stand in place of the last one. It returns nothing where a file
// or free text is expected, because the shell completes files itself.
func (k Completer) Words(words []string) (out []string) {
	app := k.App()
	if len(words) == 0 {
		return nil
	}
	before, current := words[:len(words)-1], words[len(words)-1]
	_, last, rest := CommandPath(app, append([]string{app.Name}, before...))
	switch {
	case last == nil && len(rest) == 0:
		out = commandNames(app.Commands)
	case last == nil:
		return nil
	case len(last.Subcommands) > 0 && len(rest) == 0 && !strings.HasPrefix(current, "-"):
		out = commandNames(last.Subcommands)
	default:
		out = k.options(last.Flags, rest, current)
	}
	return slices.DeleteFunc(out, func(word string) bool { return !strings.HasPrefix(word, current) })
}

// commandNames returns the names of the commands that are not hidden.
func commandNames(list []*cli.Command) (out []string) {
	for _, c := range list {
		if !c.Hidden {
			out = append(out, c.Name)
		}
	}
	return out
}

// options returns the values of the option that stands last in before, if there is one that takes a
// value, and else all options of the command. Behind "--" there are no options.
func (k Completer) options(flags []cli.Flag, before []string, current string) []string {
	if slices.Contains(before, "--") {
		return nil
	}
	if n := len(before); n > 0 && strings.HasPrefix(before[n-1], "-") && !strings.Contains(before[n-1], "=") {
		if name := strings.TrimLeft(before[n-1], "-"); takesValue(flags, name) {
			return k.values(flags, name)
		}
	}
	if !strings.HasPrefix(current, "-") {
		return nil
	}
	out := []string{"--help"}
	for _, f := range flags {
		out = append(out, "--"+f.Names()[0])
	}
	slices.Sort(out)
	return out
}

// values returns the values that an option takes, or nil if there are more than a few.
func (k Completer) values(flags []cli.Flag, name string) []string {
	for _, setting := range settings.Table() {
		if setting.Flag == name {
			return setting.Choices
		}
	}
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if choices, known := ui.LogChoices()[flags[i].Names()[0]]; known {
		return choices
	}
	if f, ok := flags[i].(*cli.StringFlag); ok && f.Name == output.Name {
		return strings.Split(f.Usage, ", ") // output.Flag writes it so
	}
	return k.Choices[flags[i].Names()[0]]
}

// Package output is the flag --output, which says in which form a command prints:
// its name, its formats and the one check of it.
package output

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Name is the name of the flag, without its dashes.
const Name = "output"

// The formats. Each command has some of them, and the first that it names is its default.
const (
	Table = "table"
	JSON  = "json"
	CSV   = "csv"
	Wide  = "wide"
	Text  = "text"
	PEM   = "pem"
)

// Flag returns --output with the formats of one command, the default first.
// The list of formats is the whole usage text: completion reads it from there.
func Flag(formats ...string) cli.Flag {
	return &cli.StringFlag{Name: Name, Aliases: []string{"o"}, Value: formats[0], Usage: strings.Join(formats, ", ")}
}

// Of returns the format that the command line names. One that is not
// among formats is an error of the command line, and is said before the command
// reads or changes anything.
func Of(c *cli.Context, formats ...string) (string, error) {
	format := c.String(Name)
	if slices.Contains(formats, format) {
		return format, nil
	}
	last := len(formats) - 1
	return "", ui.UsageErrorf("--%s %q: want %s or %s", Name, printable.Clean(format), strings.Join(formats[:last], ", "), formats[last])
}

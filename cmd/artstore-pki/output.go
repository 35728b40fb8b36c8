package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
)

// flagOutput is the name of the flag, without its dashes.
const flagOutput = "output"

// The formats. Each command has some of them, and the first that it names is its default.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputCSV   = "csv"
	outputWide  = "wide"
	outputText  = "text"
	outputPEM   = "pem"
)

// outputFlag returns --output with the formats of one command, the default first.
// The list of formats is the whole usage text: completion reads it from there.
func outputFlag(formats ...string) cli.Flag {
	return &cli.StringFlag{Name: flagOutput, Aliases: []string{"o"}, Value: formats[0], Usage: strings.Join(formats, ", ")}
}

// outputOf returns the format that the command line names. One that is not
// among formats is an error of the command line, and is said before the command
// reads or changes anything.
func outputOf(c *cli.Context, formats ...string) (string, error) {
	format := c.String(flagOutput)
	if slices.Contains(formats, format) {
		return format, nil
	}
	last := len(formats) - 1
	return "", ui.UsageErrorf("--%s %q: want %s or %s", flagOutput, printable.Clean(format), strings.Join(formats[:last], ", "), formats[last])
}

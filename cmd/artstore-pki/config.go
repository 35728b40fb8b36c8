package main

import (
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/internal/settings"
)

// configCommand declares config with its two commands: show prints the settings of everything
// that uploads, check says whether they work. internal/settings has the table of settings
// and decides which source of a value counts.
func configCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:        "config",
		Usage:       "show and check the settings of everything that uploads",
		Subcommands: []*cli.Command{configShowCommand(u), configCheckCommand(u)},
	}
}

// configShowCommand declares config show and runs it. It prints all settings first and
// complains about them after that, with status 2: the command is for an operator who looks
// for a mistake, so a mistake must not hide the other settings.
func configShowCommand(u *ui.UI) *cli.Command {
	list := append(uploads.Flags(),
		&cli.BoolFlag{Name: "origin", Usage: "also print what set each: a flag, a variable, a line of the file, or the default"},
		&cli.BoolFlag{Name: "json", Usage: "print a JSON array instead"},
	)
	return &cli.Command{
		Name:  "show",
		Usage: "print every setting with its value",
		Description: `Prints each setting as it was given, secrets redacted, whatever else is wrong. A flag goes before
the environment, that before --config, that before the default. A value that is itself in a file
is printed as that file's path.`,
		Flags:              list,
		CustomHelpTemplate: help.Head + uploads.Statuses + "\n",
		Action: func(c *cli.Context) error {
			if err := flags.WantArgs(c, 0, 0); err != nil {
				return err
			}
			collected := uploads.Collect(u, c)
			if err := showSettings(u, c, collected.Lines()); err != nil {
				return err
			}
			if err := collected.Problems(); err != nil {
				return ui.UsageErrorf("%w", err)
			}
			return nil
		},
	}
}

// shownSetting is an element of config show --json.
type shownSetting struct {
	// Key is the name in a YAML file, and Variable that in the environment.
	Key      string `json:"key"`
	Variable string `json:"variable"`
	// Value is the text that was given, or a word in its place for a secret.
	Value string `json:"value"`
	// Origin is there with --origin only.
	Origin string `json:"origin,omitempty"`
}

// showSettings prints settings as they were given, as a table or with --json as an array.
// internal/settings redacts secrets: lines has no value of one.
func showSettings(u *ui.UI, c *cli.Context, lines []settings.Line) error {
	if c.Bool("json") {
		out := make([]shownSetting, 0, len(lines))
		for _, l := range lines {
			shown := shownSetting{Key: l.Key, Variable: l.Variable, Value: l.Value}
			if c.Bool("origin") {
				shown.Origin = l.Origin
			}
			out = append(out, shown)
		}
		return u.JSON(out)
	}
	t := u.NewTable()
	for _, l := range lines {
		row := []string{l.Variable, l.Value}
		if c.Bool("origin") {
			row = append(row, l.Origin)
		}
		t.Row(row...)
	}
	return t.Flush()
}

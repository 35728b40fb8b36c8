package output_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// The first format is the default; one that the command does not have is an error
// of the command line that names those that it has.
func TestOf(t *testing.T) {
	formats := []string{output.Table, output.JSON, output.CSV}
	for _, c := range []struct{ args, want, err string }{
		{"", output.Table, ""},
		{"-o csv", output.CSV, ""},
		{"--output=json", output.JSON, ""},
		{"-o pem", "", `--output "pem": want table, json or csv`},
		{"-o \x1b[2J", "", `--output "\\u001b[2J": want`},
	} {
		var got string
		app := &cli.App{Flags: []cli.Flag{output.Flag(formats...)}, Action: func(ctx *cli.Context) (err error) {
			got, err = output.Of(ctx, formats...)
			return err
		}}
		err := app.Run(append([]string{"x"}, strings.Fields(c.args)...))
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%q: %q, %v", c.args, got, err)
		}
		if _, usage := errors.AsType[*ui.UsageError](err); err != nil && !usage {
			t.Errorf("%q: %v is no error of the command line", c.args, err)
		}
	}
}

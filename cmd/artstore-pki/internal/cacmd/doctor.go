package cacmd

import (
	"net/http"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// statusesDoctor ends the help of doctor. An error shares status 1 with all that can fail in
// any command. A warning is 3, so that a timer can tell the two apart.
const statusesDoctor = `   0    all is well
   1    something is wrong, or it could not be looked at
   2    the command line is wrong
   3    there are warnings
   130  interrupted`

// doctorCommand declares doctor. --log is no part of the default, because it reads the whole
// record.
func doctorCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look for what is wrong with an authority, and change nothing",
		Description: `Looks at the state directory and the record: configuration, permissions, chain, keys and their
password, where the root key is, integrity and schema of the database, the clock, and, if pki.yaml
has a crl_url, the list that is served there. It works beside a running authority. With --log it
also compares the record with its log; "artstore-pki log verify" says more about that.`,
		Flags: []cli.Flag{flags.Shared(flags.Dir), flags.Shared(flags.PasswordFile), output.Flag(output.Text, output.JSON),
			&cli.BoolFlag{Name: "log", Usage: "compare the whole record with its log"}},
		CustomHelpTemplate: help.Head + statusesDoctor + "\n",
		Action:             u.Action(runDoctor),
	}
}

// runDoctor prints the diagnoses of ca/doctor, good and bad ones, and changes nothing. It is
// the one command that opens a record without bringing its schema up to date. The exit
// status is that of the worst diagnosis: 1 for an error, 3 for a warning.
//
// The list that is served at crl_url is fetched without the proxy of the environment.
func runDoctor(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Text, output.JSON)
	if err != nil {
		return err
	}
	opt := doctor.Options{Dir: c.String(flags.Dir), Log: c.Bool("log"), Get: (&http.Transport{}).RoundTrip}
	opt.PasswordFile, opt.Password = flags.PasswordSource(u, c)
	list := doctor.Run(c.Context, opt)
	if err := writeDiagnoses(u, format, list); err != nil {
		return err
	}
	status := ui.ExitStatus(ui.ExitOK)
	for _, d := range list {
		switch d.Severity {
		case doctor.Error:
			return ui.ExitStatus(ui.ExitFailure)
		case doctor.Warning:
			status = ui.ExitFindings
		}
	}
	if status != ui.ExitOK {
		return status
	}
	return nil
}

// writeDiagnoses prints the diagnoses in the order in which they were made, as a table
// without a heading or as JSON.
func writeDiagnoses(u *ui.UI, format string, list []doctor.Diagnosis) error {
	if format == output.JSON {
		return u.JSON(map[string]any{"schema_version": 1, "diagnoses": list})
	}
	t := u.NewTable()
	for _, d := range list {
		t.Row(d.Severity, d.Check, d.Text)
	}
	return t.Flush()
}

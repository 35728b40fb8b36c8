package main

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/ingestclient/spool"
	"github.com/artstore/artstore-pki/internal/printable"
)

// resolveStatuses ends the help of ingest resolve.
const resolveStatuses = `   0    every file is decided; with --yes, and done
   1    it failed; the error says what and where
   2    the command line or a setting is wrong
   3    files stay where they are, because nobody can tell whether they are stored
   130  interrupted
`

// ingestResolveCommand declares ingest resolve. It takes the settings of uploads, but reads
// them with --auto only.
func ingestResolveCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "resolve",
		Usage:     "settle files that ingest put aside",
		ArgsUsage: "DIR [ID...]",
		Description: `Decides about the files in DIR/.artstore-ingest/ambiguous, or those whose IDs are given, and prints
one line for each: id, decision, name, and why. It changes nothing without --yes.

--auto asks each Storage Element for the file's checksum. A file that is there once, with its name
and size and from the time of the upload, is stored: it is deleted, moved or kept, as ingest was
told to. One that no element has, all of them having answered, is sent at the next start of ingest.
All else stays. --stored and --resend are your own word for it; with an ID they also settle a file
that was refused (failed). Stop ingest before: it has the directory.`,
		Flags: slices.Concat([]cli.Flag{
			&cli.BoolFlag{Name: "auto", Usage: "ask the elements"},
			&cli.BoolFlag{Name: "stored", Usage: "the files are stored: dispose of them"},
			&cli.BoolFlag{Name: "resend", Usage: "the files are not stored: send them at the next start of ingest"},
			&cli.BoolFlag{Name: "yes", Usage: "do it"},
			stateDirFlag(""),
			output.Flag(output.Text, output.JSON),
		}, uploads.Flags(), u.LogFlags(slog.LevelWarn)),
		CustomHelpTemplate: help.Head + resolveStatuses,
		Action:             u.Action(runIngestResolve),
	}
}

// runIngestResolve decides about files in quarantine, prints each decision, and with --yes acts
// on it. spool.Resolve decides and acts; it holds the lock of the directory, so a running
// ingest is an error. The operator gives the decision with --stored or --resend, or has the
// Storage Elements asked with --auto; exactly one of the three is given.
//
// Status 3 says that a file stays where it is, because nobody can tell whether it is stored
// (docs/design/0026-files-that-may-be-stored.md). After an error in the middle the decisions
// before it are printed, and done with --yes. Killed at any moment, a file is where it was or
// settled, and the command can be run again.
func runIngestResolve(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 1, -1); err != nil {
		return err
	}
	cfg := spool.ResolveConfig{Dir: c.Args().First(), StateDir: c.String(flagStateDir), IDs: c.Args().Tail(), Apply: c.Bool("yes")}
	words := 0
	// "" has spool.Resolve ask the elements.
	for flag, decision := range map[string]spool.Decision{"auto": "", "stored": spool.DecideStored, "resend": spool.DecideResend} {
		if c.Bool(flag) {
			words++
			cfg.Decision = decision
		}
	}
	if words != 1 {
		return ui.UsageErrorf("want one of --auto, --stored and --resend")
	}
	if cfg.Decision == "" {
		a, failed := openLister(u, c, &cfg)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, a.Close(c.Context)) }()
	}
	list, err := spool.Resolve(c.Context, cfg)
	if errors.Is(err, spool.ErrLocked) {
		return ui.WithHint(err, "stop that instance first: it has the directory")
	}
	if err != nil && len(list) == 0 {
		return err
	}
	if shown := showResolutions(u, c, list); shown != nil {
		return errors.Join(err, shown)
	}
	if err == nil && slices.ContainsFunc(list, func(r spool.Resolution) bool { return r.Decision == spool.DecideNothing }) {
		err = ui.ExitStatus(exitFailedFiles)
	}
	return err
}

// openLister opens a session of uploads and puts its client into cfg, for the lists of what
// each Storage Element has. Nothing is uploaded. The caller closes the session.
func openLister(u *ui.UI, c *cli.Context, cfg *spool.ResolveConfig) (*uploads.Session, error) {
	given, err := uploads.Read(u, c)
	if err != nil {
		return nil, err
	}
	a, err := uploads.Open(u, c, uploads.Setup{Settings: given, Logger: u.Logger(slog.LevelWarn)})
	if err != nil {
		return nil, err
	}
	client, err := a.NewClient(a.Config)
	if err != nil {
		return nil, errors.Join(err, a.Close(c.Context))
	}
	cfg.Lister = client
	return a, nil
}

// showResolutions prints the decisions on stdout, one a line or as a JSON array. On stderr it
// says if there was nothing to decide, or if decisions wait for --yes.
func showResolutions(u *ui.UI, c *cli.Context, list []spool.Resolution) error {
	if c.String(output.Name) == output.JSON {
		if list == nil {
			list = []spool.Resolution{} // a list in JSON, not null
		}
		return u.JSON(list)
	}
	open := 0
	for _, r := range list {
		if err := u.Outf("%s  %s  %s  (%s)", r.ID, r.Decision, printable.Clean(r.Name), printable.Clean(r.Why)); err != nil {
			return err
		}
		if r.Decision != spool.DecideNothing && !r.Done {
			open++
		}
	}
	switch {
	case len(list) == 0:
		u.Infof("ingest resolve: nothing to settle")
	case open > 0 && !c.Bool("yes"):
		u.Infof("ingest resolve: nothing was changed; --yes does it")
	}
	return nil
}

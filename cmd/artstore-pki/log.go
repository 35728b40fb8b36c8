package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
)

const statusesLog = `   0    the record is what was logged
   1    it could not be verified; the error says why
   2    the command line is wrong
   3    the record was changed, or the log was; the output says what
   130  interrupted`

func logCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "log",
		Usage: "show and verify the tamper-evident log of the record",
		Subcommands: []*cli.Command{
			logShowCommand(u),
			{
				Name:  "head",
				Usage: "print the newest signed head of the log",
				Description: `Prints the head as a signed note (c2sp.org/tlog-checkpoint); the key that checks it goes to stderr.
Keep both on another machine: "log verify --head FILE" shows later whether the log was rolled back.`,
				Flags:  []cli.Flag{flags.Shared(flags.Dir)},
				Action: u.Action(runLogHead),
			},
			{
				Name:  "verify",
				Usage: "compare the record with its log, and the log with heads kept elsewhere",
				Description: `Makes every entry again from the rows of the record and compares it with the log, and the log with
its signed head, and with the marker beside the keys. What differs is named: altered, backdated,
deleted, inserted or moved rows, entries that the log's key did not sign. With --head, the log must
begin with what that head signs; agents keep one as log.head beside their certificates. It works
beside a running authority, and with a record that the authority refuses because it was rolled back.`,
				Flags: []cli.Flag{
					flags.Shared(flags.Dir),
					&cli.StringSliceFlag{Name: "head", Usage: "a head that was kept elsewhere, in `FILE`; may be repeated"},
					output.Flag(output.Text, output.JSON),
				},
				CustomHelpTemplate: help.Head + statusesLog + "\n",
				Action:             u.Action(runLogVerify),
			},
		},
	}
}

// runLogHead prints the head as it was signed, and the key that checks it apart from it:
// kept in one place, both could be replaced together.
func runLogHead(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	dir := c.String(flags.Dir)
	record, err := records.Open(c.Context, dir, flags.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }() // read only
	head, err := record.LogHead(c.Context)
	if err != nil {
		return err
	}
	key, err := ca.StateDir(dir).LogVerifier()
	if err != nil {
		return err
	}
	if _, err := u.Out.Write(head); err != nil { // as it is: its signature counts
		return err
	}
	u.Infof("key: %s", key)
	return nil
}

// runLogVerify reads all heads that were kept before it opens the record.
func runLogVerify(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Text, output.JSON)
	if err != nil {
		return err
	}
	var opt ca.LogOptions
	for _, path := range c.StringSlice("head") {
		text, err := readHead(path)
		if err != nil {
			return err
		}
		opt.Heads = append(opt.Heads, text)
	}
	report, err := verifyLog(c.Context, u, c.String(flags.Dir), opt)
	if err != nil {
		return err
	}
	return writeLogReport(u, format, report, len(opt.Heads))
}

// readHead reads a kept head, and no more of a wrong file than a head has.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading a kept head: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(f, translog.MaxHead+1))
	if err != nil {
		return nil, fmt.Errorf("reading a kept head: %w", err)
	}
	if _, ok := translog.SizeOf(text); !ok {
		return nil, fmt.Errorf("reading a kept head: %s: not a signed head of a log", path)
	}
	return text, nil
}

// verifyLog keeps one line on a terminal that says how far it is, when it takes long.
func verifyLog(ctx context.Context, u *ui.UI, dir string, opt ca.LogOptions) (translog.Report, error) {
	width, ok := u.Terminal(u.Err)
	next, shown := time.Now().Add(progressAfter), false
	if ok {
		opt.Progress = func(done, total int64) {
			if now := time.Now(); now.After(next) {
				next, shown = now.Add(progressEvery), true
				line := runewidth.Truncate(fmt.Sprintf("%d of %d entries", done, total), width-1, "…")
				_, _ = io.WriteString(u.Err, eraseLine+line) // nobody is left to tell
			}
		}
	}
	report, err := ca.StateDir(dir).VerifyLog(ctx, opt)
	if shown {
		_, _ = io.WriteString(u.Err, eraseLine)
	}
	if err != nil {
		err = fmt.Errorf("opening the record in %s: %w", dir, err)
		if hinted := hints.Loss(err, dir); hinted != nil {
			return report, hinted
		}
	}
	return report, err
}

// writeLogReport prints each fault on stdout, and makes one the exit status 3.
func writeLogReport(u *ui.UI, format string, r translog.Report, kept int) error {
	if format == output.JSON {
		if r.Findings == nil {
			r.Findings = []translog.Finding{} // a list, not null
		}
		if err := u.JSON(map[string]any{"schema_version": 1, "log": r}); err != nil {
			return err
		}
	} else {
		for _, f := range r.Findings {
			if err := u.Outf("%s", findingLine(f)); err != nil {
				return err
			}
		}
	}
	bad := int64(len(r.Findings)) + r.More
	u.Infof("log: %d entries, head of %s; %d made again from their rows, %d pruned, %d waiting; %d kept heads compared; %d findings",
		r.Size, headTime(r.Head), r.Checked, r.Pruned, r.Pending, kept, bad)
	if bad > 0 {
		return ui.ExitStatus(exitFindings)
	}
	return nil
}

// headTime is when a head was signed; an empty log may have none.
func headTime(h translog.Head) string {
	if h.Time.IsZero() {
		return "no time"
	}
	return humantime.Stamp(h.Time)
}

// findingLine says what is wrong, with which entry, and what that one is about.
func findingLine(f translog.Finding) string {
	line := f.Fault
	if f.Index >= 0 {
		line += fmt.Sprintf(": entry %d", f.Index)
	}
	if f.Kind != "" {
		line += fmt.Sprintf(": %s %s", f.Kind, f.Service)
		if f.Serial != "" {
			line += " " + certs.HexSerial(f.Serial)
		}
		line += " at " + humantime.Stamp(f.At)
	}
	return line + ": " + f.Text
}

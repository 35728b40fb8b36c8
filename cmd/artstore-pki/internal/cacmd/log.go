package cacmd

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
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// statusesLog ends the help of log verify. Status 3 is for findings, so that a timer can
// tell a record that was changed from one that could not be opened.
const statusesLog = `   0    the record is what was logged
   1    it could not be verified; the error says why
   2    the command line is wrong
   3    the record was changed, or the log was; the output says what
   130  interrupted`

// logCommand declares log with its three commands: show prints events, head prints what
// another machine should keep, verify compares. docs/design/0010-the-log.md explains the
// log, which is a Merkle tree over all events (RFC 6962 §2.1).
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

// runLogHead prints the newest signed head on stdout, byte for byte as it was signed, and the
// key that checks it on stderr. They are apart so that a redirection keeps the head alone:
// a head and its key in one file could be replaced together. A record whose log has no head
// yet prints nothing. It needs no password and works beside a running authority.
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
	if _, err := u.Out.Write(head); err != nil { // not by Outf: the signature is of these bytes
		return err
	}
	u.Infof("key: %s", key)
	return nil
}

// runLogVerify compares the record with its log, and the log with the heads of --head. It
// reads these files before it opens the record, because a verification of a large record
// takes minutes and a wrong name should be said at once.
//
// ca.StateDir.VerifyLog decides what a finding is. It opens a record that an authority would refuse,
// since the operator wants to know what is wrong with it. It changes nothing, so an
// interrupted run leaves nothing. Findings are status 3, an error is status 1.
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

// readHead returns the text of a kept head. It reads at most one byte more than the longest
// head (translog.MaxHead), so that a wrong path to a large file costs nothing. The error
// says if the file is no head; whether the signature is good is for the verification.
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

// verifyLog returns the report of the verification. If stderr is a terminal and the verification
// takes longer than half a second, it keeps one line there that says how far it is, and
// erases the line at the end. Errors of a record that is lost carry advice.
func verifyLog(ctx context.Context, u *ui.UI, dir string, opt ca.LogOptions) (translog.Report, error) {
	width, ok := u.Terminal(u.Err)
	next, shown := time.Now().Add(ui.ProgressAfter), false
	if ok {
		opt.Progress = func(done, total int64) {
			if now := time.Now(); now.After(next) {
				next, shown = now.Add(ui.ProgressEvery), true
				line := runewidth.Truncate(fmt.Sprintf("%d of %d entries", done, total), width-1, "…")
				_, _ = io.WriteString(u.Err, ui.EraseLine+line) // a terminal that is gone must not end the verification
			}
		}
	}
	report, err := ca.StateDir(dir).VerifyLog(ctx, opt)
	if shown {
		_, _ = io.WriteString(u.Err, ui.EraseLine)
	}
	if err != nil {
		err = fmt.Errorf("opening the record in %s: %w", dir, err)
		if hinted := statehints.Loss(err, dir); hinted != nil {
			return report, hinted
		}
	}
	return report, err
}

// writeLogReport prints the findings on stdout and the numbers on stderr, and returns the
// exit status 3 as an error if there is a finding. kept is how many heads were compared.
// The report lists 1000 findings at most; the last number counts those beyond as well.
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
		return ui.ExitStatus(ui.ExitFindings)
	}
	return nil
}

// headTime returns when a head was signed, as text. An empty log may have no head, and so
// no time.
func headTime(h translog.Head) string {
	if h.Time.IsZero() {
		return "no time"
	}
	return humantime.Stamp(h.Time)
}

// findingLine returns one finding as a line: the fault, the entry, the event that the entry
// is about, and what is wrong. A finding can be about no entry (the index is -1), and about
// no event.
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

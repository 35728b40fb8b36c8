package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient/spool"
	spoolstatus "github.com/artstore/artstore-pki/ingestclient/spool/status"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// shownWaiting is how many files of a long queue the table lists; JSON has all.
const shownWaiting = 10

// ingestStatusCommand declares ingest status.
func ingestStatusCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "look at an ingested directory, whether or not ingest runs",
		ArgsUsage: "DIR",
		Description: `Reads files only and disturbs nothing. The table has what was put aside first, then what waits,
oldest first.`,
		Flags: []cli.Flag{
			output.Flag(output.Table, output.JSON),
			&cli.BoolFlag{Name: flagRecursive, Usage: "include sub-directories, as ingest was told to"},
			stateDirFlag(""),
		},
		Action: u.Action(runIngestStatus),
	}
}

// runIngestStatus prints the state of an ingested directory: what is in quarantine, what is
// claimed, what waits, and whether a process has the directory. It reads files only, needs
// no settings and no certificate, and works beside a running ingest, after a stopped one, and
// where there never was one. --recursive and --state-dir must be those that ingest was given.
func runIngestStatus(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return err
	}
	st, err := spool.ReadStatus(c.Context, spool.Config{Dir: c.Args().First(), StateDir: c.String(flagStateDir), Recursive: c.Bool(flagRecursive)})
	if err != nil {
		return err
	}
	if c.String(output.Name) == output.JSON {
		return u.JSON(st)
	}
	return ingestTable(u, st)
}

// ingestTable prints the report for people: one line about the process, one with the totals,
// and a table with at most shownWaiting files of each state, because a queue may have a
// million. Those that need a decision come first.
func ingestTable(u *ui.UI, st *spoolstatus.Report) error {
	if err := u.Outf("%s: %s", st.Dir, daemonText(st)); err != nil {
		return err
	}
	if err := u.Outf("waiting %d  claimed %d  failed %d  ambiguous %d", len(st.Waiting), len(st.Claimed), len(st.Failed), len(st.Ambiguous)); err != nil {
		return err
	}
	if len(st.Ambiguous)+len(st.Failed)+len(st.Claimed)+len(st.Waiting) == 0 {
		return nil
	}
	if err := u.Outf(""); err != nil {
		return err
	}
	t := u.NewTable("STATE", "ID", "SIZE", "MODIFIED", "NAME", "WHY")
	for _, part := range []struct {
		state string
		items []spoolstatus.Item
	}{{"ambiguous", st.Ambiguous}, {"failed", st.Failed}, {"claimed", st.Claimed}, {"waiting", st.Waiting}} {
		for _, it := range part.items[:min(len(part.items), shownWaiting)] {
			t.Row(part.state, it.ID, ui.Size(it.Size), humantime.Stamp(it.Modified), it.Name, it.Error)
		}
		if more := len(part.items) - shownWaiting; more > 0 {
			t.Row(part.state, "", "", "", fmt.Sprintf("and %d more", more))
		}
	}
	return t.Flush()
}

// daemonText returns whether a process has the directory, and since when none has. The lock
// decides, and not the last state that was written, because a killed process leaves its last
// state behind. The lock without a state of its own means that the process is starting.
func daemonText(st *spoolstatus.Report) string {
	switch {
	case st.Running && st.Last != nil && st.Last.State != "stopped":
		text := fmt.Sprintf("%s, process %d", st.Last.State, st.Last.PID)
		if st.Last.Reason != "" {
			text += fmt.Sprintf(" (%s: %s)", st.Last.Reason, strings.TrimSpace(printable.Clean(st.Last.Error)))
		}
		return text
	case st.Running:
		return "starting"
	case st.Last == nil:
		return "never ran"
	}
	return "not running since " + humantime.Stamp(st.Last.At)
}

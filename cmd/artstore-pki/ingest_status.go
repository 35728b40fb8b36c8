package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ingestclient/spool"
	"github.com/artstore/artstore-pki/internal/printable"
)

// shownWaiting is how many files of a long queue the table lists; JSON has all.
const shownWaiting = 10

func ingestStatusCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "look at an ingested directory, whether or not ingest runs",
		ArgsUsage: "DIR",
		Description: `Reads files only and disturbs nothing. The table has what was put aside first, then what waits,
oldest first.`,
		Flags: []cli.Flag{
			outputFlag(outputTable, outputJSON),
			&cli.BoolFlag{Name: flagRecursive, Usage: "include sub-directories, as ingest was told to"},
			stateDirFlag(""),
		},
		Action: u.runIngestStatus,
	}
}

func (u *ui) runIngestStatus(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	st, err := spool.ReadStatus(c.Context, spool.Config{Dir: c.Args().First(), StateDir: c.String(flagStateDir), Recursive: c.Bool(flagRecursive)})
	if err != nil {
		return err
	}
	if c.String(flagOutput) == outputJSON {
		return u.printJSON(st)
	}
	return u.ingestTable(st)
}

func (u *ui) ingestTable(st *spool.Status) error {
	if err := u.print("%s: %s", st.Dir, daemonText(st)); err != nil {
		return err
	}
	if err := u.print("waiting %d  claimed %d  failed %d  ambiguous %d", len(st.Waiting), len(st.Claimed), len(st.Failed), len(st.Ambiguous)); err != nil {
		return err
	}
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	rows := 0
	add := func(state string, list []spool.Item) error {
		for _, it := range list[:min(len(list), shownWaiting)] {
			if rows++; rows == 1 {
				_, _ = fmt.Fprintln(w, "\nSTATE\tID\tSIZE\tMODIFIED\tNAME\tWHY") // an error comes back from Flush
			}
			_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", state, it.ID, sizeText(it.Size),
				it.Modified.Local().Format(time.DateTime), printable.Clean(it.Name), printable.Clean(it.Error))
			if err != nil {
				return err
			}
		}
		if more := len(list) - shownWaiting; more > 0 {
			_, err := fmt.Fprintf(w, "%s\t\t\t\tand %d more\t\n", state, more)
			return err
		}
		return nil
	}
	return errors.Join(add("ambiguous", st.Ambiguous), add("failed", st.Failed), add("claimed", st.Claimed), add("waiting", st.Waiting), w.Flush())
}

func daemonText(st *spool.Status) string {
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
	return "not running since " + st.Last.At.Local().Format(time.DateTime)
}

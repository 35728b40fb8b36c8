package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit/compare"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// maxDiffText bounds what one line says of a name or a finding, in bytes.
const maxDiffText = 256

// statusesDiff ends the help of audit diff.
const statusesDiff = `   0    nothing is worse
   1    a place could not be read that could be read before, or a report could not be read
   2    the command line is wrong
   3    something is worse, or new, at or above --fail-on
   130  interrupted`

// auditDiffCommand declares audit diff. It is a command below audit, so a directory of that
// name is given to audit as ./diff.
func auditDiffCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "what appeared, vanished, got worse and got better between two reports",
		ArgsUsage: "OLD.json NEW.json",
		Description: `Compares two reports that audit -o json or -o ndjson wrote, and were not interrupted:

artstore-pki audit /etc/artstore -o json > today.json
artstore-pki audit diff yesterday.json today.json

A certificate that was replaced by its renewal is counted, and no change.`,
		Flags:              []cli.Flag{failOnFlag(), output.Flag(output.Table, output.JSON)},
		CustomHelpTemplate: help.Head + statusesDiff + "\n",
		Action:             u.Action(runAuditDiff),
	}
}

// runAuditDiff prints how a report differs from an earlier one. audit/compare decides what
// belongs together and what is worse. The status is 3 if something got worse or appeared
// with a finding from --fail-on up, else 1 if a place that could be read before cannot be
// read now. What vanished or got better is printed and is status 0.
//
// A report that is not complete is refused: what it lacks would seem to have vanished.
func runAuditDiff(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 2, 2); err != nil {
		return err
	}
	format, err := output.Of(c, output.Table, output.JSON)
	if err != nil {
		return err
	}
	least, err := failOn(c)
	if err != nil {
		return err
	}
	before, err := readReport(c.Args().Get(0))
	if err != nil {
		return err
	}
	now, err := readReport(c.Args().Get(1))
	if err != nil {
		return err
	}
	changes := compare.Diff(before, now)
	if err := printChanges(u, changes, format); err != nil {
		return err
	}
	switch worse, unread := changes.Count(least.String()); {
	case worse > 0:
		return ui.ExitStatus(ui.ExitFindings)
	case unread > 0:
		return ui.ExitStatus(ui.ExitFailure)
	}
	return nil
}

// readReport returns the report in a file, JSON or NDJSON. The error says how such a report is
// made.
func readReport(path string) (*compare.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading a report: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	r, err := compare.Read(f)
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("%s: %w", path, err), "audit -o json and -o ndjson write reports that can be compared")
	}
	return r, nil
}

// printChanges prints the changes and how many there are of each kind. Rows that did not
// change, and certificates that their renewals replaced, are counted and not listed.
func printChanges(u *ui.UI, changes *compare.Changes, format string) error {
	counts := map[string]int{"unchanged": changes.Same, "renewed": changes.Renewed}
	for _, kind := range []string{compare.Appeared, compare.Vanished, compare.Worse, compare.Better} {
		counts[kind] = changes.Of(kind)
	}
	if format == output.JSON {
		list := append([]compare.Change{}, changes.List...) // [], never null
		return u.JSON(map[string]any{"schema_version": 1, "changes": list, "summary": counts})
	}
	if err := changeTable(u, changes.List); err != nil {
		return err
	}
	return u.Outf("%d appeared, %d vanished, %d worse, %d better, %d unchanged; %d renewed",
		counts[compare.Appeared], counts[compare.Vanished], counts[compare.Worse], counts[compare.Better], counts["unchanged"], counts["renewed"])
}

// changeTable prints one row for each change, and below it what its findings say, one line
// each in the last column. It prints nothing without changes.
func changeTable(u *ui.UI, list []compare.Change) error {
	if len(list) == 0 {
		return nil
	}
	t := u.NewTable("CHANGE", "WAS", "IS", "NAME", "PLACE")
	for _, c := range list {
		place := diffText(c.Place)
		if c.Block > 1 {
			place = fmt.Sprintf("%s#%d", place, c.Block)
		}
		t.Row(c.Change, diffText(c.Was), diffText(c.Is), diffText(c.Name), place)
		for _, text := range c.Findings {
			t.Row("", "", "", "", diffText(text))
		}
		if len(c.Gone) > 0 {
			t.Row("", "", "", "", "no more: "+diffText(strings.Join(c.Gone, ", ")))
		}
	}
	return t.Flush()
}

// diffText returns a text of a report as a cell: cut to maxDiffText bytes, and "-" if it is
// empty. A report repeats what certificates and servers say, so a text can be of any length.
func diffText(s string) string {
	if len(s) > maxDiffText {
		s = strings.ToValidUTF8(s[:maxDiffText], "") + "…"
	}
	if s == "" {
		return "-"
	}
	return s
}

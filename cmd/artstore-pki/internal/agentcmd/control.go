package agentcmd

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// control returns the running agent that the flag names.
func control(c *cli.Context) agent.Control { return agent.Control{Socket: c.String(flagSocket)} }

// notRunning adds advice to the error of a socket that nobody serves.
func notRunning(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return ui.WithHint(err, "the agent is not running, or its configuration has another socket: name it with --socket")
	}
	return err
}

// runStatus prints a row for each identity: first what matters when something is wrong.
func runStatus(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	format, err := output.Of(c, output.Table, output.JSON)
	if err != nil {
		return err
	}
	st, err := control(c).Status(c.Context)
	if err != nil {
		return notRunning(err)
	}
	if format == output.JSON {
		return u.JSON(st)
	}
	t := u.NewTable("NAME", "SERVICE", "EXPIRES", "RENEWS", "DELIVERY", "PROBLEM")
	for _, i := range st.Identities {
		t.Row(i.Name, or(i.Service), stamp(i.NotAfter), stamp(i.NextRenewal), delivery(i.Delivery), or(i.Problem))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return printMore(u, st)
}

// printMore prints what is not of one identity alone: what the Workload API serves, and that a newer
// configuration is not in effect.
func printMore(u *ui.UI, st agent.Status) error {
	if w := st.Workload; w != nil {
		if err := u.Outf("\nWorkload API: %s, %d rules", w.Socket, w.Rules); err != nil {
			return err
		}
		t := u.NewTable("NAME", "SPIFFE ID", "PROBLEM")
		for _, i := range w.Identities {
			t.Row(i.Name, or(i.SPIFFEID), or(i.Problem))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if st.ConfigError == "" {
		return nil
	}
	return u.Outf("\nconfiguration: %s\nIn effect is what was read at %s.", st.ConfigError, stamp(st.ConfigReadAt))
}

// stamp returns a time for people, or a dash for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return humantime.Stamp(t)
}

// or returns text, or a dash for an empty cell.
func or(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// delivery says in one word whether the files are in use.
func delivery(d agent.DeliveryStatus) string {
	switch {
	case d.Alarm:
		return "alarm"
	case d.State == "delivered" && d.Proved:
		return "proved"
	}
	return d.State
}

// runRenew lets the agent renew one identity, and waits for the certificate, not for its delivery:
// a hook may take minutes.
func runRenew(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return err
	}
	if err := control(c).Renew(c.Context, c.Args().First()); err != nil {
		return notRunning(err)
	}
	u.Infof("%s: renewed", c.Args().First())
	return nil
}

// runCheck prints the problems of a running agent. Its status is 1 if there is one: the lines on
// stdout have said already what it stands for. Those of a configuration are an error as at a start.
func runCheck(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	if c.IsSet(flagConfig) {
		_, err := readConfig(u, c)
		return err
	}
	st, err := control(c).Status(c.Context)
	if err != nil {
		return notRunning(err)
	}
	for _, line := range st.Problems() {
		if err := u.Outf("%s", strings.ReplaceAll(line, "\n", "; ")); err != nil {
			return err
		}
	}
	if len(st.Problems()) > 0 {
		return ui.ExitStatus(ui.ExitFailure)
	}
	return nil
}

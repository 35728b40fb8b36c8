// Package agentcmd is the command agent: it keeps certificates for programs that are not ours, by
// package rotation/agent, and says how they are.
//
// It needs no authority in this program: it imports rotation, the part of audit that asks servers,
// and leaves.
//
// Invariants:
//
//   - A fault of the configuration is one line with the line of the file, and nothing is started
//     (TestConfigurationFaults).
//   - A reload takes the whole file or nothing of it, listeners included (TestReload,
//     TestReloadOfListeners).
//   - Programs get their SVIDs from the running agent, and only by a rule (TestWorkloadAPI).
//   - The service manager hears that the agent is ready after each identity was tried, and hears
//     of its watchdog only while the agent answers (TestNotify).
//   - Metrics have one series for each identity and kind, also before its first certificate
//     (TestMetrics).
package agentcmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit/served"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation/agent"
)

const (
	flagConfig = "config"
	flagSocket = "socket"
	flagOnce   = "once"

	defaultConfig = "/etc/artstore-pki/agent.yaml"
	defaultSocket = "/run/artstore-agent/agent.sock"
	envSocket     = "ARTSTORE_PKI_AGENT_SOCKET"
)

// statuses ends the help of agent.
const statuses = `   0    told to stop, or with --once: every certificate is valid, delivered and proved
   1    it could not start, or with --once: an identity failed; a line for each says why
   2    the command line is wrong
   130  interrupted before it had begun
`

// checkStatuses ends the help of agent check.
const checkStatuses = `   0    nothing has a problem
   1    something has, which the output names, or the agent does not answer
   2    the command line is wrong
   130  interrupted
`

// Command returns the command agent.
func Command(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "agent",
		Usage: "keep certificates for programs that are not ours, and prove that they use them",
		Description: `Gets and renews a certificate for each identity in the configuration, writes it in the formats that
the program reads, with the owner and mode that the operator has set, and replaces all files in one
step. Then it runs the hook, such as the reload of a unit, and connects to the program: if that does
not serve the new certificate, the hook runs again, and then there is an alarm in log, status and
metrics. Trust bundle and revoked lists are refreshed by themselves, with the hook.

   artstore-pki agent --config /etc/artstore-pki/agent.yaml

Programs that know SPIFFE can get their certificates over a Unix socket instead (workload_api in the
configuration). SIGHUP reads the configuration again: identities that have not changed go on, and
what is bad is reported and the old configuration stays. With --once the agent does what is due and
ends; it serves nothing then. docs/agent.md has the configuration.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: flagConfig, Value: defaultConfig, Usage: "configuration `FILE`"},
			&cli.BoolFlag{Name: flagOnce, Usage: "get, renew and deliver what is due, then end"},
		}, u.LogFlags(slog.LevelInfo)...),
		CustomHelpTemplate: help.Head + statuses,
		Action:             u.Action(run),
		Subcommands: []*cli.Command{
			{
				Name:  "status",
				Usage: "show the identities of a running agent",
				Description: `Asks the agent over its socket, as root or as the user that it runs as.

   artstore-pki agent status -o json`,
				Flags:  []cli.Flag{socketFlag(), output.Flag(output.Table, output.JSON)},
				Action: u.Action(runStatus),
			},
			{
				Name:      "renew",
				Usage:     "let a running agent renew an identity now",
				ArgsUsage: "NAME",
				Description: `Waits for the new certificate. The hook runs after that, and agent status says how it went.

   artstore-pki agent renew web`,
				Flags:  []cli.Flag{socketFlag()},
				Action: u.Action(runRenew),
			},
			{
				Name:  "check",
				Usage: "say what has a problem in a running agent, or in a configuration",
				Description: `For monitoring: it prints one line for each identity with a problem, and nothing if all is well. A
configuration that was not taken and identities that the Workload API cannot hand out count too.

   artstore-pki agent check

With --config it reads a configuration as the agent would, with its users, groups and rules, and asks
no agent: for an editor, and for a reload.

   artstore-pki agent check --config /etc/artstore-pki/agent.yaml`,
				Flags:              []cli.Flag{socketFlag(), &cli.StringFlag{Name: flagConfig, Usage: "configuration `FILE` to check, instead of a running agent"}},
				CustomHelpTemplate: help.Head + checkStatuses,
				Action:             u.Action(runCheck),
			},
		},
	}
}

// socketFlag returns --socket. Its value is that of socket: in the configuration, which the user
// of the command need not be able to read.
func socketFlag() cli.Flag {
	return &cli.StringFlag{Name: flagSocket, EnvVars: []string{envSocket}, Value: defaultSocket, Usage: "`PATH` of the agent's socket, as its configuration has it"}
}

// run runs the agent until its context ends, or with --once until what is due is done. It reads
// the configuration and makes the listeners before any identity begins, so that a fault of them
// leaves the files of all identities alone.
//
// A failure of an identity is no error of the agent: it is in the status, and the agent goes on
// with the others. With --once it is an error, because nobody asks for a status afterwards.
func run(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	cfg, err := readConfig(u, c)
	if err != nil {
		return err
	}
	a, err := agent.New(cfg, agent.Options{Served: ask, Logger: u.Logger(slog.LevelInfo)})
	if err != nil {
		return err
	}
	if c.Bool(flagOnce) {
		return a.Once(c.Context)
	}
	return serve(u, c, cfg, a)
}

// readConfig reads the configuration that the flag names.
func readConfig(u *ui.UI, c *cli.Context) (agent.Config, error) {
	cfg, err := agent.ReadConfig(c.String(flagConfig), served.Check)
	if err == nil {
		u.WarnOnce(fileperm.File(c.String(flagConfig), 0o644), "others can change what the agent runs and where it gets certificates: "+c.String(flagConfig))
	}
	return cfg, err
}

// gcPercent makes the garbage collector run more often than usual: the agent allocates little, and
// with many identities it would keep half of its memory for nothing. 200 of them take 42 MiB with
// 40, which is the bound of TestAgentFleet, and 39 MiB with 20.
const gcPercent = 20

// serve runs the agent with its listeners until the context of the command ends, which is no error.
// If a listener fails, everything ends with its error: a service manager then starts all anew.
func serve(u *ui.UI, c *cli.Context, cfg agent.Config, a *agent.Agent) error {
	if u.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before anything begins: a SIGHUP that nothing receives ends the process
	defer signal.Stop(hangup)
	group, ctx, stop := serving.NewGroup(c.Context)
	defer stop()
	r := &running{a: a, group: group, read: func() (agent.Config, error) { return readConfig(u, c) }, parts: map[string]*part{}}
	if err := r.listen(ctx, cfg); err != nil {
		return err
	}
	group.Go(func() error { return a.Run(ctx) })
	group.Go(func() error { return notify(ctx, u.Logger(slog.LevelInfo), a) })
	group.Go(func() error { return r.reloadOn(ctx, hangup) })
	u.Infof("agent: keeping %d identities", len(cfg.Identities))
	err := group.Wait()
	if c.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		u.Infof("agent: stopped")
		return nil
	}
	return err
}

// socketHint returns err with advice if another process serves the socket.
func socketHint(err error) error {
	if errors.Is(err, unixsocket.ErrBusy) {
		return ui.WithHint(err, "one agent serves a socket: stop the other one, or choose another path in the configuration")
	}
	return err
}

// ask asks a server for its certificate, as the command audit does. Whether the server was verified
// does not matter: the certificate is compared, byte for byte.
func ask(ctx context.Context, address string, config *tls.Config) (*x509.Certificate, error) {
	answer, err := served.Ask(ctx, address, config)
	return answer.Leaf, err
}

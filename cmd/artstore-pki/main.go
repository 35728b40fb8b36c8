// Command artstore-pki is a small internal certificate authority, the clients that keep
// its short-lived certificates fresh, an audit of certificates wherever they are, and a
// demonstration that all of this works together.
//
// This package has the commands of clients, one file for each; a command below another one
// has a file of its own as well, such as ingest_status.go. A file has a function that declares
// the command (issueCommand), with flags and help, a function that runs it (runIssue), and
// what this command alone needs. [clientCommands] lists them. A command of the authority has
// such a file in the package cacmd, and only commands_authority.go knows that package: with
// -tags agent it is left out, and commands_agent.go has its place. A command decides nothing about
// certificates: it reads the command line, calls the package that decides (ca, rotation,
// ingestclient, audit), and prints what that package returns.
//
// What several commands need is in the packages below this one:
//
//   - ui: streams, tables, logs, exit statuses, and the rules of output.
//   - flags, values, output: the flags that commands share, and the kinds of their values.
//   - help: the pages of help, the order of options and arguments, completion in shells.
//   - hints, statehints: the advice below an error, chosen by the kind of the error.
//   - credentials, identity, records: what a command shows to a server, the rotating
//     identity of a service, the record of an authority.
//   - serving, caserver, uploads, loadgen: what services and clients run on.
//   - cacmd, dev, agentcmd, exportercmd: the commands of the authority, those for developers, the agent
//     and the exporter.
//
// A command returns an error, and [ui.UI.Finish] alone makes the exit status of it. No
// error is 0, a [ui.UsageError] is 2, what [ui.Refused] returns is 3, the end of the context
// by a signal is 130, and any other error is 1. A [ui.ExitStatus] is itself the status: the output has said already
// what it stands for, so nothing more is printed.
//
// Invariants:
//
//   - The help of each command is on stdout and ends in its exit statuses. A command line
//     that is wrong prints nothing on stdout and ends in status 2 (TestEveryCommand,
//     TestMissingFlags).
//   - An option counts before an argument and behind it (TestFlagsAfterArguments).
//   - No output has a secret in it, except the one that a command is asked to print
//     (TestNoSecretInAnyOutput), and no command leaves a core dump (TestServeMakesNoCoreDump).
//   - Text of a certificate or of a file name cannot steer a terminal or a program that
//     reads a report (TestHostileSinks).
//   - docs/troubleshooting.md has each hint (TestHintsAreExplained), and each command line
//     in a hint or in a document is one of this program (TestDocsNameRealCommands).
//   - The build without the authority links none of its packages, says which commands it
//     leaves out, and is below 25 MB (TestBuildWithoutAuthority).
//   - Commands that serve or upload take --log-level and --log-format
//     (TestLongCommandsHaveLogFlags).
//   - An init that was killed leaves a whole authority, or a directory in which the next
//     init succeeds (TestInitSurvivesKill, TestInitCrashes).
//   - An ingest that was killed loses no file and stores none twice. Where the Storage
//     Element chooses the ids, a file can be ambiguous instead (TestIngestSurvivesKill,
//     TestIngestCrashMatrix).
package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/agentcmd"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/exportercmd"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/proxycmd"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/coredump"
)

func main() { os.Exit(realMain()) }

// realMain is main without os.Exit, which would skip the deferred calls. It returns the
// exit status. Nearly every command holds a key or a token, so core dumps are disabled
// for all of them; a system that refuses this gets a warning and not a failure, because
// the command works all the same.
//
// SIGINT and SIGTERM end the context of the command. A service then finishes the requests
// in flight, and a command that waits returns.
func realMain() int {
	std := ui.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Vars: os.Environ}
	if err := coredump.Disable(); err != nil {
		ui.New(std).Infof("warning: %v; a crash may write keys to the disk", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, std, os.Args)
}

// run is the whole program for one command line, args[0] being its name. It returns the
// exit status and never exits, and it reads no global state, so that tests can call it in
// their own process.
//
// Options are moved in front of the arguments first, because the library would take an
// option behind an argument for one more argument; docs/design/0028-what-the-command-line-library-costs.md
// lists this and its other habits. The usage line below an error is made from args as they
// were typed.
func run(ctx context.Context, std ui.Streams, args []string) int {
	u := ui.New(std)
	u.Hint = hints.For
	app := newApp(u)
	sorted, err := help.FlagsFirst(app, args)
	if err == nil {
		err = app.RunContext(ctx, sorted)
	}
	return u.Finish(ctx, err, help.UsageLine(app, args))
}

// newApp returns the program with all its commands, which print to u. Each run needs a new
// one, because the library stores parsed values in the flags. Completion makes another one,
// which it reads and does not run.
//
// The order of the commands is the order of the page that --help prints.
func newApp(u *ui.UI) *cli.App {
	complete := help.Completer{App: func() *cli.App { return newApp(u) }, Choices: auditChoices()}
	app := &cli.App{
		Name:                      "artstore-pki",
		Usage:                     "internal PKI that keeps working while everything under it rotates",
		Version:                   help.Version() + buildName,
		Writer:                    u.Out,
		ErrWriter:                 u.Err,
		Suggest:                   true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true, // paths and names may hold commas
		CustomAppHelpTemplate:     help.App + buildNote,
		ExitErrHandler:            func(*cli.Context, error) {}, // run maps errors to statuses
		OnUsageError:              help.OnUsageError,
		Commands: slices.Concat(authorityCommands(u), clientCommands(u), []*cli.Command{
			complete.Scripts(u),
			complete.Callee(u),
		}),
	}
	app.Action = help.NoCommand
	for _, c := range app.Commands {
		help.Finish(c)
	}
	return app
}

// clientCommands returns the commands that need nothing of the authority, in the order of the
// page that --help prints. Both builds have them.
func clientCommands(u *ui.UI) []*cli.Command {
	return []*cli.Command{
		tokenCommand(u),
		fingerprintCommand(u),
		issueCommand(u),
		renewCommand(u),
		agentcmd.Command(u),
		auditCommand(u),
		exportercmd.Command(u, recordForExporter),
		inspectCommand(u),
		uploadCommand(u),
		accessTokenCommand(u),
		configCommand(u),
		ingestCommand(u),
		proxycmd.Command(u),
		healthCommand(),
	}
}

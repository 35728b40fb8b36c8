// Command artstore-pki is a small internal certificate authority, the clients
// that keep its short-lived certificates fresh, and a demonstration that both
// work together. One file per command; main turns an error into an exit status.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/coredump"
)

func main() { os.Exit(realMain()) }

// realMain is main without the exit. Nearly every command holds a key or a token,
// so none of them can be dumped.
func realMain() int {
	std := ui.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Vars: os.Environ}
	if err := coredump.Disable(); err != nil {
		ui.New(std).Infof("warning: %v; a crash may write keys to the disk", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, std, os.Args)
}

// run is the whole program: it never exits and reads no global state, so that
// defers run and tests can call it.
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

// newApp makes the program anew: the library keeps in flags what it has parsed.
func newApp(u *ui.UI) *cli.App {
	complete := help.Completer{App: func() *cli.App { return newApp(u) }, Choices: auditChoices()}
	app := &cli.App{
		Name:                      "artstore-pki",
		Usage:                     "internal PKI that keeps working while everything under it rotates",
		Version:                   help.Version(),
		Writer:                    u.Out,
		ErrWriter:                 u.Err,
		Suggest:                   true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true, // paths and names may hold commas
		CustomAppHelpTemplate:     help.App,
		ExitErrHandler:            func(*cli.Context, error) {}, // run maps errors to statuses
		OnUsageError:              help.OnUsageError,
		Commands: []*cli.Command{
			demoCommand(u),
			initCommand(u),
			serveCommand(u),
			tokenCommand(u),
			fingerprintCommand(u),
			issueCommand(u),
			renewCommand(u),
			revokeCommand(u),
			listCommand(u),
			showCommand(u),
			migrateCommand(u),
			backupCommand(u),
			restoreCommand(u),
			doctorCommand(u),
			pruneCommand(u),
			logCommand(u),
			acmeCommand(u),
			recordCommand(u),
			auditCommand(u),
			inspectCommand(u),
			uploadCommand(u),
			accessTokenCommand(u),
			configCommand(u),
			ingestCommand(u),
			healthCommand(),
			devCommand(u),
			complete.Scripts(u),
			complete.Callee(u),
		},
	}
	app.Action = help.NoCommand
	for _, c := range app.Commands {
		help.Finish(c)
	}
	return app
}

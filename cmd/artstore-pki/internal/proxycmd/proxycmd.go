// Package proxycmd has the command proxy: mutual TLS for programs that cannot speak it.
//
//	proxycmd.Command(u)
//
// It reads the command line, opens the identity and the listeners, and lets package
// rotation/proxy do the rest. The two sides are two commands, because hardly a flag of one
// makes sense for the other: who may come in is asked of one, who is at the other end of the
// other.
//
// Invariants:
//
//   - A listener or a service in cleartext beyond this machine is an error of the command line,
//     unless --allow-cleartext is given (TestScript/proxy in cmd/artstore-pki).
//   - Everything that can be wrong with the command line is found before a certificate is
//     asked for and before anything listens (TestMistakes).
//   - Every figure of rotation/proxy is a metric (TestMetrics).
package proxycmd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// Flags of both sides.
const (
	flagTo         = "to"
	flagProtocol   = "protocol"
	flagCleartext  = "allow-cleartext"
	flagConns      = "max-connections"
	flagIdle       = "idle"
	flagConnect    = "connect-timeout"
	flagStop       = "stop-timeout"
	flagPerAddress = "max-connections-per-address"
)

// statuses ends the help of both sides.
const statuses = `   0    stopped by SIGTERM or SIGINT, and all connections had ended
   1    it failed, or connections were cut at the end; the error says what and where
   2    the command line is wrong
   130  interrupted before it served
`

// Command declares proxy with its two sides.
func Command(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:        "proxy",
		Usage:       "mutual TLS for programs that cannot speak it",
		Subcommands: []*cli.Command{serverCommand(u), clientCommand(u)},
	}
}

// sharedFlags returns the flags that both sides have: the identity, the log, the limits, and how
// to see that the proxy serves.
func sharedFlags(u *ui.UI) []cli.Flag {
	const limits = "limits"
	return slices.Concat(identity.Flags(), u.LogFlags(slog.LevelInfo), serving.MetricsFlags("; meant for loopback"), []cli.Flag{
		&cli.IntFlag{Name: flagConns, Category: limits, Value: 1024, Usage: "`NUMBER` of connections at a time; further ones wait"},
		values.DurationFlag(flagIdle, time.Hour, "`TIME` that a connection of TCP or WebSocket may be without a byte"),
		values.DurationFlag(flagConnect, 10*time.Second, "`TIME` to connect to --"+flagTo),
		values.DurationFlag(flagStop, 30*time.Second, "`TIME` that connections may go on after SIGTERM"),
		&cli.StringFlag{Name: flags.ReadyFile, Usage: "`FILE` that gets the address once the proxy listens"},
	})
}

// limits reads the limits. A flag that a side does not have is 0, which is the default.
func limits(c *cli.Context) proxy.Limits {
	return proxy.Limits{
		MaxConns: c.Int(flagConns), MaxConnsPerAddress: c.Int(flagPerAddress), Idle: values.DurationOf(c, flagIdle),
		Connect: values.DurationOf(c, flagConnect), Stop: values.DurationOf(c, flagStop),
	}
}

// addressOf returns the address that a flag names.
func addressOf(c *cli.Context, flag string) (proxy.Address, error) {
	a, err := proxy.ParseAddress(c.String(flag))
	if err != nil {
		return a, ui.UsageErrorf("--%s: %s", flag, printable.Clean(err.Error()))
	}
	return a, nil
}

// cleartext returns an error unless an address in cleartext is of this machine or may be of
// another one.
func cleartext(c *cli.Context, flag string, a proxy.Address) error {
	if c.Bool(flagCleartext) || a.OnThisMachine() {
		return nil
	}
	return ui.WithHint(ui.UsageErrorf("--%s %s: there is no TLS at this address, and others can reach it", flag, printable.Clean(a.String())),
		"use a Unix socket or an address of loopback; --allow-cleartext is for networks in which everybody may read and change everything")
}

// protocols are the values of --protocol.
var protocols = map[string]proxy.Protocol{"tcp": proxy.TCP, "http": proxy.HTTP, "h2c": proxy.H2C}

// protocolOf returns the value of --protocol, which must be one of the names.
func protocolOf(c *cli.Context, names ...string) (proxy.Protocol, error) {
	name := c.String(flagProtocol)
	if !slices.Contains(names, name) {
		return 0, ui.UsageErrorf("--%s %q: want %s", flagProtocol, printable.Clean(name), strings.Join(names, " or "))
	}
	return protocols[name], nil
}

// side is a server or a client of package proxy.
type side interface {
	Serve(ctx context.Context, ln net.Listener) error
	Ready(ctx context.Context) error
	Stats() proxy.Stats
}

// running is what one command serves.
type running struct {
	name string // in lines for people, such as "proxy server"
	id   *rotation.Identity
	side side
	// listen opens the listener. address is for people and for the ready file.
	listen func() (ln net.Listener, address string, err error)
}

// serve listens, announces itself and serves until the context of c ends. The metrics are
// served first, so that a busy port of theirs stops the start.
func (r running) serve(u *ui.UI, c *cli.Context) error {
	group, ctx, stop := serving.NewGroup(c.Context)
	defer stop()
	metrics := serving.ClientMetrics(c, "proxy", r.id)
	metrics.Registry.MustRegister(newCollector(r.side.Stats))
	metrics.Ready = r.side.Ready
	if err := metrics.Start(ctx, c, group); err != nil {
		return err
	}
	ln, address, err := r.listen()
	if err != nil {
		return err
	}
	group.Go(func() error { return r.side.Serve(ctx, ln) })
	if err := serving.Announce(u, c, r.name, address); err != nil {
		return err
	}
	group.Go(func() error { return serving.Notify(ctx, u.Logger(slog.LevelInfo), r.side.Ready) })
	if err := group.Wait(); err != nil {
		return err
	}
	u.Infof("%s: stopped", r.name)
	return nil
}

// closing closes the identity at the end of a command.
func closing(err *error, shut func() error) { *err = errors.Join(*err, shut()) }

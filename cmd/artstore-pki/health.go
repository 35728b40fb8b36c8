package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/printable"
)

const (
	healthAnswer = 1 << 10 // bytes of an answer that are shown: one line is expected
	healthWait   = 4 * time.Second
)

func healthCommand() *cli.Command {
	return &cli.Command{
		Name:      "health",
		Usage:     "ask a service on this machine whether it is ready",
		ArgsUsage: "URL",
		Description: `Gets URL, such as http://127.0.0.1:9090/readyz of a service's --metrics listener, and succeeds
if the answer is 200. Meant for health checks in images that hold nothing but this program.
Only cleartext http to loopback is asked: a check that skipped verification would prove
nothing, and one with a certificate would prove that the check has one.`,
		Flags: []cli.Flag{
			values.DurationFlag("timeout", healthWait, "wait for the whole answer"),
		},
		Action: func(c *cli.Context) error {
			if err := flags.WantArgs(c, 1, 1); err != nil {
				return err
			}
			target := c.Args().First()
			if err := loopbackURL(target); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context, values.DurationOf(c, "timeout"))
			defer cancel()
			if err := askHealth(ctx, target); err != nil {
				return fmt.Errorf("asking %s: %w", target, err)
			}
			return nil
		},
	}
}

// loopbackURL accepts addresses only: a name could lead anywhere.
func loopbackURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return ui.UsageErrorf("URL %q: want http://127.0.0.1:PORT/readyz", printable.Clean(raw))
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return ui.UsageErrorf("URL %q: want a loopback address: cleartext from elsewhere proves nothing", printable.Clean(raw))
	}
	return nil
}

// askHealth is nil for the status 200. Else the error is the first line of the answer.
func askHealth(ctx context.Context, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true} // no proxy: the environment must not answer for the service
	resp, err := transport.RoundTrip(req)                 // follows no redirect
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, healthAnswer))
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(body), "\n")
	if line == "" {
		line = http.StatusText(resp.StatusCode)
	}
	return errors.New(line)
}

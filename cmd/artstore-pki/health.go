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
	// healthAnswer is how many bytes of an answer are read. One line is expected.
	healthAnswer = 1 << 10
	// healthWait is the default of --timeout, which bounds the request with its answer.
	healthWait = 4 * time.Second
)

// healthCommand declares health and runs it: one GET to a listener for metrics on this
// machine. Status 0 is the answer 200. Any other answer, and no answer, is status 1 with the
// first line of the answer as the error, because a container engine shows that line. A URL
// that does not lead to loopback is an error of the command line.
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

// loopbackURL returns an error unless raw is an http URL with a loopback address as its host
// and without a password. It takes addresses only: a name, also localhost, can be resolved to
// any address.
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

// askHealth returns nil if target answers with status 200. For any other status the error is
// the first line of the answer, or the text of the status if there is none. Redirects are
// not followed, and the proxy of the environment is not asked: it would answer in place of
// the service.
func askHealth(ctx context.Context, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true} // Proxy is nil: no proxy
	resp, err := transport.RoundTrip(req)                 // a client would follow redirects
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

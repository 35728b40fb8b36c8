package proxycmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// call runs the command with these arguments, and returns its error.
func call(t *testing.T, args ...string) error {
	t.Helper()
	u := ui.New(ui.Streams{Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }})
	app := &cli.App{Writer: io.Discard, ErrWriter: io.Discard, Commands: []*cli.Command{Command(u)}, ExitErrHandler: func(*cli.Context, error) {}, DisableSliceFlagSeparator: true}
	return app.RunContext(context.WithoutCancel(t.Context()), append([]string{"x", "proxy"}, args...))
}

// TestMistakes expects that what is wrong on the command line is an error of it, before any
// certificate is read: there is none.
func TestMistakes(t *testing.T) {
	server := []string{"server", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:80", "--allow", "ingester"}
	client := []string{"client", "--listen", "127.0.0.1:0", "--to", "storage:443"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{append(server, "extra"), "unexpected argument"},
		{append(server, "--to", "app:80"), "there is no TLS at this address"},
		{append(server, "--to", "0.0.0.0:80"), "there is no TLS at this address"},
		{append(server, "--to", "nothing"), "want HOST:PORT or unix:PATH"},
		{append(server, "--protocol", "udp"), "want tcp or http or h2c"},
		{append(server, "--protocol", "http", "--proxy-protocol"), "the PROXY protocol goes with TCP"},
		{append(server, "--identity-header", "Host"), "no name that has a meaning already"},
		{append(server, "--allow", "a,b"), "without blanks and commas"},
		{append(server, "--max-connections", "-1"), "a limit is negative"},
		{server, "no certificate"},
		{append(server, "--to", "app:80", "--allow-cleartext"), "no certificate"},
		{append(client, "extra"), "unexpected argument"},
		{append(client, "--listen", ":8080"), "there is no TLS at this address"},
		{append(client, "--listen", "192.0.2.1:80"), "there is no TLS at this address"},
		{append(client, "--to", "unix:/run/x"), "is a Unix socket"},
		{append(client, "--to", ":443"), "has no host"},
		{append(client, "--protocol", "h2c"), "want tcp or http"},
		{append(client, "--group", "12"), "go with --listen unix:PATH"},
		{append(client, "--allow-user", "0"), "go with --listen unix:PATH"},
		{append(client, "--listen", "unix:s", "--allow-user", "no such user"), "there is no such user"},
		{append(client, "--allow-server", ""), "without blanks and commas"},
		{client, "no certificate"},
		{append(client, "--listen", "unix:s", "--allow-user", "root", "--allow-user", "12"), "no certificate"},
	} {
		err := call(t, c.args...)
		if _, usage := errors.AsType[*ui.UsageError](err); !usage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestNoCertificate expects an ordinary error for files that are not there.
func TestNoCertificate(t *testing.T) {
	dir := t.TempDir()
	files := []string{"--cert", filepath.Join(dir, "c"), "--key", filepath.Join(dir, "k"), "--ca-cert", filepath.Join(dir, "b")}
	for _, side := range [][]string{
		{"server", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:80", "--allow", "ingester"}, {"client", "--listen", "127.0.0.1:0", "--to", "storage:443"},
	} {
		if err := call(t, append(side, files...)...); err == nil || !strings.Contains(err.Error(), "getting a certificate") {
			t.Errorf("%s: %v", side[0], err)
		}
	}
}

// TestMetrics expects a series for each figure, and no other label than the fixed ones.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(func() proxy.Stats {
		return proxy.Stats{Connections: 1, Accepted: 2, Requests: 3, Received: 4, Sent: 5}
	}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
		for _, m := range f.GetMetric() {
			text.WriteString(f.GetName() + " " + m.String() + "\n")
		}
	}
	got := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range []string{
		"artstore_proxy_connections gauge:{value:1}", "artstore_proxy_connections_total counter:{value:2}", "artstore_proxy_requests_total counter:{value:3}",
		`label:{name:"direction" value:"received"} counter:{value:4}`, `label:{name:"direction" value:"sent"} counter:{value:5}`,
		`label:{name:"kind" value:"unreachable"} counter:{value:0}`, `label:{name:"kind" value:"user"} counter:{value:0}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %s in %s", want, got)
		}
	}
}

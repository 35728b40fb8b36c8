package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// deadEvery makes one server in twenty accept and never answer.
const (
	deadEvery = 20
	patience  = 5 * time.Second // the default
)

// fleet are n servers of which some are dead.
type fleet struct {
	program, dir string
	n            int
}

// run measures wall time. No auditor can be done before the slowest server, so that is the limit.
func (f fleet) run(ctx context.Context, out *frame.Printer) error {
	issuer, root, err := authority()
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := leaf(0, root, key.Public(), issuer)
	if err != nil {
		return err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	var list strings.Builder
	for i := range f.n {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }() // all until the end, by intention
		go serve(l, config, i%deadEvery == 0)
		fmt.Fprintln(&list, l.Addr())
	}
	targets := filepath.Join(f.dir, "targets")
	if err := os.WriteFile(targets, []byte(list.String()), 0o600); err != nil { //nolint:forbidigo // made anew by each run
		return err
	}
	cmd := exec.CommandContext(ctx, f.program, "audit", "-o", "ndjson", "--timeout", patience.String(), "--disable", "name-mismatch", "@"+targets) //nolint:gosec // G204: built by this program
	start := time.Now()
	text, err := cmd.Output()
	took := time.Since(start)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return fmt.Errorf("%w; want status 1 for the dead", err)
	}
	rows, dead := strings.Count(string(text), "\n"), strings.Count(string(text), "no answer within")
	out.Print("\n%d servers, %d dead: %d rows, %d of them errors, in %.2fs: %.2f of the %s that the slowest takes\n",
		f.n, (f.n+deadEvery-1)/deadEvery, rows, dead, took.Seconds(), took.Seconds()/patience.Seconds(), patience)
	return nil
}

func serve(l net.Listener, config *tls.Config, dead bool) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			if dead {
				_, _ = io.Copy(io.Discard, conn) // until it gives up
			} else {
				_ = tls.Server(conn, config).Handshake() //nolint:noctx // it ends with its connection, and may refuse
			}
			_ = conn.Close()
		}()
	}
}

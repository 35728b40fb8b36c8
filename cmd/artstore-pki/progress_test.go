package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/boundedfile"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// kept is a renderer that prints at its end, as a table does. A renderer that prints rows as they
// come gets no progress line on the same terminal.
type kept struct {
	terminal *bytes.Buffer
	rows     []string
}

func (k *kept) Row(r *audit.Row) error { k.rows = append(k.rows, r.Place); return nil }

func (k *kept) End(*audit.Summary) error {
	k.terminal.WriteString(strings.Join(k.rows, " ") + "\n")
	return nil
}

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		name string
		runs time.Duration
		want string
	}{
		{"over soon", 400 * time.Millisecond, "a\n"},
		{"long", 1300 * time.Millisecond, "\r\x1b[K1 looked at in 1s, last a" + "\r\x1b[K1 looked at in 1s, last a" + "\r\x1b[K1 looked at in 1s, last a" + "\r\x1b[K1 looked at in 1s, last a" +
			"\r\x1b[K1 looked at in 1s, last a" + "\r\x1b[Ka\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var terminal bytes.Buffer
			p := newProgress(&kept{terminal: &terminal}, &terminal, 80)
			if err := p.Row(&audit.Row{Subject: audit.Subject{Place: "a"}}); err != nil {
				t.Error(err)
			}
			time.Sleep(c.runs + time.Millisecond)
			synctest.Wait()
			if err := p.End(nil); err != nil {
				t.Error(err)
			}
			p.stop() // again
			if got := terminal.String(); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		})
	}
	// Hostile and long places stay within their line.
	p := &progress{width: 30, last: "\x1b[2J\n" + strings.Repeat("x", 100)}
	if got := p.line(0); len(got) > 31 || strings.ContainsAny(got, "\x1b\n") || !strings.HasSuffix(got, "…") {
		t.Errorf("%q", got)
	}
}

// pty opens a terminal: what a program writes to it can be read.
func pty(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	raw, err := screen.SyscallConn()
	check(t, err)
	var n int
	check(t, raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}))
	check(t, err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	return screen, terminal
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onTerminal runs the program with streams on a terminal, and returns what that showed.
func onTerminal(t *testing.T, out io.Writer, env map[string]string, args ...string) string {
	t.Helper()
	screen, terminal := pty(t)
	std := ui.Streams{In: strings.NewReader(""), Out: out, Err: terminal, Getenv: func(name string) string { return env[name] }}
	if out == nil {
		std.Out = terminal
	}
	shown := make(chan string)
	go func() {
		b, _ := io.ReadAll(screen) // ends with an error when nobody has the terminal any more
		shown <- string(b)
	}()
	run(t.Context(), std, append([]string{"artstore-pki"}, args...))
	check(t, terminal.Close())
	return <-shown
}

// While an audit waits for a server that does not answer, there is a line about it on a terminal,
// which is erased at the end. Other streams get no byte of it.
func TestProgressOnTerminal(t *testing.T) { // not beside others: urfave/cli shares its help flag between all apps
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { _ = ln.Close() }) // connections are taken by the kernel, and never answered
	args := []string{"audit", ln.Addr().String(), "--timeout", "1s"}
	var out bytes.Buffer
	shown := onTerminal(t, &out, nil, args...)
	if !strings.Contains(shown, "\r\x1b[K0 looked at in 1s") || !strings.HasSuffix(shown, ui.EraseLine) {
		t.Errorf("shown: %q", shown)
	}
	if strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "no answer within 1s") {
		t.Errorf("printed: %q", out.String())
	}
	for name, other := range map[string]string{
		"dumb":    onTerminal(t, &out, map[string]string{"TERM": "dumb"}, args...),
		"shared":  onTerminal(t, nil, nil, append(args, "-o", "ndjson")...),
		"failing": onTerminal(t, &out, nil, append(args, "--at", "never")...),
	} {
		if strings.Contains(other, "looked at") {
			t.Errorf("%s: %q", name, other)
		}
	}
}

func TestNoColour(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "empty.crt"), nil, 0o600))
	for name, c := range map[string]struct {
		env      map[string]string
		coloured bool
	}{
		"terminal": {nil, true}, "empty": {map[string]string{"NO_COLOR": ""}, true},
		"NO_COLOR": {map[string]string{"NO_COLOR": "1"}, false}, "dumb": {map[string]string{"TERM": "dumb"}, false},
	} {
		shown := onTerminal(t, nil, c.env, "audit", dir)
		if strings.Contains(shown, "\x1b[35mERROR\x1b[0m") != c.coloured || strings.Contains(shown, "\x1b") != c.coloured {
			t.Errorf("%s: %q", name, shown)
		}
	}
}

// A revocation list may be PEM or DER; anything else is an error that names it.
func TestReadList(t *testing.T) {
	der := testpki.Root(t, "ca").List(t, &x509.RevocationList{Number: big.NewInt(7), NextUpdate: time.Now().Add(time.Hour)}).Raw
	path := filepath.Join(t.TempDir(), "ca.crl")
	pemList := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	for _, c := range []struct {
		data          []byte
		lists, unread int
	}{
		{der, 1, 0}, {pemList, 1, 0}, {slices.Concat(pemList, pemList, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL"})), 2, 1},
		{der[:len(der)-1], 0, 1},
	} {
		check(t, os.WriteFile(path, c.data, 0o600))
		lists := map[string]*x509.RevocationList{}
		unread, err := readLists(path, lists)
		check(t, err)
		if len(lists) != c.lists || unread != c.unread || c.lists > 0 && lists[path].Number.Int64() != 7 {
			t.Errorf("%d bytes: %d lists, unread %d", len(c.data), len(lists), unread)
		}
	}
	check(t, os.WriteFile(path+".other", []byte("# a baseline"), 0o600))
	if _, err := readLists(path+".other", nil); err == nil || !strings.Contains(err.Error(), "reading a revocation list in "+path) {
		t.Error(err)
	}
	if _, err := readLists(path+".absent", nil); err == nil {
		t.Error("an absent file is no mistake")
	}
	if _, err := boundedfile.Read(path, 10); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Error(err)
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
)

// systemctl stands in for systemd, for the unit artstore-pki alone: it starts, stops and reloads
// serve as the unit does. It returns from a reload when serve has read its files, as it has when a
// person types the next command.
const systemctl = `#!/bin/bash
set -euo pipefail
cd "$WORLD"
gone() { ! kill -0 "$1" 2>/dev/null; }
count() { grep -c 'configuration reloaded' serve.log || true; }
wait_for() { for _ in $(seq 6000); do if "$@"; then return; fi; sleep 0.02; done; cat serve.log >&2; exit 1; }
[ "$2" = artstore-pki ] || { echo "systemctl: no unit $2" >&2; exit 5; }
case "$1" in
start)
	rm -f ca.url
	artstore-pki serve --dir var/lib/artstore-pki --ready-file ca.url </dev/null >>serve.log 2>&1 &
	echo $! >serve.pid
	wait_for test -s ca.url ;;
stop)
	kill -INT "$(cat serve.pid)"
	wait_for gone "$(cat serve.pid)" ;;
restart) "$0" stop artstore-pki; "$0" start artstore-pki ;;
reload)
	before=$(count)
	kill -HUP "$(cat serve.pid)"
	reloaded() { [ "$(count)" -gt "$before" ]; }
	wait_for reloaded ;;
*) echo "systemctl: no verb $1" >&2; exit 1 ;;
esac
`

// runbook is a sequence of commands of docs/operations.md, between <!-- runbook: NAME --> and
// <!-- /runbook -->. Text between the blocks is for people.
type runbook struct {
	name   string
	blocks []string
}

var runbookBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// runbooks finds the runbooks in a document.
func runbooks(t *testing.T, doc string) (out []runbook) {
	t.Helper()
	for _, part := range strings.Split(doc, "<!-- runbook: ")[1:] {
		name, rest, ok := strings.Cut(part, " -->\n")
		text, _, ended := strings.Cut(rest, "<!-- /runbook -->")
		if !ok || !ended {
			t.Fatalf("runbook %.40q does not end", part)
		}
		book := runbook{name: name}
		for _, m := range runbookBlock.FindAllStringSubmatch(text, -1) {
			book.blocks = append(book.blocks, m[1])
		}
		if len(book.blocks) == 0 {
			t.Fatalf("runbook %q has no commands", name)
		}
		out = append(out, book)
	}
	return out
}

// runbookWorld is what a runbook finds: a running authority with the files where the documents say
// they are, below a directory of its own, and services that have enrolled.
type runbookWorld struct {
	*killFixture
	url string
	env []string
}

func newRunbookWorld(t *testing.T) *runbookWorld {
	t.Helper()
	w := &runbookWorld{killFixture: &killFixture{dir: t.TempDir()}}
	bin := w.path("bin")
	for _, dir := range []string{bin, w.path("var/lib"), w.path("etc/artstore-pki"), w.path("tmp")} {
		must(t, os.MkdirAll(dir, 0o700))
	}
	w.program = selfAs(t, bin)
	must(t, os.WriteFile(filepath.Join(bin, "systemctl"), []byte(systemctl), 0o700)) // it is a program
	must(t, os.WriteFile(w.path("etc/artstore-pki/passphrase"), []byte("correct horse battery staple\n"), 0o600))
	w.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "WORLD="+w.dir)
	address := freeAddress(t)
	w.url = "https://" + address
	w.ok(t, "init", "--dir", "var/lib/artstore-pki", "--dns", "localhost", "--dns", "127.0.0.1", "--address", address)
	t.Cleanup(w.stop)
	w.shell(t, "systemctl start artstore-pki")
	for _, service := range []string{"ingester", "query-module"} {
		w.shell(t, "artstore-pki token "+service+" --dir var/lib/artstore-pki --out tmp/token")
		w.shell(t, "artstore-pki issue --ca-url "+w.url+" --token-file tmp/token --out var/lib/"+service)
	}
	return w
}

// renewByTimer renews what is due, every second, as a timer of systemd does every few minutes.
func (w *runbookWorld) renewByTimer(t *testing.T) {
	t.Helper()
	over, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var timer sync.WaitGroup
	timer.Go(func() {
		for over.Err() == nil {
			for _, service := range []string{"ingester", "query-module"} {
				_, _ = w.try(t, "artstore-pki renew --if-due /var/lib/"+service) // the runbook says what has not renewed
			}
			time.Sleep(time.Second)
		}
	})
	t.Cleanup(func() { cancel(); timer.Wait() })
}

func (w *runbookWorld) path(name string) string {
	return filepath.Join(w.dir, filepath.FromSlash(name))
}

// stop ends serve, if a runbook has left one.
func (w *runbookWorld) stop() {
	data, err := os.ReadFile(w.path("serve.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}

// try runs a block of commands as an operator would who stops at the first that fails. Paths below
// /var/lib and /etc, and the address of the authority, are those of this world.
func (w *runbookWorld) try(t *testing.T, block string) (string, error) {
	t.Helper()
	text := strings.NewReplacer("/var/lib/", w.path("var/lib")+"/", "/etc/artstore-pki", w.path("etc/artstore-pki"),
		"https://ca.internal:9443", w.url, "--within 1h", "--within 10s").Replace(block)
	var out bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "bash", "-euxo", "pipefail", "-c", text)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.env, &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (w *runbookWorld) shell(t *testing.T, block string) {
	t.Helper()
	if out, err := w.try(t, block); err != nil {
		log, _ := os.ReadFile(w.path("serve.log"))
		t.Fatalf("%v\n%s\nserve: %s", err, out, log)
	}
}

// A runbook may need more than the usual world, or have more to show than a sound authority.
var runbookCases = map[string]struct {
	before, after func(*testing.T, *runbookWorld)
}{
	"yearly rotation": {
		func(t *testing.T, w *runbookWorld) { w.renewByTimer(t) },
		func(t *testing.T, w *runbookWorld) {
			if out, err := w.try(t, "artstore-pki root status --dir /var/lib/artstore-pki"); err != nil || strings.Count(out, " active ") != 1 || strings.Contains(out, " old ") {
				t.Errorf("the roots: %v\n%s", err, out)
			}
		},
	},
	"stolen intermediate": {
		func(t *testing.T, w *runbookWorld) { w.renewByTimer(t) },
		func(t *testing.T, w *runbookWorld) {
			if out, err := w.try(t, "artstore-pki intermediate status --dir /var/lib/artstore-pki"); err != nil || strings.Count(out, " revoked ") != 1 {
				t.Errorf("the intermediates: %v\n%s", err, out)
			}
		},
	},
	"new enrolment key": {
		func(t *testing.T, w *runbookWorld) {
			w.shell(t, "artstore-pki token ingester --dir /var/lib/artstore-pki --out stolen")
		},
		func(t *testing.T, w *runbookWorld) {
			if out, err := w.try(t, "artstore-pki issue --ca-url https://ca.internal:9443 --token-file stolen --out thief"); err == nil || !strings.Contains(out, "401") {
				t.Errorf("a token of the stolen key: %v\n%s", err, out)
			}
		},
	},
	"lost password": {
		func(t *testing.T, w *runbookWorld) {
			must(t, os.Remove(w.path("var/lib/artstore-pki/secrets/password")))
		},
		nil,
	},
	"new password": {
		func(t *testing.T, w *runbookWorld) {
			w.shell(t, "cp /var/lib/artstore-pki/secrets/password old-password")
		},
		func(t *testing.T, w *runbookWorld) {
			if out, err := w.try(t, "artstore-pki token ingester --dir /var/lib/artstore-pki --password-file old-password"); err == nil || !strings.Contains(out, "wrong password") {
				t.Errorf("with the old password: %v\n%s", err, out)
			}
			w.shell(t, "systemctl restart artstore-pki")
		},
	},
}

// TestRunbooks runs each runbook of docs/operations.md. Behind it, the authority is sound, a service
// enrols, and the identity of ingester, which the runbook was to keep or to replace, renews.
func TestRunbooks(t *testing.T) {
	afterKills(t)
	t.Parallel()
	all := runbooks(t, readDoc(t, "operations.md"))
	if len(all) < 6 {
		t.Errorf("only %d runbooks found", len(all))
	}
	for _, book := range all {
		t.Run(strings.ReplaceAll(book.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			w, more := newRunbookWorld(t), runbookCases[book.name]
			if more.before != nil {
				more.before(t, w)
			}
			for _, block := range book.blocks {
				w.shell(t, block)
			}
			if more.after != nil {
				more.after(t, w)
			}
			w.shell(t, "artstore-pki doctor --dir /var/lib/artstore-pki --log || test $? = 3\nartstore-pki log verify --dir /var/lib/artstore-pki")
			w.shell(t, "artstore-pki renew /var/lib/ingester\n"+
				"artstore-pki token admin-module --dir /var/lib/artstore-pki --out after\nartstore-pki issue --ca-url https://ca.internal:9443 --token-file after --out id")
			w.sameTrust(t)
		})
	}
}

// sameTrust wants ingester to trust the root of the authority that is there.
func (w *runbookWorld) sameTrust(t *testing.T) {
	t.Helper()
	root, err := ca.StateDir(w.path("var/lib/artstore-pki")).ActiveRoot()
	must(t, err)
	bundle, err := credentials.ReadChain(w.path("var/lib/ingester/ca.crt"))
	must(t, err)
	err = errors.New("the root is not in it")
	for _, c := range bundle {
		if c.Equal(root) {
			err = nil
		}
	}
	must(t, err)
}

// TestRunbookForm: a block without its end, or a runbook without commands, is a mistake in the text,
// and is found rather than left out.
func TestRunbookForm(t *testing.T) {
	doc := "a\n<!-- runbook: one -->\n```sh\ntrue\n```\ntext\n```\nnot run\n```\n```sh\nfalse\n```\n<!-- /runbook -->\n```sh\nneither\n```\n"
	got := fmt.Sprint(runbooks(t, doc))
	if want := "[{one [true\n false\n]}]"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
	spoolstatus "github.com/artstore/artstore-pki/ingestclient/spool/status"
)

// resolveFixture is a drop box with real services, and a shell to type into.
type resolveFixture struct {
	*testing.T
	stack *ingesttest.Stack
	bin   string // directory of the program
	env   []string
	in    string
	state string // options that name another state directory, or nothing
}

func newResolveFixture(t *testing.T) *resolveFixture {
	t.Helper()
	w := &resolveFixture{T: t, stack: ingesttest.Start(t, ingesttest.Options{Dialect: "go"}), bin: t.TempDir()}
	self, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(self, filepath.Join(w.bin, "artstore-pki"))) // by this name the test binary is the program
	w.in = filepath.Join(t.TempDir(), "drop 'box'")
	must(t, os.Mkdir(w.in, 0o700))
	w.env = append(os.Environ(),
		"PATH="+w.bin+":"+os.Getenv("PATH"), "ADMIN_MODULE__DIALECT=form", "ADMIN_MODULE__TOKEN_URL="+w.stack.TokenURL,
		"STORAGE_ELEMENT__BASE_URL="+w.stack.StorageURL, "STORAGE_ELEMENT__MAX_RETRIES=0",
		"SERVICE_ACCOUNT__CLIENT_ID="+w.stack.ClientID, "SERVICE_ACCOUNT__CLIENT_SECRET="+w.stack.ClientSecret.Expose())
	m := w.stack.CA.Material(t, "ingester")
	key, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	must(t, err)
	for name, block := range map[string]*pem.Block{
		"TLS__CERT_FILE":    {Type: "CERTIFICATE", Bytes: m.Certificate.Certificate[0]},
		"TLS__KEY_FILE":     {Type: "PRIVATE KEY", Bytes: key},
		"TLS__CA_CERT_FILE": {Type: "CERTIFICATE", Bytes: w.stack.CA.Root().Raw},
	} {
		path := filepath.Join(w.bin, name)
		must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
		w.env = append(w.env, name+"="+path)
	}
	return w
}

// sh types a line, and returns what it printed and its status.
func (w *resolveFixture) sh(line string) (string, int) {
	w.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(w.Context(), "sh", "-c", line)
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, &out, &out
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		w.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// quoted is the box as a word of the shell.
func (w *resolveFixture) quoted() string { return "'" + strings.ReplaceAll(w.in, "'", `'\''`) + "'" }

// ingest runs ingest --once over the box, and wants that exit status.
func (w *resolveFixture) ingest(mode spool.SourceAction, status int) {
	w.Helper()
	w.stack.SetFaults(w.T)
	if out, got := w.sh(w.line(mode)); got != status {
		w.Fatalf("ingest ends with %d, want %d:\n%s", got, status, out)
	}
}

// put uploads one file while the element has a fault. The fault does not apply to an upload without
// a file, with which ingest asks at its start whether the element is ready.
func (w *resolveFixture) put(mode spool.SourceAction, name string, fault ingesttest.Fault) {
	w.Helper()
	must(w.T, os.WriteFile(filepath.Join(w.in, name), []byte(strings.Repeat(name, 1000)), 0o600))
	w.stack.SetFaults(w.T, fault)
	if out, got := w.sh(w.line(mode)); got != exitFailedFiles && got != exitRemaining {
		w.Fatalf("%s: status %d:\n%s", name, got, out)
	}
	w.stack.SetFaults(w.T)
}

func (w *resolveFixture) line(mode spool.SourceAction) string {
	return fmt.Sprintf(`cd %s && artstore-pki ingest . --once --settle 0s --on-success %s%s`, w.quoted(), mode, w.state)
}

// advice returns the advice that is printed for each file in quarantine.
func (w *resolveFixture) advice() map[string]string {
	w.Helper()
	text, _ := w.sh("artstore-pki ingest status " + w.quoted() + w.state + " -o json")
	var st spoolstatus.Report
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		w.Fatalf("%v:\n%s", err, text)
	}
	out := map[string]string{}
	for _, it := range append(st.Failed, st.Ambiguous...) {
		out[it.Name] = it.Advice
	}
	return out
}

// command is the line of an advice, from the name of the program to its last option.
func (w *resolveFixture) command(advice, last string) string {
	w.Helper()
	_, line, ok := strings.Cut(advice, "artstore-pki ")
	line, _, found := strings.Cut(line, last)
	if !ok || !found {
		w.Fatalf("no command in %q", advice)
	}
	return "artstore-pki " + line + last
}

// The advice about a file in quarantine, typed as it is printed, does what it says in each mode, and
// no file is stored twice.
func TestAdviceLeadsWhereItSays(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for mode, state := range map[spool.SourceAction]string{spool.DeleteSource: "", spool.MoveSource: "the state", spool.KeepSource: ""} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			w := newResolveFixture(t)
			if state != "" {
				w.state = " --state-dir '" + filepath.Join(filepath.Dir(w.in), state) + "'"
			}
			w.put(mode, "lost", ingesttest.Fault{Kind: "reset", AfterStore: true})
			w.put(mode, "absent", ingesttest.Fault{Kind: "status", Status: 500, AfterBytes: 2000})
			w.put(mode, "refused", ingesttest.Fault{Kind: "status", Status: 413, AfterBytes: 2000})
			advice := w.advice()
			if len(advice) != 3 {
				t.Fatalf("put aside: %v", advice)
			}

			auto := w.command(advice["lost"], "--auto")
			if out, status := w.sh(auto); status != ui.ExitOK || !strings.Contains(out, "  stored  lost  (https://") || !strings.Contains(out, "--yes does it") {
				t.Errorf("%s: status %d:\n%s", auto, status, out)
			}
			if got := w.advice(); len(got) != 3 {
				t.Errorf("a dry run changed it: %v", got)
			}
			if out, status := w.sh(auto + " --yes"); status != ui.ExitOK {
				t.Errorf("status %d:\n%s", status, out)
			}
			auto = w.command(advice["absent"], "--auto") + " --yes -o json"
			out, status := w.sh(auto)
			var list []spool.Resolution
			if err := json.Unmarshal([]byte(out[strings.IndexByte(out, '['):]), &list); err != nil || status != exitFailedFiles || len(list) != 1 || list[0].Decision != spool.DecideNothing || !strings.Contains(list[0].Why, "may still be on its way") {
				t.Errorf("%s: status %d, %v:\n%s", auto, status, err, out)
			}
			for _, name := range []string{"absent", "refused"} {
				base, _, _ := strings.Cut(w.command(advice[name], "--resend --yes"), " --auto")
				line := strings.TrimSuffix(base, " --resend --yes") + " --resend --yes"
				if out, status := w.sh(line); status != ui.ExitOK || !strings.Contains(out, "  resend  "+name+"  (") {
					t.Errorf("%s: status %d:\n%s", line, status, out)
				}
			}

			w.ingest(mode, ui.ExitOK)
			w.ingest(mode, ui.ExitOK)
			var names []string
			for _, f := range w.stack.Files() {
				names = append(names, f.Name)
			}
			if !slices.Equal(names, []string{"absent", "lost", "refused"}) {
				t.Errorf("stored: %v", names)
			}
			if out, _ := w.sh("artstore-pki ingest status " + w.quoted() + w.state); !strings.Contains(out, "waiting 0  claimed 0  failed 0  ambiguous 0\n") {
				t.Errorf("left:\n%s", out)
			}
		})
	}
}

func TestResolveCommandLines(t *testing.T) {
	w := newResolveFixture(t)
	for line, want := range map[string]struct {
		status int
		text   string
	}{
		"artstore-pki ingest resolve":                       {ui.ExitUsage, "missing argument: want DIR [ID...]"},
		"artstore-pki ingest resolve x":                     {ui.ExitUsage, "want one of --auto, --stored and --resend"},
		"artstore-pki ingest resolve x --auto --stored":     {ui.ExitUsage, "want one of --auto, --stored and --resend"},
		"artstore-pki ingest resolve $PWD/nowhere --stored": {ui.ExitFailure, "no such file or directory"},
		"artstore-pki ingest resolve /tmp --stored --yes":   {ui.ExitFailure, "ingest never ran there"},
		"mkdir -p in && artstore-pki ingest in --once --settle 0s; artstore-pki ingest resolve in --auto -o json": {ui.ExitOK, "[]"},
		"artstore-pki ingest resolve in 11111111-2222-4333-8444-555555555555 --stored":                            {ui.ExitFailure, "no file was put aside under this id"},
		"(artstore-pki ingest in & p=$!; until artstore-pki ingest status in | grep -q running,; do sleep 0.1; done; artstore-pki ingest resolve in --stored; s=$?; kill -INT $p; wait $p; exit $s)": {
			ui.ExitFailure, "hint: stop that instance first"},
	} {
		if out, status := w.sh("cd '" + w.bin + "' && mkdir -p in && artstore-pki ingest in --once >/dev/null 2>&1; " + line); status != want.status || !strings.Contains(out, want.text) {
			t.Errorf("%s: status %d, want %d with %q:\n%s", line, status, want.status, want.text, out)
		}
	}
}

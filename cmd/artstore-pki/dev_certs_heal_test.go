package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// TestDevCertsHeals removes or damages one part at a time, as a crash, a wrong command or another
// program may do, and the next run repairs it.
func TestDevCertsHeals(t *testing.T) {
	long(t, "it makes certificates again and again")
	dir := devCertsPlain(t, 30*humantime.Day, "--expired")
	file := func(name string) string { return filepath.Join(dir, name) }
	do := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name  string
		harm  func()
		state string // what the line of localhost begins with
		why   string
	}{
		{"nothing", func() {}, "kept", "-"},
		{"the whole directory", func() { do(os.RemoveAll(file("localhost"))) }, "made", "-"},
		{"a link", func() { do(os.Remove(file("localhost/tls.key"))) }, "replaced", "tls.key missing"},
		{"the current generation", func() { do(os.Remove(file("localhost/current"))) }, "made", "-"},
		{"a file of it", func() { do(os.Remove(filepath.Join(resolve(t, file("localhost/current")), "ca.crt"))) }, "replaced", "ca.crt missing"},
		{"half a file", func() { do(os.Truncate(file("localhost/tls.crt"), 700)) }, "replaced", "not readable: tls.crt: "},
		{"the key of another", func() { copyFile(t, file("query-module/tls.key"), resolve(t, file("localhost/tls.key"))) }, "replaced", "key does not fit"},
		{"a key for all to read", func() { do(os.Chmod(file("localhost/tls.key"), 0o644)) }, "replaced", "key was readable by others"},
		{"all three of another", func() {
			for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
				copyFile(t, file("query-module/"+name), resolve(t, file("localhost/"+name)))
			}
		}, "replaced", `issued to "query-module"; names changed: - artstore_query_module, - query-module`},
		{"the trust bundle of the directory", func() { do(os.Remove(file("ca.crt"))) }, "kept", "-"},
		{"a first enrolment cut off", func() {
			copyFile(t, file("localhost/tls.key"), file("localhost/pending-00.key"))
			do(os.Remove(file("localhost/current")))
		}, "made", "-"},
		{"a later one", func() { copyFile(t, file("localhost/tls.key"), file("localhost/pending-00.key")) }, "replaced", "enrolment was cut off"},
		{"an unfinished authority", func() { do(os.Mkdir(file(".ca-making1"), 0o700)) }, "kept", "-"},
		{"a fixture that is none", func() {
			for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
				copyFile(t, file("localhost/"+name), resolve(t, file("fixtures/expired/"+name)))
			}
		}, "kept", "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.harm()
			code, out, talk := devCertsRun(t, dir)
			line := lineOf(out, file("localhost"))
			if code != ui.ExitOK || !strings.HasPrefix(line, c.state+" ") || !strings.Contains(line, "  "+c.why) {
				t.Errorf("exit status %d, %q, want %s because %q\n%s", code, line, c.state, c.why, talk)
			}
			if code, _, talk := devCertsRun(t, dir); code != ui.ExitOK || !strings.HasPrefix(talk, "nothing to do\n") {
				t.Errorf("afterwards: exit status %d, %s", code, talk)
			}
			if left, _ := filepath.Glob(file("*/pending-*")); len(left) > 0 || len(globAll(t, file(".ca-making*"))) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if got := leafNamesOf(t, file("localhost")); !equalSets(got, []string{"localhost", "127.0.0.1", "::1"}) {
				t.Errorf("names %q", got)
			}
			devPool(t, file("ca.crt"))
		})
	}
}

// TestDevCertsOtherAuthority replaces the authority by one with other services. The certificates of
// services that it has are replaced, and the others are mentioned.
func TestDevCertsOtherAuthority(t *testing.T) {
	dir := devCertsPlain(t, 30*humantime.Day, "--expired")
	if err := os.RemoveAll(filepath.Join(dir, "ca")); err != nil {
		t.Fatal(err)
	}
	if code, out, talk := devCertsRun(t, dir); code != ui.ExitFailure || out != "" || !strings.Contains(talk, "directory is not empty") {
		t.Errorf("without an authority: exit status %d\n%s%s", code, out, talk)
	}
	if _, err := setup.Init(t.Context(), setup.Options{Dir: filepath.Join(dir, "ca"), PlainKeys: true}); err != nil { // the profiles of init
		t.Fatal(err)
	}
	code, out, talk := devCertsRun(t, dir)
	if line := lineOf(out, filepath.Join(dir, "admin-module")); code != ui.ExitOK || !strings.Contains(line, "issuer changed; trust bundle changed; lifetime changed") {
		t.Errorf("exit status %d, %q\n%s", code, line, talk)
	}
	for _, name := range []string{"fixtures/expired", "localhost", "storage-element-03"} {
		if !strings.Contains(talk, filepath.Join(dir, name)+" stays, but") {
			t.Errorf("%s is not mentioned: %s", name, talk)
		}
	}
	if a, b := devPool(t, filepath.Join(dir, "ca.crt")), devPool(t, filepath.Join(dir, "admin-module", "ca.crt")); !a.Equal(b) {
		t.Error("the trust bundles differ")
	}
	if code, _, talk := devCertsRun(t, dir, "--expired"); code != ui.ExitFailure || !strings.Contains(talk, "--expired: there is no profile localhost") {
		t.Errorf("fixtures without a profile: exit status %d, %s", code, talk)
	}
}

// TestDevCertsInterrupted stops a run after each of its first lines, and once while it makes the
// authority. The next run succeeds and leaves nothing of the interrupted ones.
func TestDevCertsInterrupted(t *testing.T) {
	long(t, "it interrupts many runs")
	t.Parallel() // with the other long ones, most of which wait
	dir := devCertsPlain(t, 30*humantime.Day)
	for n := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		out := &stopAfter{lines: n, stop: cancel}
		var talk strings.Builder
		code := run(ctx, ui.Streams{In: strings.NewReader(""), Out: out, Err: &talk, Getenv: func(string) string { return "" }}, []string{"artstore-pki", "dev", "certs", "--renew", dir})
		cancel()
		if code != ui.ExitInterrupted || !strings.HasSuffix(talk.String(), "artstore-pki: interrupted\n") {
			t.Fatalf("after %d lines: exit status %d\n%s", n, code, talk.String())
		}
	}
	// A run that was killed while it made the authority could not clean up.
	if err := os.Rename(filepath.Join(dir, "ca"), filepath.Join(dir, ".ca-making"+"2")); err != nil {
		t.Fatal(err)
	}
	for _, e := range globAll(t, filepath.Join(dir, "[a-z]*")) {
		if err := os.RemoveAll(e); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, talk := devCertsRun(t, dir); code != ui.ExitOK || strings.Count(out, "made ") != len(devNames) {
		t.Errorf("exit status %d\n%s%s", code, out, talk)
	}
	if left := globAll(t, filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// stopAfter is a stdout that ends the run after some lines.
type stopAfter struct {
	lines int
	stop  func()
}

func (s *stopAfter) Write(b []byte) (int, error) {
	if s.lines--; s.lines < 0 {
		s.stop()
	}
	return len(b), nil
}

func resolve(t *testing.T, path string) string {
	t.Helper()
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func globAll(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// lineOf is the line about a directory, without its end.
func lineOf(out, dir string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, " "+dir+" ") {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}

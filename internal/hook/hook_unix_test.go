//go:build unix

package hook

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/internal/printable"
)

func run(t *testing.T, c Command) (string, *Error) {
	t.Helper()
	output, err := c.Run(t.Context(), Event{})
	failed, _ := errors.AsType[*Error](err)
	if err != nil && failed == nil {
		t.Fatalf("%T is no *Error: %v", err, err)
	}
	return output, failed
}

// TestArguments: a word with blanks, quotes and dollars is one argument, as it is.
func TestArguments(t *testing.T) {
	words := []string{"a b", `"`, "$HOME", "*", "; exit 1", ""}
	output, failed := run(t, Command{Args: append([]string{"printf", `<%s>\n`}, words...)})
	if failed != nil {
		t.Fatal(failed)
	}
	if want := "<" + strings.Join(words, ">\n<") + ">"; output != want {
		t.Errorf("got %q, want %q", output, want)
	}
	for _, c := range []Command{{}, {Args: []string{""}}, {Args: []string{"a", "b\x00c"}}, {Args: []string{"a"}, Timeout: -1}} {
		if _, err := c.Run(t.Context(), Event{}); err == nil || c.Check() == nil {
			t.Errorf("%+v was run", c)
		}
	}
}

func TestFailures(t *testing.T) {
	sh := func(script string) Command { return Command{Args: []string{"sh", "-c", script}} }
	for name, test := range map[string]struct {
		command Command
		status  int
		text    string
	}{
		"a status":             {sh("echo first; echo no such unit >&2; exit 7"), 7, "running sh: exit status 7: no such unit"},
		"a signal":             {sh("kill -9 $$"), 0, "running sh: signal: killed"},
		"no such program":      {Command{Args: []string{"no-such-program"}}, 0, `running no-such-program: exec: "no-such-program": executable file not found in $PATH`},
		"a program of escapes": {Command{Args: []string{"./\x1b[2J"}}, 0, "running ./ [2J: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, failed := run(t, test.command)
			if failed == nil || failed.Status != test.status || failed.TimedOut != 0 || !strings.HasPrefix(printable.Clean(failed.Error()), test.text) {
				t.Errorf("got %+v, want status %d and %q", failed, test.status, test.text)
			}
		})
	}
}

// TestTimeLimit: the limit ends the program and what it has started, also if that ignores the
// request to end.
func TestTimeLimit(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := `(trap "" TERM; echo $$ >` + pids + `; while :; do sleep 0.1; done) & echo waiting; wait`
	output, failed := run(t, Command{Args: []string{"sh", "-c", script}, Timeout: 300 * time.Millisecond, killDelay: 100 * time.Millisecond})
	if failed == nil || failed.TimedOut != 300*time.Millisecond || !errors.Is(failed, context.DeadlineExceeded) {
		t.Fatalf("got %v", failed)
	}
	if output != "waiting" || failed.Error() != "running sh: ended by its time limit of 300ms: waiting" {
		t.Errorf("output %q, error %q", output, failed)
	}
	data, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	groupEnds(t, strings.TrimSpace(string(data)))
}

// groupEnds waits until no process of the group of the shell with that number runs.
func groupEnds(t *testing.T, pid string) {
	t.Helper()
	for limit := time.Now().Add(2 * time.Minute); time.Now().Before(limit); {
		if running(t, pid) == 0 {
			return
		}
		wait := time.NewTimer(20 * time.Millisecond)
		<-wait.C
	}
	t.Errorf("processes of the group %s still run", pid)
}

// running counts the processes of a group that are not zombies.
func running(t *testing.T, group string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(files) == 0 {
		t.Skip("this system has no /proc to look for processes in")
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if fields := strings.Fields(rest); len(fields) > 2 && fields[2] == group && fields[0] != "Z" {
			n++
		}
	}
	return n
}

// TestEndOfTheContext: the service that runs the command is stopped.
func TestEndOfTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Command{Args: []string{"sh", "-c", "echo ready; exec sleep 600"}, Output: writerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	})}.Run(ctx, Event{})
	failed, ok := errors.AsType[*Error](err)
	if !ok || failed.TimedOut != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestDaemon: a program that leaves one in the background, with its output open, has succeeded,
// and the one in the background goes on.
func TestDaemon(t *testing.T) {
	output, failed := run(t, Command{Args: []string{"sh", "-c", "echo $$; exec sh -c 'sleep 600 & exit 0'"}, killDelay: 100 * time.Millisecond})
	if failed != nil {
		t.Fatal(failed)
	}
	group, err := strconv.Atoi(output)
	if err != nil || group <= 1 {
		t.Fatalf("no number of a process: %q", output)
	}
	if n := running(t, output); n != 1 {
		t.Errorf("%d processes of its group run", n)
	}
	if err := syscall.Kill(-group, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestEnvironment: what changed, and neither settings nor the socket of the service manager.
func TestEnvironment(t *testing.T) {
	for _, name := range []string{"ARTSTORE_PKI_PASSWORD", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "CREDENTIALS_DIRECTORY", "ROTATED_SERVICE"} {
		t.Setenv(name, "canary")
	}
	t.Setenv("KEPT", "kept")
	output, err := Command{Args: []string{"env"}}.Run(t.Context(), Event{
		Dir: "/srv/pki/www", Service: "www\nLD_PRELOAD=/x", Serial: "0x1f", Changed: []string{"certificate", "trust"},
		NotAfter: time.Date(2027, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)),
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(output, "\n")
	for _, want := range []string{
		"ROTATED_DIR=/srv/pki/www", "ROTATED_SERVICE=www LD_PRELOAD=/x", "ROTATED_SERIAL=0x1f", "ROTATED_CHANGED=certificate trust",
		"ROTATED_NOT_AFTER=2027-01-02T02:04:05Z", "KEPT=kept",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(output, "canary") {
		t.Errorf("a withheld variable is there:\n%s", output)
	}
}

// TestOutputIsBounded: a command that prints without end costs 4 KiB, and its output is also
// where the caller wants it.
func TestOutputIsBounded(t *testing.T) {
	var all bytes.Buffer
	output, failed := run(t, Command{Args: []string{"sh", "-c", `yes йes | head -n 100000; printf '\033[2Jlast\r\n'`}, Output: &all})
	if failed != nil {
		t.Fatal(failed)
	}
	if !strings.HasSuffix(output, "\n\\u001b[2Jlast") || !strings.HasPrefix(output, "…") || len(output) > tailBytes+20 {
		t.Errorf("%d bytes: %q … %q", len(output), output[:20], output[len(output)-20:])
	}
	if want := 100000*len("йes\n") + len("\x1b[2Jlast\r\n"); all.Len() != want {
		t.Errorf("the caller got %d bytes of %d", all.Len(), want)
	}
	if got := LastLine(output + "\n \n"); got != "\\u001b[2Jlast" {
		t.Errorf("last line %q", got)
	}
	if _, failed := run(t, Command{Args: []string{"echo", "x"}, Output: writerFunc(func([]byte) (int, error) { return 0, syscall.EPIPE })}); failed != nil {
		t.Errorf("a reader that is gone is a failure: %v", failed)
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n"), []byte("\xd0"), 3)
	f.Add(bytes.Repeat([]byte("й"), tailBytes), []byte("\x1b]0;x\a"), 1000)
	f.Fuzz(func(t *testing.T, first, second []byte, cut int) {
		var whole, parts tail
		all := slices.Concat(first, second)
		_, _ = whole.Write(all)
		cut = min(max(cut, 0), len(all))
		_, _ = parts.Write(all[:cut])
		_, _ = parts.Write(all[cut:])
		text := whole.String()
		if got := parts.String(); got != text {
			t.Errorf("in parts %q, as a whole %q", got, text)
		}
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && printable.Hidden(r) }) {
			t.Errorf("not harmless: %q", text)
		}
	})
}

// TestTerminal: a program that may ask for a password stays in the group of the terminal, and its
// time limit ends it all the same.
func TestTerminal(t *testing.T) {
	running(t, "0") // skips without /proc
	output, failed := run(t, Command{Args: []string{"sh", "-c", `cut -d " " -f 5 "/proc/$$/stat"`}, Terminal: true})
	if want := strconv.Itoa(syscall.Getpgrp()); failed != nil || output != want {
		t.Errorf("it is in group %q, %v, and this process in %s", output, failed, want)
	}
	_, failed = run(t, Command{Args: []string{"sleep", "600"}, Terminal: true, Timeout: 50 * time.Millisecond})
	if failed == nil || failed.TimedOut == 0 {
		t.Errorf("after its time limit: %v", failed)
	}
}

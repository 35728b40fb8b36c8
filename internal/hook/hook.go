// Package hook runs the command that puts new files of an identity into effect, such as the
// reload of a server, and remembers in their directory whether that is still to be done.
//
//	record, err := hook.Open(dir)
//	err = record.Start(generation) // before the files are replaced
//	if record.Owed(generation) {   // behind it, also at the next start
//		_, err = command.Run(ctx, event)
//		err = record.Note(generation, time.Now(), err)
//	}
//
// A generation is a text of the caller that differs when the files differ, such as a digest.
// The record has the one for which the command has succeeded last. So the command is owed
// after each change of the files until it has succeeded, whatever crashed in between.
//
// Invariants:
//
//   - No shell reads the command, and a time limit ends it with all processes that it has
//     started (TestArguments, TestTimeLimit).
//   - A process killed at any moment leaves a record by which the command still runs for the
//     files in place, and runs for nothing else (TestCrashes).
//   - What it prints is bounded and harmless on a terminal (TestOutputIsBounded, FuzzTail).
//   - It gets no setting of this program and no socket of its service manager (TestEnvironment).
package hook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
)

const (
	// DefaultTimeout is longer than the 90 s that systemd gives a unit to start.
	DefaultTimeout = 2 * time.Minute

	killDelay = 5 * time.Second // between SIGTERM and SIGKILL, and for output that stays open
	lineRunes = 200
)

// Command is a program that puts new files into effect.
type Command struct {
	// Args is the program, looked for in PATH if it has no slash, and its arguments.
	Args []string
	// Timeout ends the program and the processes that it has started, as the end of the
	// context does: SIGTERM, and SIGKILL 5 s later. 0 means DefaultTimeout.
	Timeout time.Duration
	// Output gets what the program prints on stdout and stderr, as it comes. It may be nil.
	Output io.Writer
	// Terminal leaves the program the terminal of this process, so that it can ask for a
	// password. Processes that it has started then survive the time limit.
	Terminal bool

	killDelay time.Duration // 0 means the constant; tests do not wait as long
}

// Event says what has changed. The command gets it in the environment: ROTATED_DIR,
// ROTATED_SERVICE, ROTATED_SERIAL, ROTATED_NOT_AFTER (RFC 3339) and ROTATED_CHANGED
// (separated by blanks), each unless it is empty.
type Event struct {
	Dir             string // of the files
	Service, Serial string // common name and serial (0x…) of the certificate
	NotAfter        time.Time
	Changed         []string // what has changed: certificate, trust, lists
}

// Error reports a command that did not succeed.
type Error struct {
	Program  string
	Status   int           // exit status, or 0 if the program was not started, or ended by a signal
	TimedOut time.Duration // the time limit that ended the program, or 0
	Output   string        // as Run returns it
	Err      error
}

// Error returns one line: the program, the cause, and the last line of the output.
func (e *Error) Error() string {
	text := fmt.Sprintf("running %s: %v", printable.Line(e.Program, lineRunes), e.Err)
	if e.TimedOut > 0 {
		text = fmt.Sprintf("running %s: ended by its time limit of %v", printable.Line(e.Program, lineRunes), e.TimedOut)
	}
	if last := LastLine(e.Output); last != "" {
		text += ": " + last
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// LastLine returns the last line of an output that is not blank, shortened, or "".
func LastLine(output string) string {
	output = strings.TrimSpace(output)
	return printable.Line(output[strings.LastIndexByte(output, '\n')+1:], lineRunes)
}

// Check returns an error if the command cannot be one. It does not look for the program.
func (c Command) Check() error {
	switch {
	case len(c.Args) == 0 || c.Args[0] == "":
		return errors.New("no program")
	case strings.ContainsRune(strings.Join(c.Args, ""), 0):
		return errors.New("an argument has a zero byte")
	case c.Timeout < 0:
		return fmt.Errorf("the time limit %v is below zero", c.Timeout)
	}
	return nil
}

// Run runs the command and returns the last 4 KiB of what it printed, cleaned for terminals.
// The error is an [*Error], or that of Check. A program that has exited well while one in the
// background keeps its output open has succeeded.
func (c Command) Run(ctx context.Context, e Event) (output string, err error) {
	if err := c.Check(); err != nil {
		return "", fmt.Errorf("running a command: %w", err)
	}
	limit := cmp.Or(c.Timeout, DefaultTimeout)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var kept tail
	cmd := exec.CommandContext(limited, c.Args[0], c.Args[1:]...) //nolint:gosec // G204: the operator's own command
	cmd.Env, cmd.WaitDelay = environment(os.Environ(), e), cmp.Or(c.killDelay, killDelay)
	cmd.Stdout = kept.with(c.Output)
	cmd.Stderr = cmd.Stdout
	stop := func() {}
	if c.Terminal {
		cmd.Stdin = os.Stdin
	} else {
		stop = ownGroup(cmd)
	}
	if err = cmd.Run(); err != nil && limited.Err() != nil {
		stop()
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && limited.Err() == nil {
		return kept.String(), nil
	}
	failed := &Error{Program: c.Args[0], Output: kept.String(), Err: err}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		failed.Status = max(exit.ExitCode(), 0)
	}
	switch {
	case ctx.Err() != nil:
		failed.Err = ctx.Err()
	case limited.Err() != nil:
		failed.TimedOut, failed.Err = limit, context.DeadlineExceeded
	}
	return failed.Output, failed
}

// withheld are prefixes of variables that a command does not get: the settings of this
// program, one of which is a password, and those of sd_notify(3) and sd_listen_fds(3).
var withheld = [...]string{"ARTSTORE_PKI_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "CREDENTIALS_DIRECTORY", "ROTATED_"}

func environment(own []string, e Event) []string {
	var vars []string
	for _, v := range own {
		if !hasPrefix(v, withheld[:]) {
			vars = append(vars, v)
		}
	}
	end := ""
	if !e.NotAfter.IsZero() {
		end = e.NotAfter.UTC().Format(time.RFC3339)
	}
	for _, v := range [...][2]string{
		{"ROTATED_DIR", strings.ReplaceAll(e.Dir, "\x00", "")},
		{"ROTATED_SERVICE", printable.Line(e.Service, lineRunes)},
		{"ROTATED_SERIAL", printable.Line(e.Serial, lineRunes)},
		{"ROTATED_NOT_AFTER", end},
		{"ROTATED_CHANGED", printable.Line(strings.Join(e.Changed, " "), lineRunes)},
	} {
		if v[1] != "" {
			vars = append(vars, v[0]+"="+v[1])
		}
	}
	return vars
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

package main

// The rules of output, for every command:
//
//   - stdout is data (a token, a table, JSON); stderr is talk.
//   - Talk is lower case, without a full stop, one thought a line.
//   - An error is one line that says what and where; a hint follows if there is
//     something to do about it. Hints live here and in the commands, never in packages.
//   - Whatever came from a file, a certificate or the network is cleaned of
//     control characters before it reaches a terminal.
//   - Nothing secret is printed but the token that `token` or `access-token` was asked for.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/artstore/artstore-pki/internal/printable"
)

// stdio is what a program has of the outside world.
type stdio struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	vars     func() []string // all variables as NAME=value; nil: none
}

// environ is the whole environment: settings are also looked for by their near misses.
func (s stdio) environ() []string {
	if s.vars == nil {
		return nil
	}
	return s.vars()
}

type ui struct {
	stdio
	log    logChoice
	warned sync.Map // lines of warnOnce
}

func newUI(std stdio) *ui { return &ui{stdio: std} }

// say prints one line of talk.
func (u *ui) say(format string, args ...any) {
	text := printable.Clean(fmt.Sprintf(format, args...))
	if u.log.json {
		u.object(slog.LevelInfo, text)
		return
	}
	_, _ = fmt.Fprintln(u.err, text) // nobody is left to tell if stderr is gone
}

// complain prints one line about how the command ended: kind is error, hint or usage.
func (u *ui) complain(kind, text string) {
	text = printable.Clean(text)
	if u.log.json {
		u.object(slog.LevelError, "command failed", slog.String(kind, text))
		return
	}
	_, _ = fmt.Fprintf(u.err, "artstore-pki: %s: %s\n", kind, text) // as in say
}

// print writes one line of data.
func (u *ui) print(format string, args ...any) error {
	_, err := fmt.Fprintln(u.out, printable.Clean(fmt.Sprintf(format, args...)))
	return err
}

// printJSON writes one document, over several lines.
func (u *ui) printJSON(v any) error {
	enc := json.NewEncoder(u.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// terminal reports whether w is a terminal that understands a live line, and its width.
func (u *ui) terminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || u.getenv("TERM") == "dumb" {
		return 0, false
	}
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return 0, false
	}
	width, _, err := term.GetSize(fd)
	if err != nil || width <= 0 {
		width = 80
	}
	return width, true
}

// colour reports whether w wants colours. The word says the same everywhere.
func (u *ui) colour(w io.Writer) bool {
	_, ok := u.terminal(w)
	return ok && u.getenv("NO_COLOR") == "" // no-color.org
}

// hinted is an error with advice for the operator.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// withHint adds advice to err; nil stays nil.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// usage is an error of the command line itself: exit status 2.
type usage struct{ error }

func (e *usage) Unwrap() error { return e.error }

// usagef makes an error for a wrong command line.
func usagef(format string, args ...any) error { return &usage{fmt.Errorf(format, args...)} }

// exitStatus is an outcome that the output has said already, and that is no error.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// finish prints err, its hint and for a wrong command line the right one, and
// chooses the exit status.
func (u *ui) finish(ctx context.Context, err error, usageLine string) int {
	if err == nil {
		return exitOK
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		u.say("artstore-pki: interrupted")
		return exitInterrupted
	}
	for line := range strings.Lines(err.Error()) { // errors.Join: one line for each thing that is wrong
		u.complain("error", strings.TrimRight(line, "\n"))
	}
	var h *hinted
	if errors.As(err, &h) && h.hint != "" {
		u.complain("hint", h.hint)
	} else if hint := hintFor(err); hint != "" {
		u.complain("hint", hint)
	}
	var bad *usage
	if errors.As(err, &bad) {
		u.complain("usage", usageLine)
		return exitUsage
	}
	return exitFailure
}

func usageError(c *cli.Context, err error, _ bool) error {
	return withHint(&usage{err}, "see %s --help", helpName(c))
}

func helpName(c *cli.Context) string {
	if c.Command != nil && c.Command.HelpName != "" {
		return c.Command.HelpName
	}
	return c.App.Name
}

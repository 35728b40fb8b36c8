// Package ui is how commands print and how they end: streams, secrets, tables, logs, exit
// statuses.
//
// The rules of output, for every command:
//
//   - stdout has data (a token, a table, JSON); stderr has everything that is said to people.
//   - A line on stderr is lower case, without a full stop, and has one thought.
//   - An error is one line that says what and where. A hint follows if the operator can do
//     something. Commands and the package hints choose it, never the other packages.
//   - Text from a file, a certificate or the network is cleaned of control characters before
//     it reaches a terminal (TestFinish, TestTable).
//   - No secret is printed, except the one that a command is asked for: the token of `token`
//     and `access-token`, the key of `acme eab create`.
package ui

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
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/artstore/artstore-pki/internal/printable"
)

// Exit statuses, the same for every command.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitRefused     = 3   // a rule forbids it, and nothing was changed
	ExitFindings    = 3   // all was looked at, and something is wrong: audit, inspect, doctor, log verify
	ExitInterrupted = 130 // 128 + SIGINT, as shells report it
)

// Streams are the streams and the environment of a program.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	// Vars returns all variables as NAME=value; nil means none.
	Vars func() []string
}

// Environ returns the whole environment: a name that is nearly that of a setting is a mistake.
func (s Streams) Environ() []string {
	if s.Vars == nil {
		return nil
	}
	return s.Vars()
}

// UI prints for people and for programs. [New] makes one.
type UI struct {
	Streams
	// Hint returns the advice for an error that carries none, or "". It may be nil.
	Hint   func(error) string
	log    logChoice
	warned sync.Map // the lines that WarnOnce has printed
}

// New returns a UI on std.
func New(std Streams) *UI { return &UI{Streams: std} }

// Action returns run as an action of the library, which has no place for a UI.
func (u *UI) Action(run func(*UI, *cli.Context) error) cli.ActionFunc {
	return func(c *cli.Context) error { return run(u, c) }
}

// Infof prints one line for people on stderr, whose errors have no stream to be reported on.
func (u *UI) Infof(format string, args ...any) {
	text := printable.Clean(fmt.Sprintf(format, args...))
	if u.log.json {
		u.object(slog.LevelInfo, text)
		return
	}
	_, _ = fmt.Fprintln(u.Err, text)
}

// Complain prints one line on stderr about how the command ended. kind is error, hint or usage.
func (u *UI) Complain(kind, text string) {
	text = printable.Clean(text)
	if u.log.json {
		u.object(slog.LevelError, "command failed", slog.String(kind, text))
		return
	}
	_, _ = fmt.Fprintf(u.Err, "artstore-pki: %s: %s\n", kind, text)
}

// Outf writes one line of data on stdout. Data that was not written is a failure of the command.
func (u *UI) Outf(format string, args ...any) error {
	_, err := fmt.Fprintln(u.Out, printable.Clean(fmt.Sprintf(format, args...)))
	return err
}

// JSON writes v as one document on stdout, indented by two blanks.
func (u *UI) JSON(v any) error {
	enc := json.NewEncoder(u.Out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Terminal reports whether w is a terminal on which a line can be erased, and its columns.
func (u *UI) Terminal(w io.Writer) (width int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || u.Getenv("TERM") == "dumb" {
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

// Colour reports whether w may get colours. Colours never say what words do not say as well.
func (u *UI) Colour(w io.Writer) bool {
	_, ok := u.Terminal(w)
	return ok && u.Getenv("NO_COLOR") == "" // no-color.org
}

// hinted is an error with advice for the operator. Its text is that of the error alone.
type hinted struct {
	error
	hint string
}

// Unwrap returns the error without the advice.
func (h *hinted) Unwrap() error { return h.error }

// WithHint returns err with advice. Of several the outermost is printed. nil stays nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// UsageError is an error of the command line itself: exit status 2.
type UsageError struct{ error }

// Unwrap returns what is wrong.
func (e *UsageError) Unwrap() error { return e.error }

// UsageErrorf returns an error for a wrong command line.
func UsageErrorf(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// refusal is an error that ends in [ExitRefused]. Its text and its advice are those of the error.
type refusal struct{ error }

// Unwrap returns why it was refused.
func (r *refusal) Unwrap() error { return r.error }

// Refused returns err as a refusal: it is printed like any error, and ends in status 3, which
// tells a script that nothing was changed. nil stays nil.
func Refused(err error) error {
	if err == nil {
		return nil
	}
	return &refusal{err}
}

// ExitStatus is an outcome that the output has told already: Finish prints nothing for it.
type ExitStatus int

func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Finish prints err, its hint, and usageLine for a wrong command line, and returns the exit
// status. A command that was interrupted and failed for another reason reports that reason.
func (u *UI) Finish(ctx context.Context, err error, usageLine string) int {
	if err == nil {
		return ExitOK
	}
	if status, ok := errors.AsType[ExitStatus](err); ok {
		return int(status)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		u.Infof("artstore-pki: interrupted")
		return ExitInterrupted
	}
	for line := range strings.Lines(err.Error()) { // errors.Join has a line for each error
		u.Complain("error", strings.TrimRight(line, "\n"))
	}
	if hint := u.hintOf(err); hint != "" {
		u.Complain("hint", hint)
	}
	if _, usage := errors.AsType[*UsageError](err); usage {
		u.Complain("usage", usageLine)
		return ExitUsage
	}
	if errors.As(err, new(*refusal)) {
		return ExitRefused
	}
	return ExitFailure
}

// hintOf returns the advice that err carries, else that of u.Hint, else "".
func (u *UI) hintOf(err error) string {
	if h, ok := errors.AsType[*hinted](err); ok && h.hint != "" {
		return h.hint
	}
	if u.Hint == nil {
		return ""
	}
	return u.Hint(err)
}

// HasHint reports whether err carries advice.
func HasHint(err error) bool { return errors.As(err, new(*hinted)) }

// Size returns n bytes as text in binary units, such as 1.5 MiB.
func Size(n int64) string {
	const unit = 1024
	switch {
	case n < unit:
		return fmt.Sprintf("%d B", n)
	case n < unit*unit:
		return fmt.Sprintf("%.1f KiB", float64(n)/unit)
	case n < unit*unit*unit:
		return fmt.Sprintf("%.1f MiB", float64(n)/(unit*unit))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(unit*unit*unit))
}

// logChoice has the values of --log-level and --log-format. The zero value means that of the
// command, and lines of text.
type logChoice struct {
	level *slog.Level
	json  bool
}

// object writes a line as JSON at any level of the log: a program can parse all of stderr.
func (u *UI) object(level slog.Level, msg string, attrs ...slog.Attr) {
	record := slog.NewRecord(time.Now(), level, msg, 0)
	record.AddAttrs(attrs...)
	_ = slog.NewJSONHandler(u.Err, &slog.HandlerOptions{Level: slog.LevelDebug}).Handle(context.Background(), record) //nolint:forbidigo // this handler ignores the context; as in Infof, an error of stderr has no place to go
}

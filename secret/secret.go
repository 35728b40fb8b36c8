// Package secret holds values that must never be printed: enrolment tokens,
// client secrets, passwords.
//
// A [String] shows itself as [redacted] through fmt, slog, JSON and text
// encoding. The only way to its content is [String.Expose], so that every use
// can be found with one search. Packages enroll and ingestclient take and give
// this one type.
package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/artstore/artstore-pki/internal/fileperm"
)

const redacted = "[redacted]"

// maxFile bounds a secret read from a file; keys of this project's size are far below it.
const maxFile = 64 << 10

// ErrEmpty reports a secret file without content.
var ErrEmpty = errors.New("the file is empty")

// ErrExposed reports a secret file that others than its owner can read or replace.
var ErrExposed = errors.New("others can read or replace this secret")

// String is a secret text. The zero value is "no secret". Two of them with the
// same content are equal; comparing them is not constant in time.
type String struct{ v string }

// New wraps v.
func New(v string) String { return String{v} }

// File returns a function that reads the secret from path anew each time, by
// [ReadFile], for fields like ClientSecret of the package ingestclient: a secret
// that was replaced is used at once.
func File(path string) func(context.Context) (String, error) {
	return func(context.Context) (String, error) { return ReadFile(path) }
}

// ReadFile reads a secret from a file, or a pipe, of at most 64 KiB. One trailing
// newline (LF or CRLF) is removed, because editors and echo add one. An empty
// file is [ErrEmpty]; errors name the path and never quote the content.
//
// A file that others can read is read all the same: the secret is out already,
// and a refusal would turn that into an outage. [CheckFile] tells.
func ReadFile(path string) (String, error) {
	f, err := os.Open(path)
	if err != nil {
		return String{}, err // *fs.PathError: names the path
	}
	defer func() { _ = f.Close() }() // read only: nothing to lose
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return String{}, err
	}
	if len(b) > maxFile {
		return String{}, fmt.Errorf("reading %s: longer than %d bytes", path, maxFile)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return String{}, fmt.Errorf("reading %s: %w", path, ErrEmpty)
	}
	return New(string(b)), nil
}

// CheckFile reports who besides the owner can read the file at path or put another
// one in its place, as an error that matches [ErrExposed]; nil if nobody can.
//
// The mode must be 0600 or less; 0640 is good for a file of root, because that is how
// Kubernetes mounts secrets for a pod with an fsGroup. File and directories must
// belong to this user or to root, and the directories above it may be writable by
// others only with the sticky bit. Access control lists are not looked at. What is
// not there or no regular file has nothing to report, and neither have systems
// without owners and modes.
func CheckFile(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() { // a pipe is as good as what writes to it
		return nil //nolint:nilerr // ReadFile says why it cannot be read
	}
	findings := fileperm.SecretFile(path)
	if len(findings) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrExposed, strings.Join(findings, "; "))
}

// Expose returns the content. Callers must not log it or put it into errors.
func (s String) Expose() string { return s.v }

// IsZero reports whether there is no secret.
func (s String) IsZero() bool { return s.v == "" }

// String returns "[redacted]", or "" for the zero value.
func (s String) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// Format implements [fmt.Formatter]: every verb prints the redacted form, %#v and %x included.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer] with the redacted form.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements [encoding.TextMarshaler] with the redacted form; JSON and YAML use it too.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

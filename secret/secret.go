// Package secret has a type for texts that must never be printed: enrolment tokens, client
// secrets, passwords. Packages enroll and ingestclient take and return it.
//
// The only way to the content of a [String] is [String.Expose], so that one search finds
// every use.
//
// Invariants:
//
//   - fmt, slog, JSON and text encoding print [redacted] in place of the content
//     (TestNeverPrinted).
//   - No error has the content of a file (TestCheckFile).
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

// maxFile bounds a secret that is read from a file, in bytes.
const maxFile = 64 << 10

// ErrEmpty reports a secret file without content.
var ErrEmpty = errors.New("the file is empty")

// ErrExposed reports a secret file that others than its owner can read or replace.
var ErrExposed = errors.New("others can read or replace this secret")

// String is a secret text. The zero value means that there is no secret. Two with the same
// content are equal; the comparison does not take constant time.
type String struct{ v string }

// New wraps v.
func New(v string) String { return String{v} }

// File returns a function that calls [ReadFile] for path each time, so that a replaced
// secret is used at once. It is for fields like Config.ClientSecret of package ingestclient.
func File(path string) func(context.Context) (String, error) {
	return func(context.Context) (String, error) { return ReadFile(path) }
}

// ReadFile reads a secret from a file or a pipe, of 64 KiB at most. It removes one newline
// (LF or CRLF) at the end, because editors and echo add one. The error for an empty file is
// [ErrEmpty]. Errors have the path and never the content.
//
// It does not refuse a file that others can read: the secret is exposed already, and a
// refusal would add an outage. [CheckFile] reports such a file.
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

// CheckFile returns an error that matches [ErrExposed] if others than the owner can read
// the file at path or replace it. The error says who and how.
//
// The mode must be 0600 or less. 0640 is accepted for a file of root, because Kubernetes
// mounts secrets so for a pod with an fsGroup. The file and its directories must belong to
// this user or to root, and a directory that others can write to must have the sticky bit.
// Access control lists are not checked. The result is nil for a file that does not exist or
// is no regular file, and on systems without owners and modes.
func CheckFile(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
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

// Format implements [fmt.Formatter]: every verb prints the redacted form, %#v and %x too.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer] with the redacted form.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements [encoding.TextMarshaler] with the redacted form; JSON and YAML use it too.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

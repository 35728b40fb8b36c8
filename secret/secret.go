// Package secret holds values that must never be printed.
//
// A [String] shows itself as [redacted] through fmt, slog, JSON and text
// encoding; the only way to its content is [String.Expose], so every use can be
// found with one search.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
)

const redacted = "[redacted]"

// maxFile bounds a secret read from a file; keys of this project's size are far below it.
const maxFile = 64 << 10

// ErrEmpty reports a secret file without content.
var ErrEmpty = errors.New("the file is empty")

// String is a secret text. The zero value is "no secret".
type String struct{ v string }

// New wraps v.
func New(v string) String { return String{v} }

// ReadFile reads a secret from a file of at most 64 KiB. One trailing newline
// (LF or CRLF) is removed, because editors and echo add one. An empty file is
// [ErrEmpty].
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

// Format makes every fmt verb print the redacted form, %#v and %x included.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements [encoding.TextMarshaler] (JSON and YAML use it too).
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

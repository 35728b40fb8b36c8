package hook

import (
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/internal/printable"
)

const tailBytes = 4 << 10

type tail struct { // keeps the last tailBytes bytes
	mu      sync.Mutex
	kept    []byte
	dropped bool
}

// with returns a writer for the tail and other, which may be nil. An error of other is
// ignored: the command must not fail because nobody reads what it prints.
func (t *tail) with(other io.Writer) io.Writer {
	if other == nil {
		return t
	}
	return writerFunc(func(p []byte) (int, error) {
		_, _ = other.Write(p)
		return t.Write(p)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if n > tailBytes {
		p, t.dropped = p[n-tailBytes:], true
	}
	if over := len(t.kept) + len(p) - tailBytes; over > 0 {
		t.kept, t.dropped = append(t.kept[:0], t.kept[over:]...), true
	}
	t.kept = append(t.kept, p...)
	return n, nil
}

// String returns what is kept as lines harmless on a terminal, and "…" for what came before.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.kept
	for t.dropped && len(kept) > 0 && !utf8.RuneStart(kept[0]) { // the rest of a character that was cut
		kept = kept[1:]
	}
	text := strings.TrimRight(strings.ReplaceAll(string(kept), "\r\n", "\n"), "\r\n")
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable.Clean(lines[i])
	}
	text = strings.Join(lines, "\n")
	if t.dropped {
		text = "…" + text
	}
	return text
}

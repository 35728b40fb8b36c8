package ingestclient

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime/multipart"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// errStopped is returned to a transport that still reads the body after the attempt has
// ended.
var errStopped = errors.New("upload attempt is over")

// body streams one multipart form: fields, then the content between a header
// and a trailer that were built beforehand, so that Content-Length is exact
// (servers can refuse by it, and nothing is chunked) and memory is constant.
//
// An incomplete body proves to the client that nothing was stored. So any failure of
// the content ends the body before its trailer.
type body struct {
	head, tail []byte
	content    io.ReadCloser
	size       int64     // of content
	sum        hash.Hash // nil: none is computed
	progress   func(sent, total int64)
	watch      *progressWatch
	pace       func(n int) error // waits until n more bytes may go out; nil is no limit
	mayBegin   func() bool       // called before the first byte; false ends the body. nil is true

	off     int64         // of the whole body; used by the reading goroutine only
	left    int64         // of content, not yet read
	sent    atomic.Int64  // of content
	digest  atomic.Value  // string, hex; set when the last byte was read
	failure atomic.Value  // error: why the content could not be read
	over    atomic.Bool   // the attempt has ended
	end     atomic.Int32  // whether the end of the request goes out: endOpen, endSent or endCut
	closed  chan struct{} // closed by Close: the transport will not read any more
	once    sync.Once
}

// newBody builds the form around content of the given size and returns it with its content type.
func newBody(content io.ReadCloser, size int64, name string, meta *Meta) (*body, string, error) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, f := range meta.fields() {
		if err := w.WriteField(f[0], f[1]); err != nil {
			return nil, "", err
		}
	}
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", fmt.Sprintf(`form-data; name="file"; filename="%s"`, cleanName(name)))
	h.Set("Content-Type", cmp.Or(cleanHeader(meta.ContentType), "application/octet-stream"))
	if _, err := w.CreatePart(h); err != nil {
		return nil, "", err
	}
	n := buf.Len()
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return &body{
		head: buf.Bytes()[:n:n], tail: buf.Bytes()[n:], content: content, size: size, left: size,
		progress: meta.Progress, closed: make(chan struct{}),
	}, w.FormDataContentType(), nil
}

// cleanName returns a file name for a quoted string: characters that cannot be in one are
// percent-encoded (RFC 7578 §4.2, as browsers do it for quotes and line ends). So is a
// backslash, which escapes the next character (RFC 2183 §2), and a byte that is no UTF-8,
// which one server refuses and another replaces.
func cleanName(name string) string {
	name = filepath.Base(name)
	var b strings.Builder
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		if r < ' ' || r == 0x7f || r == '"' || r == '\\' || r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, "%%%02X", name[0])
		} else {
			b.WriteString(name[:n])
		}
		name = name[n:]
	}
	return b.String()
}

func cleanHeader(v string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, v)
}

func (b *body) length() int64 { return int64(len(b.head)) + b.size + int64(len(b.tail)) }

// Read is called by one goroutine of the transport, which may outlive the attempt.
func (b *body) Read(p []byte) (int, error) {
	if b.over.Load() {
		return 0, errStopped
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.off == 0 && b.mayBegin != nil && !b.mayBegin() {
		return 0, errStopped
	}
	b.watch.begin()
	n, err := b.readForm(p)
	b.off += int64(n)
	b.watch.move(n)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errStopped) {
		b.failure.CompareAndSwap(nil, bodyError{err})
	}
	if b.off == b.length() && b.digest.Load() == nil {
		b.digest.Store(b.finish())
		b.watch.expectResponse()
	}
	return n, err
}

// bodyError wraps any error, because an atomic.Value holds one type only.
type bodyError struct{ error }

func (b *body) readForm(p []byte) (int, error) {
	head := int64(len(b.head))
	switch {
	case b.off < head:
		return copy(p, b.head[b.off:]), nil
	case b.left > 0:
		return b.readContent(p)
	}
	// All content is read and no byte of the trailer is sent. This is the last moment to
	// notice a change of the file with a body that no server takes as complete.
	at := b.off - head - b.size
	if at == 0 {
		if err := b.check(); err != nil {
			return 0, err
		}
		if !b.end.CompareAndSwap(endOpen, endSent) {
			return 0, errStopped
		}
	}
	n := copy(p, b.tail[at:])
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// check returns an error if the content is longer than its size, or has changed since
// it was opened.
func (b *body) check() error {
	switch n, err := io.ReadFull(b.content, make([]byte, 1)); {
	case n > 0:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrFileChanged, b.size)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", ErrContent, err)
	}
	if c, ok := b.content.(interface{ Unchanged() error }); ok {
		return c.Unchanged()
	}
	return nil
}

func (b *body) readContent(p []byte) (int, error) {
	// Never more than the size in Content-Length, even if the content has grown.
	n, err := b.content.Read(p[:min(int64(len(p)), b.left)])
	if b.pace != nil && n > 0 {
		b.watch.suspend()
		paced := b.pace(n)
		b.watch.unsuspend()
		if paced != nil {
			return 0, errStopped // the attempt has ended, and its context has the reason
		}
	}
	b.left -= int64(n)
	if b.sum != nil {
		b.sum.Write(p[:n]) // a hash returns no error
	}
	sent := b.sent.Add(int64(n))
	if b.progress != nil && n > 0 {
		b.progress(sent, b.size)
	}
	switch {
	case errors.Is(err, io.EOF) && b.left > 0:
		return n, fmt.Errorf("%w: it ended after %d of %d bytes", ErrFileChanged, sent, b.size)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("%w: %w", ErrContent, err)
	}
	return n, nil
}

// Close is called by the transport as soon as it will not read any more.
func (b *body) Close() error {
	b.once.Do(func() {
		_ = b.content.Close() // read only: nothing to lose
		close(b.closed)
	})
	return nil
}

func (b *body) finish() string {
	if b.sum == nil {
		return ""
	}
	return hex.EncodeToString(b.sum.Sum(nil))
}

// States of the end of the request. No server takes a body without its end as complete. The
// state changes once: the transport reads the end, or the attempt is given up before that.
const (
	endOpen int32 = iota
	endSent
	endCut
)

// cut prevents that the end of the request is sent, and reports whether it was in time.
func (b *body) cut() bool { return b.end.CompareAndSwap(endOpen, endCut) || b.end.Load() == endCut }

// complete reports whether the transport has read every byte.
func (b *body) complete() bool { return b.digest.Load() != nil }

// is reports whether the whole content has this size and checksum.
func (b *body) is(size int64, sum string) bool {
	return b.complete() && b.size == size && (b.sum == nil || b.digestHex() == sum)
}

// digestHex is the content's SHA-256 once the body is complete; "" if none is computed.
func (b *body) digestHex() string {
	s, _ := b.digest.Load().(string)
	return s
}

// contentError returns why the content could not be read, or nil.
func (b *body) contentError() error {
	if f, ok := b.failure.Load().(bodyError); ok {
		return f.error
	}
	return nil
}

package ingestclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/artstore/artstore-pki/internal/tlsalert"
	"github.com/artstore/artstore-pki/rotation"
)

// Metadata looks up what is stored under id. SHA256 and Size are as the Storage
// Element reports them. The error for an unknown id is [ErrNotFound].
func (c *Client) Metadata(ctx context.Context, id string) (*File, error) {
	var rec *File
	n, err := c.readFrom(ctx, "looking up", id, func(ctx context.Context, p destination) (e *RequestError) {
		rec, e = c.lookUp(ctx, p, id)
		return e
	})
	if err != nil {
		return nil, err
	}
	rec.Attempts = n
	return rec, nil
}

// Download writes the content stored under id to w. Size and SHA256 of the File are
// computed from the bytes written. A failure is repeated only if nothing was written.
func (c *Client) Download(ctx context.Context, id string, w io.Writer) (*File, error) {
	var rec *File
	n, err := c.readFrom(ctx, "downloading", id, func(ctx context.Context, p destination) (e *RequestError) {
		rec, e = c.downloadTo(ctx, p, id, w)
		return e
	})
	if err != nil {
		return nil, err
	}
	rec.Attempts = n
	return rec, nil
}

// readFrom repeats a GET, with the current credential each time, and asks each
// element. It returns the number of attempts.
func (c *Client) readFrom(ctx context.Context, op, id string, try func(context.Context, destination) *RequestError) (int, error) {
	if !validID(id) {
		return 0, &RequestError{Op: op, Name: fmt.Sprintf("%q", clean(id)), Attempt: 1, Err: fmt.Errorf("%w: not an id", ErrNotFound)}
	}
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return 0, &RequestError{Op: op, Name: id, Attempt: 1, Err: err}
	}
	defer leave()
	return c.repeat(ctx, func(int) *RequestError {
		elements, err := c.selector.all(ctx)
		if err != nil {
			e := (&upload{name: id}).noElement(ctx, err)
			e.Op = op
			return e
		}
		cred, err := c.tokens.get(ctx)
		if err != nil {
			e := (&upload{name: id}).noToken(ctx, err)
			e.Op = op
			return e
		}
		defer cred.lease.unref()
		return search(ctx, elements, func(at *element) *RequestError { return try(ctx, destination{cred, at}) })
	})
}

// search asks one element after the other for a file that only one of them has. The
// result is ErrNotFound only if all say so: one that cannot be asked may have it.
func search(ctx context.Context, elements []*element, ask func(*element) *RequestError) (missing *RequestError) {
	for _, at := range elements {
		e := ask(at)
		if e == nil {
			return nil
		}
		e.Element = at.base
		switch {
		case errors.Is(e, ErrNotFound):
			missing = cmp.Or(missing, e)
		case e.Retryable && isElementFault(e) && ctx.Err() == nil:
			missing = e
		default:
			return e
		}
	}
	return missing
}

func (c *Client) lookUp(ctx context.Context, p destination, id string) (*File, *RequestError) {
	var raw []byte
	e := c.send(ctx, p, request{op: "looking up", name: id, url: p.at.file(id)}, func(resp *http.Response) (err error) {
		raw, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return err
	})
	if e != nil {
		return nil, e
	}
	got, err := parseAnswer(raw)
	if err != nil {
		return nil, &RequestError{Op: "looking up", Name: id, Status: http.StatusOK, Err: fmt.Errorf("%w: %w", ErrAnswer, err)}
	}
	rec := got.file()
	rec.Element = p.at.base
	return rec, nil
}

func (c *Client) downloadTo(ctx context.Context, p destination, id string, w io.Writer) (*File, *RequestError) {
	rec := &File{FileID: id, Element: p.at.base}
	sum := sha256.New()
	out := &trackingWriter{w: io.MultiWriter(w, sum)}
	// Bytes written to w cannot be taken back, so only a failure before the first one
	// may be repeated. The caller can compare SHA256 with that of Metadata.
	e := c.send(ctx, p, request{op: "downloading", name: id, url: p.at.file(id) + "/download"}, func(resp *http.Response) (err error) {
		rec.Size, err = io.Copy(out, resp.Body)
		return err
	})
	if e != nil {
		e.Retryable = e.Retryable && rec.Size == 0 && out.err == nil
		if out.err != nil {
			e.Err = fmt.Errorf("writing the content: %w", out.err)
		}
		return nil, e
	}
	rec.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return rec, nil
}

// trackingWriter remembers its error, because io.Copy does not tell which side failed.
type trackingWriter struct {
	w   io.Writer
	err error
}

func (s *trackingWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// request is a request without a file: a GET, or a POST if it has a form.
type request struct {
	op, name, url string
	form          *form
	bare          bool // without a token
	every         bool // any status is passed to use, not only 200
}

// send sends one request without a file, under a progressWatch, and passes a 200 to use.
func (c *Client) send(ctx context.Context, p destination, r request, use func(*http.Response) error) *RequestError {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(c.settings, cancel)
	defer w.stop()
	fail := func(err error) *RequestError {
		return &RequestError{Op: r.op, Name: r.name, Retryable: ctx.Err() == nil || errors.Is(context.Cause(ctx), ErrNoAnswer), Err: err}
	}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { w.expectResponse() }}
	req, err := r.build(httptrace.WithClientTrace(ctx, trace))
	if err != nil {
		return fail(err)
	}
	c.setHeaders(req, p.cred)
	if r.bare {
		req.Header.Del("Authorization")
	}
	sent := time.Now()
	resp, err := tlsalert.RoundTrip(p.cred.lease.storage, req)
	if err != nil {
		e := fail(transportError(ctx, err))
		if errors.Is(err, rotation.ErrRetired) {
			e.retired = p.cred.lease
		}
		return e
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // a body that was read to its end keeps the connection usable
		_ = resp.Body.Close()
	}()
	w.expectContent()
	if resp.StatusCode != http.StatusOK && !r.every {
		raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status alone is enough
		e := fail(nil)
		e.Retryable = e.answered(resp, raw, p.cred.token, sent) != never
		return e
	}
	resp.Body = &watchedBody{resp.Body, w}
	if err := use(resp); err != nil {
		return fail(transportError(ctx, err))
	}
	return nil
}

func (r request) build(ctx context.Context) (*http.Request, error) {
	if r.form == nil {
		return http.NewRequestWithContext(ctx, http.MethodGet, r.url, http.NoBody)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(r.form.body))
	if err == nil {
		req.Header.Set("Content-Type", r.form.contentType)
	}
	return req, err
}

// watchedBody reports each read to a progressWatch.
type watchedBody struct {
	io.ReadCloser
	watch *progressWatch
}

func (r *watchedBody) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.watch.move(n)
	return n, err
}

package ingestclient

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// Metadata looks up what is stored under id. SHA256 and Size are the Storage
// Element's words. An id that is not there is [ErrNotFound].
func (c *Client) Metadata(ctx context.Context, id string) (*File, error) {
	var rec *File
	n, err := c.read(ctx, "looking up", id, func(ctx context.Context, p place) (e *RequestError) {
		rec, e = c.lookUp(ctx, p, id)
		return e
	})
	if err != nil {
		return nil, err
	}
	rec.Attempts = n
	return rec, nil
}

// Download writes the content stored under id to w. Size and SHA256 of the
// File are computed from what was written. It is repeated only as long as
// nothing was written.
func (c *Client) Download(ctx context.Context, id string, w io.Writer) (*File, error) {
	var rec *File
	n, err := c.read(ctx, "downloading", id, func(ctx context.Context, p place) (e *RequestError) {
		rec, e = c.copy(ctx, p, id, w)
		return e
	})
	if err != nil {
		return nil, err
	}
	rec.Attempts = n
	return rec, nil
}

// read repeats a GET with a credential each time, and asks each element.
func (c *Client) read(ctx context.Context, op, id string, try func(context.Context, place) *RequestError) (int, error) {
	if !validID(id) {
		return 0, &RequestError{Op: op, Name: fmt.Sprintf("%q", clean(id)), Attempt: 1, Err: fmt.Errorf("%w: not an id", ErrNotFound)}
	}
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return 0, &RequestError{Op: op, Name: id, Attempt: 1, Err: err}
	}
	defer leave()
	return c.repeat(ctx, func(int) *RequestError {
		elements, err := c.fleet.all(ctx)
		if err != nil {
			e := (&upload{name: id}).homeless(ctx, err)
			e.Op = op
			return e
		}
		cred, err := c.keeper.get(ctx)
		if err != nil {
			e := (&upload{name: id}).noToken(ctx, err)
			e.Op = op
			return e
		}
		defer cred.lease.done()
		return search(ctx, elements, func(at *element) *RequestError { return try(ctx, place{cred, at}) })
	})
}

// search asks one element after the other for what only one of them has. It is
// not found only if all say so: one that cannot be asked may have it.
func search(ctx context.Context, elements []*element, ask func(*element) *RequestError) (missing *RequestError) {
	for _, at := range elements {
		e := ask(at)
		if e == nil {
			return nil
		}
		e.Element = at.base
		switch {
		case errors.Is(e, ErrNotFound):
			missing = orElse(missing, e)
		case e.Retryable && down(e) && ctx.Err() == nil:
			missing = e
		default:
			return e
		}
	}
	return missing
}

func orElse(e, otherwise *RequestError) *RequestError {
	if e != nil {
		return e
	}
	return otherwise
}

func (c *Client) lookUp(ctx context.Context, p place, id string) (*File, *RequestError) {
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

func (c *Client) copy(ctx context.Context, p place, id string, w io.Writer) (*File, *RequestError) {
	rec := &File{FileID: id, Element: p.at.base}
	sum := sha256.New()
	out := &sink{w: io.MultiWriter(w, sum)}
	// What w has taken cannot be taken back, so only a failure before the first
	// byte may be repeated; the caller can compare SHA256 with Metadata's.
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

// sink remembers its own errors: io.Copy does not say which side failed.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// request is one that carries no file: a GET, or a POST if it has a form.
type request struct {
	op, name, url string
	form          *form
	bare          bool // without a token
	every         bool // every answer is used, not only a 200
}

// send sends one request without a file and hands a 200 to use, under a watch.
func (c *Client) send(ctx context.Context, p place, r request, use func(*http.Response) error) *RequestError {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(c.settings, cancel)
	defer w.stop()
	fail := func(err error) *RequestError {
		return &RequestError{Op: r.op, Name: r.name, Retryable: ctx.Err() == nil || errors.Is(context.Cause(ctx), ErrNoAnswer), Err: err}
	}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { w.await() }}
	req, err := r.build(httptrace.WithClientTrace(ctx, trace))
	if err != nil {
		return fail(err)
	}
	c.sign(req, p.cred)
	if r.bare {
		req.Header.Del("Authorization")
	}
	sent := time.Now()
	resp, err := roundTrip(p.cred.lease.storage, req)
	if err != nil {
		e := fail(transportError(ctx, err))
		if errors.Is(err, rotation.ErrRetired) {
			e.retired = p.cred.lease
		}
		return e
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // a little that is left must not cost the connection
		_ = resp.Body.Close()
	}()
	w.resume()
	if resp.StatusCode != http.StatusOK && !r.every {
		raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status says enough
		e := fail(nil)
		e.Retryable = e.answered(resp, raw, p.cred.token, sent) != never
		return e
	}
	resp.Body = &watched{resp.Body, w}
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

// watched tells the watch what comes in.
type watched struct {
	io.ReadCloser
	watch *watch
}

func (r *watched) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.watch.move(n)
	return n, err
}

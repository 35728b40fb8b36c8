package ingestclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"

	"github.com/artstore/artstore-pki/internal/uuid"
)

const (
	readyPath = "/health/ready"
	infoPath  = "/api/v1/info"
)

// Elements returns the Storage Elements in the order in which uploads try them
// now. With a registry it may have to wait for the list.
func (c *Client) Elements(ctx context.Context) ([]Element, error) {
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	all, err := c.selector.all(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the storage elements: %w", err)
	}
	return c.selector.public(all), nil
}

// Probe asks one of the client's Storage Elements, named by its URL, whether it
// would store a file with our token. It stores nothing and repeats nothing. It sends,
// in this order: requests for readiness, and for mode and free space, without a token;
// a look-up of an id that does not exist; an upload without a file.
//
// nil means yes. Otherwise the error is a [*RequestError], with the same sentinels as
// that of an upload, and [ErrUnavailable] for an element that says that it is not
// ready. A token that is rejected is replaced once.
func (c *Client) Probe(ctx context.Context, url string) error {
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return probing(err)
	}
	defer leave()
	at, err := c.element(ctx, url)
	if err != nil {
		return probing(err)
	}
	e := c.probe(ctx, at)
	c.selector.recordOutcome(at, 0, e)
	if e == nil {
		return nil
	}
	e.Attempt, e.Element = 1, at.base
	return e
}

func probing(err error) *RequestError {
	return &RequestError{Op: "probing", Name: "storage element", Attempt: 1, Err: err}
}

// probe runs probeOnce with the current token, and once more with another one if that
// one is rejected.
func (c *Client) probe(ctx context.Context, at *element) *RequestError {
	for again := true; ; again = false {
		cred, err := c.tokens.get(ctx)
		if err != nil {
			e := (&upload{name: "storage element"}).noToken(ctx, err)
			e.Op = "probing"
			return e
		}
		e := c.probeOnce(ctx, destination{cred, at})
		cred.lease.unref()
		if e == nil || e.Status != http.StatusUnauthorized {
			return e
		}
		c.count.rejected.Add(1)
		if !again {
			return e
		}
		c.tokens.invalidate(cred.token)
	}
}

// probeOnce sends all requests of a probe, with one credential.
func (c *Client) probeOnce(ctx context.Context, p destination) *RequestError {
	if e := c.askReady(ctx, p); e != nil {
		return e
	}
	if e := c.askInfo(ctx, p); e != nil {
		return e
	}
	id := uuid.New()
	e := c.send(ctx, p, request{op: "probing", name: "look-up of an unknown id", url: p.at.file(id)}, discard)
	switch {
	case e == nil:
		return probing(fmt.Errorf("%w: it has a file under an id that was made up", ErrAnswer))
	case e.Status == http.StatusForbidden:
		e.Err = fmt.Errorf("%w: the token does not allow to look files up (files:read)", e.Err)
		return e
	case e.Status != http.StatusNotFound:
		return e
	}
	return c.askUpload(ctx, p)
}

// askReady asks the element whether it is ready, like an orchestrator without a token.
func (c *Client) askReady(ctx context.Context, p destination) *RequestError {
	var status int
	var raw []byte
	r := request{op: "probing", name: readyPath, url: p.at.base + readyPath, bare: true, every: true}
	e := c.send(ctx, p, r, func(resp *http.Response) (err error) {
		status = resp.StatusCode
		raw, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return err
	})
	if e != nil || status == http.StatusOK {
		return e
	}
	e = &RequestError{Op: r.op, Name: r.name, Status: status, Retryable: true, Err: ErrUnavailable}
	e.Code, e.Message = parseError(raw)
	switch {
	// The text of ENOSPC, which both kinds of element pass on when their disk is full.
	case bytes.Contains(raw, []byte("no space left")):
		e.Err = fmt.Errorf("%w: %w", ErrUnavailable, ErrFull)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.Err = fmt.Errorf("%w: %w", ErrUnavailable, ErrForbidden)
	}
	return e
}

// askInfo checks mode and free space, if the element reports them. askUpload alone is not
// enough: the Python element looks for the file of an upload before it checks its mode.
func (c *Client) askInfo(ctx context.Context, p destination) *RequestError {
	var raw []byte
	e := c.send(ctx, p, request{op: "probing", name: infoPath, url: p.at.base + infoPath, bare: true}, func(resp *http.Response) (err error) {
		raw, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return err
	})
	if e != nil {
		if e.Status != 0 {
			return nil // an element without this API is not refused
		}
		return e
	}
	mode, free := parseInfo(raw)
	e = &RequestError{Op: "probing", Name: infoPath, Status: http.StatusOK}
	switch {
	case mode != "" && !takesUploads(mode):
		e.Err = fmt.Errorf("%w: it is %q", ErrMode, clean(mode))
	case free == 0:
		e.Err = ErrFull
	default:
		return nil
	}
	return e
}

// askUpload posts a form without a file: a server that would store a file answers that
// the file is missing.
func (c *Client) askUpload(ctx context.Context, p destination) *RequestError {
	f, err := emptyForm()
	if err != nil {
		return probing(err)
	}
	e := c.send(ctx, p, request{op: "probing", name: "upload without a file", url: p.at.files("/upload"), form: f}, discard)
	switch {
	case e == nil || e.Status == http.StatusCreated:
		return probing(fmt.Errorf("%w: it took an upload without a file", ErrAnswer))
	case e.Status == http.StatusForbidden:
		e.Err = fmt.Errorf("%w: the token does not allow to store files (files:write)", e.Err)
	case e.Status == http.StatusNotFound, e.Status == http.StatusMethodNotAllowed:
		e.Err = fmt.Errorf("%w: there is no file API at this address", ErrRejected)
	case e.Status == http.StatusBadRequest && !errors.Is(e, ErrMode), e.Status == http.StatusUnprocessableEntity:
		return nil
	}
	return e
}

// form is a small body that can be sent again.
type form struct {
	contentType string
	body        []byte
}

func emptyForm() (*form, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.WriteField("description", "probe: there is no file on purpose"); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return &form{w.FormDataContentType(), b.Bytes()}, nil
}

func discard(resp *http.Response) error {
	_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	return err
}

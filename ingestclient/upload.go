package ingestclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// letGo is how long an attempt waits for its transport to close the body. It is
// immediate unless a read of the content itself hangs, as on a dead NFS mount;
// then the caller's deadline goes first.
const letGo = time.Second

// Upload streams src to the Storage Element with constant memory and returns
// when the answer's size and SHA-256 have been compared with what was sent.
// It repeats what cannot store the file twice, within Config's limits. A
// failure is an [*UploadError]; one that is also [ErrAmbiguous] may have stored
// the file.
func (c *Client) Upload(ctx context.Context, src Source, meta Meta) (*Receipt, error) {
	begun := time.Now()
	u := &upload{Client: c, src: src, meta: meta, name: filepath.Base(src.Name())}
	rec, err := u.run(ctx)
	e := Event{Kind: "upload", Took: time.Since(begun), Err: err}
	if err != nil {
		c.count.uploadErrors.Add(1)
	} else {
		c.count.uploads.Add(1)
		c.count.bytes.Add(rec.Size)
		rec.Took, e.Bytes, e.Attempt = e.Took, rec.Size, rec.Attempts
	}
	c.settings.Observer(e)
	return rec, err
}

// UploadFile is Upload of [FileSource].
func (c *Client) UploadFile(ctx context.Context, path string, meta Meta) (*Receipt, error) {
	return c.Upload(ctx, FileSource(path), meta)
}

// upload is one file on its way, over all attempts.
type upload struct {
	*Client
	src  Source
	meta Meta
	name string

	receipt *Receipt
	open    *attempt // the last one whose outcome is unknown
}

func (u *upload) run(ctx context.Context) (*Receipt, error) {
	if u.meta.FileID != "" && !validID(u.meta.FileID) {
		return nil, u.fault(fmt.Errorf("%w: FileID is not an id", ErrRejected))
	}
	ctx, leave, err := u.enter(ctx)
	if err != nil {
		return nil, u.fault(err)
	}
	defer leave()
	n, err := u.repeat(ctx, func(int) *UploadError {
		if u.stored(ctx) {
			return nil
		}
		return u.try(ctx)
	})
	if err != nil {
		return nil, err
	}
	u.receipt.Attempts = n
	return u.receipt, nil
}

func (u *upload) fault(err error) *UploadError {
	return &UploadError{Op: "uploading", Name: u.name, Attempt: 1, Err: err}
}

// stored asks, after an attempt with an id of our choice and without an outcome,
// whether the file is there. If that cannot be told, sending it again is safe.
func (u *upload) stored(ctx context.Context) bool {
	if u.open == nil || u.meta.FileID == "" {
		return false
	}
	cred, err := u.keeper.get(ctx)
	if err != nil {
		return false
	}
	defer cred.lease.done()
	rec, e := u.lookUp(ctx, cred, u.meta.FileID)
	if e != nil || rec.Size != u.open.body.size || rec.SHA256 != u.open.body.whole() {
		return false
	}
	rec.Name, rec.Replayed = u.name, true
	u.receipt = rec
	return true
}

// attempt is one request.
type attempt struct {
	*upload
	cred  *credential
	body  *body
	wrote atomic.Bool // the transport says that not all of it could be written
}

func (u *upload) try(ctx context.Context) *UploadError {
	cred, err := u.keeper.get(ctx)
	if err != nil {
		return u.noToken(ctx, err)
	}
	defer cred.lease.done()
	content, size, err := u.src.Open()
	if err != nil {
		return u.fault(fmt.Errorf("%w: %w", ErrSource, err))
	}
	b, contentType, err := newBody(content, size, u.name, &u.meta)
	if err != nil {
		_ = content.Close() // nothing was read
		return u.fault(err)
	}
	a := &attempt{upload: u, cred: cred, body: b}
	return a.send(ctx, contentType)
}

// noToken wraps a failure to get a token. Nothing was sent, so repeating is
// always safe; it is pointless when the account itself was refused.
func (u *upload) noToken(ctx context.Context, err error) *UploadError {
	e := u.fault(err)
	if auth, ok := errors.AsType[*AuthError](err); ok && ctx.Err() == nil {
		e.Retryable, e.retryAfter = auth.Temporary, auth.RetryAfter
	}
	return e
}

func (a *attempt) send(ctx context.Context, contentType string) *UploadError {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.body.watch = newWatch(a.settings, cancel)
	defer a.body.watch.stop()
	defer a.letGo(cancel)
	req, err := http.NewRequestWithContext(a.trace(ctx), http.MethodPost, a.settings.files("/upload"), a.body)
	if err != nil {
		_ = a.body.Close() // no transport will
		return a.fault(err)
	}
	// Without GetBody the transport repeats nothing that was begun: that decision is made here.
	req.ContentLength = a.body.length()
	a.sign(req, a.cred)
	req.Header.Set("Content-Type", contentType)
	if a.body.size >= a.settings.ExpectFrom {
		req.Header.Set("Expect", "100-continue")
	}
	if a.meta.IdempotencyKey != "" {
		req.Header.Set("Idempotency-Key", cleanHeader(a.meta.IdempotencyKey))
	}
	resp, err := roundTrip(a.cred.lease.storage, req)
	if err != nil {
		return a.lost(ctx, err)
	}
	raw, err := readAnswer(resp)
	// 201 is what both dialects send; 200 is what some stand-ins send.
	if resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusOK {
		if err != nil {
			return a.lost(ctx, err)
		}
		return a.accepted(resp, raw)
	}
	return a.refused(resp, raw)
}

// sign adds what every request to the Storage Element carries.
func (c *Client) sign(req *http.Request, cred *credential) {
	req.Header["Authorization"] = cred.token.header
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
}

// letGo ends the attempt for a transport that may still be reading: an early
// answer does not stop it. The next attempt reads the same file.
func (a *attempt) letGo(cancel context.CancelCauseFunc) {
	a.body.over.Store(true)
	cancel(nil)
	timer := time.NewTimer(letGo)
	defer timer.Stop()
	select {
	case <-a.body.closed:
	case <-timer.C:
	}
}

// trace learns what the round tripper's error does not say: when the connection
// was there, so that waiting for one is no stall, and whether writing failed,
// which proves that the server has not got all of it.
func (a *attempt) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			a.body.watch.begin()
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err != nil {
				a.wrote.Store(true)
			}
		},
	})
}

// report starts the error of this attempt.
func (a *attempt) report(err error) *UploadError {
	e := a.fault(err)
	e.Sent = a.body.sent.Load()
	return e
}

// settle says whether e may be repeated: yes if the server cannot have had all
// of the request, or will recognise it. Otherwise the outcome is unknown.
func (a *attempt) settle(e *UploadError) *UploadError {
	partly := a.body.whole() == "" || a.wrote.Load()
	keyed := a.meta.FileID != "" || a.meta.IdempotencyKey != ""
	e.Retryable = partly || keyed
	if !partly {
		a.open = a
		e.Err = fmt.Errorf("%w: %w", ErrAmbiguous, e.Err)
	}
	return e
}

// lost is an attempt without an answer.
func (a *attempt) lost(ctx context.Context, err error) *UploadError {
	if broken := a.body.broken(); broken != nil {
		return a.report(broken) // sending it again would read the same
	}
	e := a.report(transportError(ctx, err))
	switch {
	case errors.Is(err, rotation.ErrRetired) && a.body.sent.Load() == 0:
		e.Retryable, e.retired = true, a.cred.lease
		return e
	case errors.Is(e, ErrTLSPeer), unread(err):
		e.Retryable = true
		return e
	// The caller or Close ended it. Whether the file was stored is as unknown as
	// after a lost connection, and saying so is all that is left to do.
	case errors.Is(e, ErrClosed), errors.Is(e, context.Canceled), errors.Is(e, context.DeadlineExceeded):
		e = a.settle(e)
		e.Retryable = false // nobody waits for it any more
		return e
	}
	return a.settle(e)
}

// accepted compares what a 2xx says with what was sent.
func (a *attempt) accepted(resp *http.Response, raw []byte) *UploadError {
	got, err := parseAnswer(raw)
	sum := a.body.whole()
	if err == nil && sum == "" {
		err = errors.New("it came before the content was sent")
	}
	if err != nil {
		e := a.report(fmt.Errorf("%w: %w", ErrAnswer, err))
		e.Status = resp.StatusCode
		return a.settle(e)
	}
	// Not repeated: a second copy next to a wrong one helps nobody, and the id is
	// there for whoever wants to look at it.
	if err := got.check(a.body.size, sum); err != nil {
		e := a.report(err)
		e.Status, e.FileID = resp.StatusCode, got.fileID
		return e
	}
	a.receipt = &Receipt{FileID: got.fileID, Name: a.name, Size: got.size, SHA256: sum}
	return nil
}

// refused classifies any other status.
func (a *attempt) refused(resp *http.Response, raw []byte) *UploadError {
	e := a.report(nil)
	safe := e.answered(resp, raw, a.cred.token)
	if safe == incomplete {
		return a.settle(e)
	}
	e.Retryable = safe == always
	return e
}

// answered fills e from an answer that is no success.
func (e *UploadError) answered(resp *http.Response, raw []byte, t *token) safety {
	// The token goes first, whatever its length: what is left is cleaned by shape only.
	e.Status, e.token = resp.StatusCode, t
	e.Code, e.Message = parseError([]byte(strings.ReplaceAll(string(raw), t.secret.Expose(), "[redacted]")))
	e.retryAfter = retryAfter(resp.Header, time.Now())
	var safe safety
	safe, e.Err = byStatus(e.Status, e.Code, pythonMode(e.Message))
	return safe
}

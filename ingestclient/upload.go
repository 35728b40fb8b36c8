package ingestclient

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/wire"
	"github.com/artstore/artstore-pki/internal/tlsalert"
)

// releaseTimeout bounds the wait of an attempt for its transport to close the body. The
// transport does that at once, unless a read of the content hangs, for instance on a dead
// NFS mount.
const releaseTimeout = time.Second

// Upload streams content to a Storage Element with constant memory. It returns when size and
// SHA-256 of the answer were compared with what was sent. It repeats an attempt if that
// cannot store the file twice, within the limits of Config. The error is a [*RequestError];
// if it is also [ErrAmbiguous], the file may be stored.
func (c *Client) Upload(ctx context.Context, content Content, meta Meta) (*File, error) {
	begun := time.Now()
	u := &upload{Client: c, content: content, meta: meta, name: filepath.Base(content.Name())}
	rec, err := u.run(ctx)
	took := time.Since(begun)
	if err != nil {
		c.count.uploadErrors.Add(1)
		c.settings.Observer.Upload(took, 0, 0, err)
		return rec, err
	}
	c.count.uploads.Add(1)
	c.count.bytes.Add(rec.Size)
	rec.Took = took
	c.settings.Observer.Upload(took, rec.Size, rec.Attempts, nil)
	return rec, nil
}

// UploadFile is Upload of [FileContent].
func (c *Client) UploadFile(ctx context.Context, path string, meta Meta) (*File, error) {
	return c.Upload(ctx, FileContent(path), meta)
}

// upload is one file on its way, over all attempts.
type upload struct {
	*Client
	content Content
	meta    Meta
	name    string

	file       *File
	unresolved *attempt          // the last one whose outcome is unknown
	excluded   map[*element]bool // full, too small or in another mode: not tried again
	moves      int               // to another element; each is one more attempt
}

func (u *upload) run(ctx context.Context) (*File, error) {
	if err := u.meta.check(); err != nil {
		return nil, u.localError(fmt.Errorf("%w: %w", ErrRejected, err))
	}
	ctx, leave, err := u.enter(ctx)
	if err != nil {
		return nil, u.localError(err)
	}
	defer leave()
	n, err := u.repeat(ctx, func(int) *RequestError {
		if u.stored(ctx) {
			return nil
		}
		return u.sendToAny(ctx)
	})
	if err != nil {
		if e, ok := errors.AsType[*RequestError](err); ok {
			e.Attempt += u.moves
		}
		return nil, err
	}
	u.file.Attempts = n + u.moves
	return u.file, nil
}

// sendToAny tries one element after the other, without a pause, until one has stored
// the file, or a failure has another reason than the element. After an attempt
// without an outcome only its element is tried again: the file may be there.
func (u *upload) sendToAny(ctx context.Context) *RequestError {
	var worth *RequestError // of all failures the one to return, a retryable one if there is any
	asked := maps.Clone(u.excluded)
	for first := true; ; first = false {
		at, e := u.attemptOnce(ctx, asked)
		switch {
		case e == nil:
			u.countMove(first)
			return nil
		case at == nil: // nothing was sent
			return cmp.Or(worth, e)
		}
		u.countMove(first)
		e.Element = at.base
		if worth == nil || e.Retryable || !worth.Retryable {
			worth = e
		}
		if !e.elsewhere || u.unresolved != nil || ctx.Err() != nil {
			return e
		}
		asked = set(asked, at)
		if !u.selector.hasAlternative(asked, nil, u.meta.Retention) {
			return worth
		}
	}
}

// countMove counts an attempt at another element: it is one, but costs no retry.
func (u *upload) countMove(first bool) {
	if !first {
		u.moves++
	}
}

// chooseElement chooses the element of the next attempt.
func (u *upload) chooseElement(ctx context.Context, n requirements) (*element, error) {
	if u.unresolved != nil {
		return u.unresolved.at, nil
	}
	return u.selector.pick(ctx, n)
}

// noElement wraps the failure to choose an element. It may be that of a token request,
// because the registry needs a token too.
func (u *upload) noElement(ctx context.Context, err error) *RequestError {
	e := u.noToken(ctx, err)
	e.Retryable = e.Retryable || errors.Is(err, ErrRegistry) && ctx.Err() == nil
	return e
}

func (u *upload) localError(err error) *RequestError {
	return &RequestError{Op: "uploading", Name: u.name, Attempt: 1, Err: err}
}

// stored asks, after an attempt with an id of our choice and without an outcome,
// whether the file is there. If that cannot be told, sending it again is safe.
func (u *upload) stored(ctx context.Context) bool {
	if u.unresolved == nil || !u.meta.keyed() {
		return false
	}
	cred, err := u.tokens.get(ctx)
	if err != nil {
		return false
	}
	defer cred.lease.unref()
	rec, e := u.lookUp(ctx, destination{cred, u.unresolved.at}, u.meta.FileID)
	if e != nil || !u.unresolved.body.is(rec.Size, rec.SHA256) {
		return false
	}
	rec.Name, rec.Replayed = u.name, true
	u.file = rec
	return true
}

// destination is the element and the credential of a request.
type destination struct {
	cred *credential
	at   *element
}

// attempt is one request of an upload.
type attempt struct {
	*upload
	destination
	body         *body
	began        time.Time
	writeFailed  atomic.Bool // the request was not written completely
	needContinue bool        // the body is sent only after a 100 Continue
	continued    atomic.Bool // it was received
}

// errNoContinue ends an attempt before anything of its body was sent.
var errNoContinue = fmt.Errorf("%w: no 100 Continue", ErrNoAnswer)

// attemptOnce makes one attempt at the best element that is not in asked, and records
// its outcome. A nil element means that nothing was sent.
func (u *upload) attemptOnce(ctx context.Context, asked map[*element]bool) (*element, *RequestError) {
	cred, err := u.tokens.get(ctx)
	if err != nil {
		return nil, u.noToken(ctx, err)
	}
	defer cred.lease.unref()
	reader, size, err := u.content.Open()
	if err != nil {
		return nil, u.localError(fmt.Errorf("%w: %w", ErrContent, err))
	}
	if size < 0 {
		_ = reader.Close() // nothing was read
		return nil, u.localError(fmt.Errorf("%w: its size is %d", ErrContent, size))
	}
	at, err := u.chooseElement(ctx, requirements{size: size, retention: u.meta.Retention, asked: asked})
	if err != nil {
		_ = reader.Close() // nothing was read
		return nil, u.noElement(ctx, err)
	}
	b, contentType, err := newBody(reader, size, u.name, &u.meta)
	if err != nil {
		_ = reader.Close() // nothing was read
		return nil, u.localError(err)
	}
	if !u.settings.SkipChecksum {
		b.sum = sha256.New()
	}
	a := &attempt{upload: u, destination: destination{cred, at}, body: b, needContinue: u.needsContinue(at, asked)}
	e := a.send(ctx, contentType)
	if e != nil && errors.Is(e, errNoContinue) && u.lacksContinue(ctx, a.destination) {
		return u.attemptOnce(ctx, asked)
	}
	u.selector.recordOutcome(at, size, e)
	switch {
	case e == nil:
	case errors.Is(e, ErrFull), errors.Is(e, ErrTooLarge), errors.Is(e, ErrMode):
		u.excluded = set(u.excluded, at)
		e.elsewhere = true
	case e.Retryable && isElementFault(e):
		e.elsewhere = true
	}
	return at, e
}

// needsContinue reports whether at must send 100 Continue before it gets any byte of
// the body. Then an element that hangs has got nothing, and another one can be tried.
// Otherwise a small file would go into the buffers of the kernel completely, and its
// outcome would be unknown. With a single element that is not worth a round trip.
func (u *upload) needsContinue(at *element, asked map[*element]bool) bool {
	return u.settings.ExpectFrom != math.MaxInt64 && u.unresolved == nil && u.selector.sendsContinue(at) &&
		u.selector.hasAlternative(asked, at, u.meta.Retention)
}

// lacksContinue reports whether an element that did not send 100 Continue is ready
// nevertheless, as behind some proxies, and records that.
func (u *upload) lacksContinue(ctx context.Context, p destination) bool {
	ctx, cancel := context.WithTimeout(ctx, expectWait)
	defer cancel()
	if e := u.askReady(ctx, p); e != nil {
		return false
	}
	u.selector.setNoContinue(p.at)
	return true
}

func set(m map[*element]bool, e *element) map[*element]bool {
	if m == nil {
		m = map[*element]bool{}
	}
	m[e] = true
	return m
}

// noToken wraps a failure to get a token. Nothing was sent, so repeating is
// always safe; it is pointless when the account itself was refused.
func (u *upload) noToken(ctx context.Context, err error) *RequestError {
	e := u.localError(err)
	if auth, ok := errors.AsType[*AuthError](err); ok && ctx.Err() == nil {
		e.Retryable, e.retryAfter = auth.Temporary, auth.RetryAfter
	}
	return e
}

func (a *attempt) send(ctx context.Context, contentType string) *RequestError {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.body.watch = newWatch(a.settings, cancel)
	defer a.body.watch.stop()
	if a.needContinue {
		a.body.mayBegin = func() bool {
			if !a.continued.Load() {
				cancel(errNoContinue)
			}
			return a.continued.Load()
		}
	}
	if a.settings.pace.Limited() {
		a.body.pace = func(n int) error { return a.settings.pace.Take(ctx, n) }
	}
	defer a.releaseBody(cancel)
	req, err := http.NewRequestWithContext(a.trace(ctx), http.MethodPost, a.at.files("/upload"), a.body)
	if err != nil {
		_ = a.body.Close() // no transport will
		return a.localError(err)
	}
	// Without GetBody the transport never repeats a request: this package decides that.
	req.ContentLength = a.body.length()
	a.setHeaders(req, a.cred)
	req.Header.Set("Content-Type", contentType)
	if a.expectsContinue() {
		req.Header.Set("Expect", "100-continue")
	}
	if a.meta.IdempotencyKey != "" {
		req.Header.Set("Idempotency-Key", cleanHeader(a.meta.IdempotencyKey))
	}
	a.began = time.Now()
	resp, err := tlsalert.RoundTrip(a.cred.lease.storage, req)
	if err != nil {
		return a.transportFailure(ctx, err)
	}
	raw, err := readAnswer(resp)
	// Both dialects send 201; some test doubles send 200.
	if resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusOK {
		if err != nil {
			return a.transportFailure(ctx, err)
		}
		return a.checkAccepted(resp, raw)
	}
	return a.classifyRefusal(resp, raw)
}

// expectsContinue reports whether the request has the header Expect: 100-continue.
func (a *attempt) expectsContinue() bool {
	return a.needContinue || a.body.size >= a.settings.ExpectFrom
}

// setHeaders sets the headers of every request to a Storage Element.
func (c *Client) setHeaders(req *http.Request, cred *credential) {
	req.Header["Authorization"] = cred.token.header
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
}

// releaseBody stops a transport that still reads the body, which an early answer does
// not, and waits for it: the next attempt reads the same file.
func (a *attempt) releaseBody(cancel context.CancelCauseFunc) {
	a.body.over.Store(true)
	cancel(nil)
	select {
	case <-a.body.closed:
		return // as nearly always
	default:
	}
	timer := time.NewTimer(releaseTimeout)
	defer timer.Stop()
	select {
	case <-a.body.closed:
	case <-timer.C:
	}
}

// trace observes what the round tripper's error does not tell: when there was a
// connection, so that waiting for one is no stall, and whether writing the request
// failed, which proves that the server does not have all of it.
func (a *attempt) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			a.body.watch.begin()
			if !a.expectsContinue() {
				wire.HoldNext(got.Conn) // the header is sent together with the start of the body
			}
		},
		Got100Continue: func() { a.continued.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err != nil {
				a.writeFailed.Store(true)
			}
		},
	})
}

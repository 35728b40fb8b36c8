package ingestclient

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/wire"
	"github.com/artstore/artstore-pki/rotation"
)

// letGo is how long an attempt waits for its transport to close the body. It is
// immediate unless a read of the content itself hangs, as on a dead NFS mount;
// then the caller's deadline goes first.
const letGo = time.Second

// Upload streams content to the Storage Element with constant memory and returns
// when the answer's size and SHA-256 have been compared with what was sent.
// It repeats what cannot store the file twice, within Config's limits. A
// failure is an [*RequestError]; one that is also [ErrAmbiguous] may have stored
// the file.
func (c *Client) Upload(ctx context.Context, content Content, meta Meta) (*File, error) {
	begun := time.Now()
	u := &upload{Client: c, content: content, meta: meta, name: filepath.Base(content.Name())}
	rec, err := u.run(ctx)
	e := Event{Kind: EventUpload, Took: time.Since(begun), Err: err}
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

// UploadFile is Upload of [FileContent].
func (c *Client) UploadFile(ctx context.Context, path string, meta Meta) (*File, error) {
	return c.Upload(ctx, FileContent(path), meta)
}

// UploadReader is Upload of [ReaderContent].
func (c *Client) UploadReader(ctx context.Context, name string, r io.ReaderAt, size int64, meta Meta) (*File, error) {
	return c.Upload(ctx, ReaderContent(name, r, size), meta)
}

// upload is one file on its way, over all attempts.
type upload struct {
	*Client
	content Content
	meta    Meta
	name    string

	file    *File
	open    *attempt          // the last one whose outcome is unknown
	refused map[*element]bool // full, too small or of another mode: not asked again
	moves   int               // to another element, which are attempts too
}

func (u *upload) run(ctx context.Context) (*File, error) {
	if err := u.meta.check(); err != nil {
		return nil, u.fault(fmt.Errorf("%w: %w", ErrRejected, err))
	}
	ctx, leave, err := u.enter(ctx)
	if err != nil {
		return nil, u.fault(err)
	}
	defer leave()
	n, err := u.repeat(ctx, func(int) *RequestError {
		if u.stored(ctx) {
			return nil
		}
		return u.somewhere(ctx)
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

// somewhere tries one element after the other, without a pause, until one takes
// the file or what happened is not the element's fault. An attempt without an
// outcome ties the upload to its element: the file may be there.
func (u *upload) somewhere(ctx context.Context) *RequestError {
	var worth *RequestError // a failure that may pass, of all those met
	asked := maps.Clone(u.refused)
	for first := true; ; first = false {
		at, e := u.try(ctx, asked)
		switch {
		case e == nil:
			u.moved(first)
			return nil
		case at == nil: // nothing was sent
			return orElse(worth, e)
		}
		u.moved(first)
		e.Element = at.base
		if worth == nil || e.Retryable || !worth.Retryable {
			worth = e
		}
		if !e.elsewhere || u.open != nil || ctx.Err() != nil {
			return e
		}
		asked = set(asked, at)
		if !u.fleet.another(asked, nil, u.meta.Retention) {
			return worth
		}
	}
}

// moved counts an attempt at another element: it is one, but costs no retry.
func (u *upload) moved(first bool) {
	if !first {
		u.moves++
	}
}

// place chooses the element of the next attempt.
func (u *upload) place(ctx context.Context, n need) (*element, error) {
	if u.open != nil {
		return u.open.at, nil
	}
	return u.fleet.pick(ctx, n)
}

// homeless is an upload for which no element can be named.
func (u *upload) homeless(ctx context.Context, err error) *RequestError {
	e := u.noToken(ctx, err) // the registry wants a token too
	e.Retryable = e.Retryable || errors.Is(err, ErrRegistry) && ctx.Err() == nil
	return e
}

func (u *upload) fault(err error) *RequestError {
	return &RequestError{Op: "uploading", Name: u.name, Attempt: 1, Err: err}
}

// stored asks, after an attempt with an id of our choice and without an outcome,
// whether the file is there. If that cannot be told, sending it again is safe.
func (u *upload) stored(ctx context.Context) bool {
	if u.open == nil || !u.meta.keyed() {
		return false
	}
	cred, err := u.keeper.get(ctx)
	if err != nil {
		return false
	}
	defer cred.lease.done()
	rec, e := u.lookUp(ctx, place{cred, u.open.at}, u.meta.FileID)
	if e != nil || !u.open.body.is(rec.Size, rec.SHA256) {
		return false
	}
	rec.Name, rec.Replayed = u.name, true
	u.file = rec
	return true
}

// place is where a request goes and as whom.
type place struct {
	cred *credential
	at   *element
}

// attempt is one request.
type attempt struct {
	*upload
	place
	body      *body
	began     time.Time
	wrote     atomic.Bool // the transport says that not all of it could be written
	demands   bool        // nothing of the body goes out without a 100 Continue
	continued atomic.Bool // that came
}

// errNoConsent ends an attempt before anything of its body was sent.
var errNoConsent = fmt.Errorf("%w: no 100 Continue", ErrNoAnswer)

// try makes one attempt at the best element that was not asked, and the fleet
// learns from it. Without an element nothing was sent.
func (u *upload) try(ctx context.Context, asked map[*element]bool) (*element, *RequestError) {
	cred, err := u.keeper.get(ctx)
	if err != nil {
		return nil, u.noToken(ctx, err)
	}
	defer cred.lease.done()
	reader, size, err := u.content.Open()
	if err != nil {
		return nil, u.fault(fmt.Errorf("%w: %w", ErrContent, err))
	}
	if size < 0 {
		_ = reader.Close() // nothing was read
		return nil, u.fault(fmt.Errorf("%w: its size is %d", ErrContent, size))
	}
	at, err := u.place(ctx, need{size: size, retention: u.meta.Retention, asked: asked})
	if err != nil {
		_ = reader.Close() // nothing was read
		return nil, u.homeless(ctx, err)
	}
	b, contentType, err := newBody(reader, size, u.name, &u.meta)
	if err != nil {
		_ = reader.Close() // nothing was read
		return nil, u.fault(err)
	}
	if !u.settings.SkipChecksum {
		b.sum = sha256.New()
	}
	a := &attempt{upload: u, place: place{cred, at}, body: b, demands: u.demands(at, asked)}
	e := a.send(ctx, contentType)
	if e != nil && errors.Is(e, errNoConsent) && u.deaf(ctx, a.place) {
		return u.try(ctx, asked)
	}
	u.fleet.learn(at, size, e)
	switch {
	case e == nil:
	case errors.Is(e, ErrFull), errors.Is(e, ErrTooLarge), errors.Is(e, ErrMode):
		u.refused = set(u.refused, at)
		e.elsewhere = true
	case e.Retryable && down(e):
		e.elsewhere = true
	}
	return at, e
}

// demands reports whether at must answer before it gets anything of the body.
// Where there is another element, one that hangs then costs no file: a small
// file would have been sent completely, into the buffers of the kernel, and its
// outcome be unknown. With a single element that would not be worth a round trip.
func (u *upload) demands(at *element, asked map[*element]bool) bool {
	return u.settings.ExpectFrom != math.MaxInt64 && u.open == nil && u.fleet.asksConsent(at) &&
		u.fleet.another(asked, at, u.meta.Retention)
}

// deaf finds out whether an element that did not say 100 Continue is well and
// merely does not know it, as behind some proxies, and remembers that.
func (u *upload) deaf(ctx context.Context, p place) bool {
	ctx, cancel := context.WithTimeout(ctx, expectWait)
	defer cancel()
	if e := u.askReady(ctx, p); e != nil {
		return false
	}
	u.fleet.setDeaf(p.at)
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
	e := u.fault(err)
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
	if a.demands {
		a.body.consent = func() bool {
			if !a.continued.Load() {
				cancel(errNoConsent)
			}
			return a.continued.Load()
		}
	}
	if a.settings.pace.Limited() {
		a.body.pace = func(n int) error { return a.settings.pace.Take(ctx, n) }
	}
	defer a.letGo(cancel)
	req, err := http.NewRequestWithContext(a.trace(ctx), http.MethodPost, a.at.files("/upload"), a.body)
	if err != nil {
		_ = a.body.Close() // no transport will
		return a.fault(err)
	}
	// Without GetBody the transport repeats nothing that was begun: that decision is made here.
	req.ContentLength = a.body.length()
	a.sign(req, a.cred)
	req.Header.Set("Content-Type", contentType)
	if a.asks() {
		req.Header.Set("Expect", "100-continue")
	}
	if a.meta.IdempotencyKey != "" {
		req.Header.Set("Idempotency-Key", cleanHeader(a.meta.IdempotencyKey))
	}
	a.began = time.Now()
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

// asks reports whether the server is asked for its consent before the body goes out.
func (a *attempt) asks() bool { return a.demands || a.body.size >= a.settings.ExpectFrom }

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
	select {
	case <-a.body.closed:
		return // as nearly always
	default:
	}
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
		GotConn: func(got httptrace.GotConnInfo) {
			a.body.watch.begin()
			if !a.asks() {
				wire.HoldNext(got.Conn) // the header goes out with the begin of the body
			}
		},
		Got100Continue: func() { a.continued.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err != nil {
				a.wrote.Store(true)
			}
		},
	})
}

// report starts the error of this attempt.
func (a *attempt) report(err error) *RequestError {
	e := a.fault(err)
	e.Sent = a.body.sent.Load()
	return e
}

// settle says whether e may be repeated: yes if the server cannot have had all
// of the request, or will recognise it. Otherwise the outcome is unknown.
func (a *attempt) settle(e *RequestError) *RequestError {
	partly := a.body.cut() || a.wrote.Load()
	keyed := a.meta.keyed() || a.meta.IdempotencyKey != ""
	e.Retryable = partly || keyed
	if !partly {
		a.open = a
		e.Err = fmt.Errorf("%w: %w", ErrAmbiguous, e.Err)
	}
	return e
}

// lost is an attempt without an answer.
func (a *attempt) lost(ctx context.Context, err error) *RequestError {
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
	// after a lost connection, and saying so is all that is left to do. The error
	// itself does not tell: a dial that takes too long is a deadline as well.
	case ended(ctx):
		e = a.settle(e)
		e.Retryable = false // nobody waits for it any more
		return e
	}
	return a.settle(e)
}

// ended reports whether the caller or Close ended an attempt, and not its watch.
func ended(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause != nil && !errors.Is(cause, ErrNoAnswer) && !errors.Is(cause, ErrStalled) && !errors.Is(cause, ErrTooSlow)
}

// accepted compares what a 2xx says with what was sent.
func (a *attempt) accepted(resp *http.Response, raw []byte) *RequestError {
	got, err := parseAnswer(raw)
	if err == nil && !a.body.complete() {
		err = errors.New("it came before the content was sent")
	}
	if err != nil {
		e := a.report(fmt.Errorf("%w: %w", ErrAnswer, err))
		e.Status = resp.StatusCode
		return a.settle(e)
	}
	// Not repeated: a second copy next to a wrong one helps nobody, and the id is
	// there for whoever wants to look at it.
	if err := got.check(a.body); err != nil {
		e := a.report(err)
		e.Status, e.FileID = resp.StatusCode, got.fileID
		return e
	}
	a.file = &File{FileID: got.fileID, Name: a.name, Element: a.at.base, Size: got.size, SHA256: got.sha256, Dropped: a.meta.dropped(got.kept)}
	return nil
}

// refused classifies any other status.
func (a *attempt) refused(resp *http.Response, raw []byte) *RequestError {
	e := a.report(nil)
	safe := e.answered(resp, raw, a.cred.token, a.began)
	if safe == incomplete {
		return a.settle(e)
	}
	e.Retryable = safe == always
	return e
}

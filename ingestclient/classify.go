package ingestclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/tlsalert"
	"github.com/artstore/artstore-pki/rotation"
)

// safety says when a request may be sent again.
type safety int

const (
	never      safety = iota
	always            // the server has not processed it
	incomplete        // only if the server cannot have all of it, or recognises it by its id
)

// byStatus returns what an answer means. mode is true if the message is that of the
// Python dialect for a mode without uploads.
func byStatus(status int, code string, mode bool) (safety, error) {
	switch status {
	case http.StatusUnauthorized:
		return never, ErrUnauthorized // the retry for it has rules of its own
	case http.StatusForbidden:
		return never, ErrForbidden
	case http.StatusNotFound:
		return never, ErrNotFound
	case http.StatusRequestEntityTooLarge:
		return never, ErrTooLarge
	case http.StatusInsufficientStorage:
		return never, ErrFull
	case http.StatusConflict, http.StatusBadRequest:
		if mode || code == "MODE_NOT_ALLOWED" {
			return never, ErrMode
		}
		return never, ErrRejected
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return always, ErrServer
	}
	if status >= 500 {
		return incomplete, ErrServer
	}
	return never, ErrRejected
}

// pythonMode recognises "File upload not allowed in ro mode", which the Python element sends
// with status 400.
func pythonMode(message string) bool {
	return strings.Contains(message, "not allowed in") && strings.HasSuffix(message, "mode")
}

// transportError wraps the error of a round trip in its sentinel. If the caller or a
// progressWatch ended the attempt, the result is the cause of that instead.
func transportError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	switch {
	case tlsalert.CertificateRefused(err):
		return fmt.Errorf("%w: %w", ErrClientCertificate, err)
	case refusedByUs(err):
		return fmt.Errorf("%w: %w", ErrServerCertificate, err)
	case tlsalert.Refused(err), noTLS(err):
		return fmt.Errorf("%w: %w", ErrTLSPeer, err)
	}
	return fmt.Errorf("%w: %w", ErrConnection, withoutServerText(err))
}

// refusedByUs reports whether this side refused the certificate of the server.
func refusedByUs(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok || errors.Is(err, rotation.ErrRevoked) || errors.Is(err, rotation.ErrPeerDenied)
}

// noTLS reports whether the server does not speak TLS.
func noTLS(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

// withoutServerText returns errors of known kinds as they are, and cuts others before
// the first quote: there net/http quotes text of the server, which may be a secret.
func withoutServerText(err error) error {
	for _, known := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, known) {
			return err
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return err
	}
	text, _, cut := strings.Cut(err.Error(), `"`)
	if !cut {
		return err
	}
	return errors.New(strings.TrimSpace(text))
}

// notRead reports whether the server had closed the connection before this request
// was written to it. net/http has an unexported error for that, which it returns only
// if the connection ended while no request was under way. If its text changes, the
// failure counts as ambiguous, which is safe.
func notRead(err error) bool {
	return err != nil && strings.Contains(err.Error(), "server closed idle connection")
}

// answered sets e from an answer that is no success, to a request with token t that was
// sent at that time, and returns when the request may be sent again.
func (e *RequestError) answered(resp *http.Response, raw []byte, t *token, sent time.Time) safety {
	// First the token itself is removed; after that, text that looks like a token.
	e.Status, e.token = resp.StatusCode, t
	e.Code, e.Message = parseError(t.redact(raw))
	e.retryAfter = retryAfter(resp.Header, time.Now())
	var safe safety
	safe, e.Err = byStatus(e.Status, e.Code, pythonMode(e.Message))
	if e.Status == http.StatusUnauthorized {
		e.Err = t.explain(e.Err, resp.Header, sent)
	}
	return safe
}

// newError returns the error of this attempt, with the bytes sent.
func (a *attempt) newError(err error) *RequestError {
	e := a.localError(err)
	e.Sent = a.body.sent.Load()
	return e
}

// classifyRetry sets whether e may be repeated: yes if the server cannot have all of
// the request, or recognises a second one by its id. If the server may have all of it,
// e is also ErrAmbiguous.
func (a *attempt) classifyRetry(e *RequestError) *RequestError {
	partly := a.body.cut() || a.writeFailed.Load()
	keyed := a.meta.keyed() || a.meta.IdempotencyKey != ""
	e.Retryable = partly || keyed
	if !partly {
		a.unresolved = a
		e.Err = fmt.Errorf("%w: %w", ErrAmbiguous, e.Err)
	}
	return e
}

// transportFailure returns the error of an attempt without an answer.
func (a *attempt) transportFailure(ctx context.Context, err error) *RequestError {
	if broken := a.body.contentError(); broken != nil {
		return a.newError(broken) // another attempt would read the same content
	}
	e := a.newError(transportError(ctx, err))
	switch {
	case errors.Is(err, rotation.ErrRetired) && a.body.sent.Load() == 0:
		e.Retryable, e.retired = true, a.cred.lease
		return e
	case errors.Is(e, ErrTLSPeer), notRead(err):
		e.Retryable = true
		return e
	// The caller or Close ended it. The outcome is as unknown as after a lost
	// connection, but it is not repeated. ctx is asked and not err, because the error
	// of a dial that takes too long is a deadline as well.
	case ended(ctx):
		e = a.classifyRetry(e)
		e.Retryable = false // the caller does not wait any more
		return e
	}
	return a.classifyRetry(e)
}

// ended reports whether the caller or Close ended an attempt, and not its progressWatch.
func ended(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause != nil && !errors.Is(cause, ErrNoAnswer) && !errors.Is(cause, ErrStalled) && !errors.Is(cause, ErrTooSlow)
}

// checkAccepted compares the size and the checksum of a 2xx with what was sent.
func (a *attempt) checkAccepted(resp *http.Response, raw []byte) *RequestError {
	got, err := parseAnswer(raw)
	if err == nil && !a.body.complete() {
		err = errors.New("it came before the content was sent")
	}
	if err != nil {
		e := a.newError(fmt.Errorf("%w: %w", ErrAnswer, err))
		e.Status = resp.StatusCode
		return a.classifyRetry(e)
	}
	// This is not repeated: a second copy beside a wrong one does not help. The error
	// has the id of the wrong one.
	if err := got.check(a.body); err != nil {
		e := a.newError(err)
		e.Status, e.FileID = resp.StatusCode, got.fileID
		return e
	}
	a.file = &File{FileID: got.fileID, Name: a.name, Element: a.at.base, Size: got.size, SHA256: got.sha256, Dropped: a.meta.dropped(got.kept)}
	return nil
}

// classifyRefusal returns the error for any other status.
func (a *attempt) classifyRefusal(resp *http.Response, raw []byte) *RequestError {
	e := a.newError(nil)
	safe := e.answered(resp, raw, a.cred.token, a.began)
	if safe == incomplete {
		return a.classifyRetry(e)
	}
	e.Retryable = safe == always
	return e
}

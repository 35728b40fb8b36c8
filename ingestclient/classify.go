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
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// safety says when a request may be sent again.
type safety int

const (
	never      safety = iota
	always            // it was not processed
	incomplete        // only if the server cannot have seen all of it, or will recognise it
)

// byStatus is the table of what an answer means. mode says that the message is
// the Python dialect's for a mode that takes no uploads.
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

// pythonMode recognises "File upload not allowed in ro mode", which comes as a plain 400.
func pythonMode(message string) bool {
	return strings.Contains(message, "not allowed in") && strings.HasSuffix(message, "mode")
}

// transportError says what a failed round trip means. The reason the attempt was
// ended for, by the caller or by a watch, goes before whatever the transport made of it.
func transportError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	switch {
	case certificateRefused(err):
		return fmt.Errorf("%w: %w", ErrClientCertificate, err)
	case refusedByUs(err):
		return fmt.Errorf("%w: %w", ErrServerCertificate, err)
	case refusedByPeer(err), noTLS(err):
		return fmt.Errorf("%w: %w", ErrTLSPeer, err)
	}
	return fmt.Errorf("%w: %w", ErrConnection, quiet(err))
}

// certificateAlerts are the alerts with which a server refuses a certificate, ours
// that is; otherAlerts those with which it ends a handshake because of what we offer. Under TLS 1.3 they arrive after the client has
// finished its side, so they can look like an answer to a request that was sent;
// it was never read. crypto/tls does not export their type, so their text counts.
var (
	certificateAlerts = []string{
		"tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate", "tls: expired certificate",
		"tls: unknown certificate", "tls: unknown certificate authority", "tls: access denied", "tls: certificate required",
	}
	otherAlerts = []string{
		"tls: handshake failure", "tls: protocol version not supported", "tls: no application protocol", "tls: unrecognized name",
	}
)

func certificateRefused(err error) bool { return slices.Contains(certificateAlerts, alert(err)) }

func refusedByPeer(err error) bool {
	return certificateRefused(err) || slices.Contains(otherAlerts, alert(err))
}

// alert is the text of the alert that the server has sent, or "".
func alert(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return op.Err.Error()
	}
	return ""
}

func refusedByUs(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok || errors.Is(err, rotation.ErrRevoked) || errors.Is(err, rotation.ErrPeerDenied)
}

// noTLS reports whether the server speaks something else.
func noTLS(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

// quiet keeps errors of known kinds and cuts the others before the first quote:
// net/http quotes there what the server sent, which may be anything.
func quiet(err error) error {
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

// unread reports whether the server had closed the connection before this
// request was written to it. net/http says so with an unexported value, which it
// sets only when the end was seen while no request was under way; should the
// text ever change, the failure counts as ambiguous, which is merely careful.
func unread(err error) bool {
	return err != nil && strings.Contains(err.Error(), "server closed idle connection")
}

// answered fills e from an answer that is no success, to what was sent then.
func (e *RequestError) answered(resp *http.Response, raw []byte, t *token, sent time.Time) safety {
	// The token goes first, whatever its length: what is left is cleaned by shape only.
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

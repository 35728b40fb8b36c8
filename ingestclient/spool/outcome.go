package spool

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
)

// outcome is the result of an attempt. It decides about its file and about the whole queue.
type outcome int

const (
	outcomeStored      outcome = iota
	outcomeElement             // the element stores nothing now: pause, then probe
	outcomeFull                // the same, because it is full or in a mode without uploads
	outcomeCredentials         // the same, until an operator acts
	outcomeLocal               // the same, because of our own disk
	outcomeRefused             // this file can never be stored: to failed/
	outcomeUnknown             // it may be stored, and that cannot be looked up: to ambiguous/
	outcomeChanged             // it is still written to: back to its source directory
	outcomeGone                // the claimed file was removed
	outcomeStopped             // the run ends
)

// Reasons why nothing is sent, in status, health, metrics and logs.
const (
	reasonFull        = "full"        // no element has room
	reasonMode        = "mode"        // each element is in a mode that takes nothing
	reasonCredentials = "credentials" // account, token or certificate are not accepted
	reasonToken       = "token"       // the token endpoint gives none
	reasonDisk        = "disk"        // our own disk cannot be written
	reasonHanging     = "hanging"     // the element does not answer, or hardly moves a byte
	reasonFailing     = "failing"     // it answers that it fails, or is not ready
	reasonTLS         = "tls"         // one side does not accept the other's certificate
	reasonUnreachable = "unreachable" // there is no connection
	reasonElement     = "element"     // anything else
	reasonLowDisk     = "low disk"    // less than MinFree: nothing more is claimed
	reasonDirectory   = "directory"   // files cannot be claimed
)

// pauseReason returns the reason for a pause. If several elements failed in several
// ways, the first match in the list counts.
func pauseReason(v outcome, err error) string {
	switch v {
	case outcomeCredentials:
		return reasonCredentials
	case outcomeLocal:
		return reasonDisk
	}
	for _, c := range []struct {
		is   error
		word string
	}{
		{ingestclient.ErrFull, reasonFull}, {ingestclient.ErrMode, reasonMode},
		{ingestclient.ErrTokenEndpoint, reasonToken}, {ingestclient.ErrTokenAnswer, reasonToken},
		{ingestclient.ErrTLSPeer, reasonTLS},
		{ingestclient.ErrNoAnswer, reasonHanging}, {ingestclient.ErrStalled, reasonHanging}, {ingestclient.ErrTooSlow, reasonHanging},
		{ingestclient.ErrServer, reasonFailing}, {ingestclient.ErrUnavailable, reasonFailing},
	} {
		if errors.Is(err, c.is) {
			return c.word
		}
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return reasonHanging
	}
	if errors.Is(err, ingestclient.ErrConnection) {
		return reasonUnreachable
	}
	return reasonElement
}

// pauses reports whether the whole queue has to wait.
func (v outcome) pauses() bool {
	return v == outcomeElement || v == outcomeFull || v == outcomeCredentials || v == outcomeLocal
}

// classify returns the outcome of a failed request. That the outcome is unknown counts
// before its cause. An error that is not known to be the fault of the file counts as
// one of the element, because a file that waits can still be sent, and one in failed/
// waits for an operator.
func classify(ctx context.Context, err error) outcome {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	status := 0
	if e, ok := errors.AsType[*ingestclient.RequestError](err); ok {
		status = e.Status
	}
	switch {
	case is(journal.ErrWrite):
		return outcomeLocal
	case is(ingestclient.ErrAmbiguous):
		return outcomeUnknown
	case is(ingestclient.ErrFileChanged):
		return outcomeChanged
	case is(ingestclient.ErrContent) && is(fs.ErrNotExist):
		return outcomeGone
	case ctx.Err() != nil, is(ingestclient.ErrClosed):
		return outcomeStopped
	case is(ingestclient.ErrFull, ingestclient.ErrMode):
		return outcomeFull
	case is(ingestclient.ErrCredentials, ingestclient.ErrTokenBinding, ingestclient.ErrUnauthorized, ingestclient.ErrForbidden):
		return outcomeCredentials
	case is(ingestclient.ErrTooLarge, ingestclient.ErrChecksum, ingestclient.ErrContent):
		return outcomeRefused
	case is(ingestclient.ErrRejected) && !wrongAddress(status):
		return outcomeRefused
	}
	return outcomeElement
}

// wrongAddress reports whether status is a redirect or "no such method". A server that is no
// Storage Element sends these, so they are no fault of the file.
func wrongAddress(status int) bool {
	return status >= 300 && status < 400 || status == http.StatusMethodNotAllowed
}

// sentNothing reports whether a failed upload proves that the element has no complete
// copy. An error that is not ambiguous does, if it was the only attempt. With an id of
// our choice (chosen), an earlier attempt without an outcome may have been repeated.
func sentNothing(err error, chosen bool) bool {
	if errors.Is(err, ingestclient.ErrAmbiguous) || errors.Is(err, ingestclient.ErrChecksum) {
		return false
	}
	if !chosen {
		return true
	}
	e, ok := errors.AsType[*ingestclient.RequestError](err)
	return ok && e.Attempt <= 1
}

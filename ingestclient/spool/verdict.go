package spool

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"

	"github.com/artstore/artstore-pki/ingestclient"
)

// verdict is what an attempt means for the file and for those behind it.
type verdict int

const (
	verdictStored      verdict = iota
	verdictElement             // it takes nothing now: pause, then one probe
	verdictFull                // the same, because there is no room or the mode is wrong
	verdictCredentials         // the same, until a human acts
	verdictLocal               // our own disk: the same
	verdictRefused             // this file, for good: to failed/
	verdictUnknown             // it may be stored, and nobody can say: to ambiguous/
	verdictChanged             // it is still being written: back to where it came from
	verdictGone                // somebody removed the claimed file
	verdictStopped             // we were told to stop
)

// Why nothing is sent: the words of status, health, metrics and logs.
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

// pauseReason is the word for a pause. Where several elements failed in several
// ways, the first of the list counts.
func pauseReason(v verdict, err error) string {
	switch v {
	case verdictCredentials:
		return reasonCredentials
	case verdictLocal:
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
func (v verdict) pauses() bool {
	return v == verdictElement || v == verdictFull || v == verdictCredentials || v == verdictLocal
}

// judge classifies a failed request. An unknown outcome goes before its cause:
// what was lost matters more than why. Whatever is not known to be the file's
// fault is the element's, because a file that waits can still be sent, and one
// in failed/ waits for a human.
func judge(ctx context.Context, err error) verdict {
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
	case is(errJournal):
		return verdictLocal
	case is(ingestclient.ErrAmbiguous):
		return verdictUnknown
	case is(ingestclient.ErrFileChanged):
		return verdictChanged
	case is(ingestclient.ErrContent) && is(fs.ErrNotExist):
		return verdictGone
	case ctx.Err() != nil, is(ingestclient.ErrClosed):
		return verdictStopped
	case is(ingestclient.ErrFull, ingestclient.ErrMode):
		return verdictFull
	case is(ingestclient.ErrCredentials, ingestclient.ErrTokenBinding, ingestclient.ErrUnauthorized, ingestclient.ErrForbidden):
		return verdictCredentials
	case is(ingestclient.ErrTooLarge, ingestclient.ErrChecksum, ingestclient.ErrContent):
		return verdictRefused
	case is(ingestclient.ErrRejected) && !wrongAddress(status):
		return verdictRefused
	}
	return verdictElement
}

// wrongAddress: a redirect or "no such method" comes from something that is no
// Storage Element. Neither is the file's fault.
func wrongAddress(status int) bool {
	return status >= 300 && status < 400 || status == http.StatusMethodNotAllowed
}

// sentNothing reports whether a failed upload proves that the element has no
// complete copy. A failure without a word of doubt does, if it was the only
// attempt; behind it there may be an earlier one, repeated under the same id,
// whose outcome nobody learnt.
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

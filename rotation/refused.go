package rotation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/lograte"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/tlsalert"
	"github.com/artstore/artstore-pki/rotation/status"
)

// reason is why a peer was refused, in the order of the fields of [status.RefusedPeers].
type reason int

const (
	reasonNoCertificate reason = iota
	reasonUnknownIssuer
	reasonExpired
	reasonRevoked
	reasonDenied
	reasonProtocol
	reasonOther
	reasons // how many there are

	noRefusal reason = -1
)

const maxErrorText = 400 // bytes in a line of the log; the peer has a say in them

// String is the name of the reason in metrics and logs.
func (r reason) String() string {
	for name := range (status.RefusedPeers{}).All() {
		if r == 0 {
			return name
		}
		r--
	}
	return ""
}

// occasion is when a peer was refused.
type occasion string

const (
	inHandshake  occasion = "handshake"
	atRequest    occasion = "request"
	onConnection occasion = "connection" // an open one, which is cut
)

// refusals of one reason.
type refusals struct {
	count atomic.Uint64
	lines lograte.Gate
}

// refuse counts and logs that a peer was refused with err, and reports false if
// err says that it was not: then the caller knows what to make of it. The log has
// one line per reason and minute, and each refusal at debug level: anyone can
// cause them.
func (id *Identity) refuse(at occasion, peer string, err error) bool {
	why := reasonOf(at, err)
	if why == noRefusal {
		return false
	}
	r := &id.refused[why]
	r.count.Add(1)
	level, attrs := slog.LevelDebug, []any{"reason", why.String(), "during", string(at), "err", errorText(err)}
	if peer != "" {
		attrs = append(attrs, "peer", peer)
	}
	if n := r.lines.Pass(time.Now()); n > 0 {
		level, attrs = slog.LevelInfo, append(attrs, "count", n)
	}
	id.log.Log(id.ctx, level, "peer refused", attrs...)
	return true
}

// peerOf is the address of the other end, "" if the connection has none.
func peerOf(c net.Conn) string {
	if addr := c.RemoteAddr(); addr != nil {
		return addr.String()
	}
	return ""
}

// errorText is fit for a line of the log: text of a peer that is part of it can
// neither steer a terminal nor fill a disk.
func errorText(err error) string {
	s := err.Error()
	if len(s) > maxErrorText {
		s = s[:maxErrorText] + "…"
	}
	return printable.Clean(s)
}

func (id *Identity) refusedPeers() status.RefusedPeers {
	n := func(r reason) uint64 { return id.refused[r].count.Load() }
	return status.RefusedPeers{
		NoCertificate: n(reasonNoCertificate), UnknownIssuer: n(reasonUnknownIssuer), Expired: n(reasonExpired),
		Revoked: n(reasonRevoked), Denied: n(reasonDenied), Protocol: n(reasonProtocol), Other: n(reasonOther),
	}
}

var (
	errPeerExpired = errors.New("the peer's certificate has expired")
	errTooOld      = errors.New("the connection has reached its age")
	errCleartext   = errors.New("the request did not come over TLS")
)

// deniedError is what Authorize answered, which may be any error.
type deniedError struct{ error }

func (e deniedError) Unwrap() error { return e.error }

// faultError is of this side: the peer did nothing wrong.
type faultError struct{ error }

func (e faultError) Unwrap() error { return e.error }

// reasonOf classifies the error of a handshake, a request or a judgement.
func reasonOf(at occasion, err error) reason {
	switch {
	case errors.Is(err, errTooOld), at == inHandshake && hungUp(err):
		return noRefusal
	case errors.Is(err, ErrRevoked):
		return reasonRevoked
	case errors.Is(err, errNoCertificate), at == inHandshake && err.Error() == sentNoCertificate:
		return reasonNoCertificate
	case is[deniedError](err):
		return reasonDenied
	case is[faultError](err):
		return reasonOther
	case errors.Is(err, errPeerExpired), outOfDate(err):
		return reasonExpired
	case is[x509.UnknownAuthorityError](err):
		return reasonUnknownIssuer
	case is[*tls.CertificateVerificationError](err): // not for clients, for instance
		return reasonOther
	case errors.Is(err, errCleartext), at == inHandshake && !timeout(err) && tlsalert.Text(err) == "":
		return reasonProtocol
	}
	return reasonOther
}

// sentNoCertificate is how crypto/tls says so; it has no error to match.
const sentNoCertificate = "tls: client didn't provide a certificate"

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func outOfDate(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

func timeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// hungUp reports whether the peer, or the server that is closing, left without a word.
func hungUp(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "read" || op.Op == "write") && !op.Timeout() {
		return true
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, context.Canceled} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

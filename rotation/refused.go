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

// reason is why a peer was refused. The order is that of the fields of
// [status.RefusedPeers].
type reason int

const (
	reasonNoCertificate reason = iota
	reasonUnknownIssuer
	reasonExpired
	reasonRevoked
	reasonDenied
	reasonProtocol
	reasonOther
	reasons // the number of reasons

	noRefusal reason = -1 // nobody was refused
)

// maxErrorText bounds an error in a line of the log, in bytes: a peer can choose parts of
// its text.
const maxErrorText = 400

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

// refusals counts the refusals for one reason, and limits the log lines about them.
type refusals struct {
	count atomic.Uint64
	lines lograte.Gate
}

// refuse counts and logs that a peer was refused with err. It returns false, and does
// neither, if err does not mean a refusal: the peer hung up, or its connection was too
// old. Anyone can cause refusals, so the log has one line for each reason and minute; at
// debug level it has all.
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

// peerOf returns the address of the other end, "" if the connection has none.
func peerOf(c net.Conn) string {
	if addr := c.RemoteAddr(); addr != nil {
		return addr.String()
	}
	return ""
}

// errorText returns the text of err for one line of the log, without characters that
// control a terminal, and cut at maxErrorText.
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

// deniedError wraps the error of an Authorizer, which may be any error.
type deniedError struct{ error }

func (e deniedError) Unwrap() error { return e.error }

// faultError wraps a fault of this side: the peer did nothing wrong.
type faultError struct{ error }

func (e faultError) Unwrap() error { return e.error }

// reasonOf classifies an error by which a handshake failed, a request was refused or an
// open connection was cut. The order of the cases matters: an error may match several.
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

// sentNoCertificate is the text of crypto/tls for a client without a certificate. It has
// no error value to match.
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

// hungUp reports whether the connection ended without a TLS alert: the peer closed it, or
// this server is closing.
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

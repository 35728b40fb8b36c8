// Package tlsalert tells how a TLS peer has ended a handshake or a connection, by the
// alert that it has sent (RFC 8446 §6).
package tlsalert

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
)

// Alerts of a server. With TLS 1.3 they arrive after the client has finished the
// handshake, so they can look like an answer to a request; the server never read it.
// crypto/tls does not export their type, so their texts are compared.
var (
	certificateAlerts = []string{
		"tls: bad certificate", "tls: unsupported certificate", "tls: revoked certificate", "tls: expired certificate",
		"tls: unknown certificate", "tls: unknown certificate authority", "tls: access denied", "tls: certificate required",
	}
	handshakeAlerts = []string{
		"tls: handshake failure", "tls: protocol version not supported", "tls: no application protocol", "tls: unrecognized name",
	}
)

// Text returns the text of the alert that the peer has sent, or "" if err is none.
func Text(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return op.Err.Error()
	}
	return ""
}

// CertificateRefused reports whether the peer has refused our certificate.
func CertificateRefused(err error) bool { return slices.Contains(certificateAlerts, Text(err)) }

// Refused reports whether the peer has ended the handshake because of our certificate,
// or because of what else we offer.
func Refused(err error) bool {
	return CertificateRefused(err) || slices.Contains(handshakeAlerts, Text(err))
}

// RoundTrip sends req over rt, and returns the server's alert where net/http loses it.
// With TLS 1.3 a server refuses a client's certificate after the client has finished
// the handshake (RFC 8446 §4.4.2.4), so its alert races with the request, and net/http
// returns the error of the goroutine that failed first. If that is the writing one,
// the alert is read from the connection.
func RoundTrip(rt http.RoundTripper, req *http.Request) (*http.Response, error) {
	var conn atomic.Pointer[net.Conn]
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conn.Store(&info.Conn) }}
	resp, err := rt.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if c := conn.Load(); err != nil && c != nil {
		err = read(*c, err)
	}
	return resp, err
}

// read returns the alert that ended conn, if err only says that conn is closed, else
// err. crypto/tls returns an alert from every later Read.
func read(conn net.Conn, err error) error {
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err // the connection may still work, and carry streams of other requests
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // the connection is closed: do not wait for more
	if _, alert := conn.Read(make([]byte, 1)); Refused(alert) {
		return alert
	}
	return err
}

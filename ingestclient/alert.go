package ingestclient

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"
)

// roundTrip sends req over rt. Under TLS 1.3 a server refuses a client's
// certificate after the client has finished its side: its alert races with the
// request, and net/http reports whichever goroutine of the connection failed
// first. When that was the writing one, the connection is asked for the alert.
func roundTrip(rt http.RoundTripper, req *http.Request) (*http.Response, error) {
	var conn atomic.Pointer[net.Conn]
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { conn.Store(&info.Conn) }}
	resp, err := rt.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if c := conn.Load(); err != nil && c != nil {
		err = lastWord(*c, err)
	}
	return resp, err
}

// lastWord returns the alert that ended conn, if err merely says that conn is
// over, else err. crypto/tls keeps an alert and gives it to every later Read.
func lastWord(conn net.Conn, err error) error {
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err // the connection may live on, and carry others' streams
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // of a connection that is over: never wait for it
	if _, alert := conn.Read(make([]byte, 1)); refusedByPeer(alert) {
		return alert
	}
	return err
}

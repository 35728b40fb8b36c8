package httpserver

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// A request that waits for minutes costs two goroutines, the buffers of net/http and all
// that the handlers have made of it, some 35 KiB together. Detach gives all of it back: of a
// request of HTTP/1.1 nothing is left but its connection, until it is answered.

// Detached is a request of HTTP/1.1 that waits for its answer without a handler.
type Detached struct {
	conn  net.Conn
	raw   syscall.RawConn // of the socket; nil if conn has none
	owner *detachedConns
	gone  func()

	reading sync.Mutex // held while the connection is read from, see leaving.go; guards close and ignored
	close   bool       // the connection cannot go on after the answer
	ignored bool       // the client has sent something, so that its end cannot be seen any more
}

// ErrNotDetached reports a request that its handler has to answer itself: it is none of
// HTTP/1.1, has a body, no [Serve] has accepted it, or that is ending.
var ErrNotDetached = errors.New("the request cannot be detached")

// detachedKey is the key in a context for the detached connections of the server.
type detachedKey struct{}

// Detach takes a request without a body out of the hands of its handler, which must not
// use w any more and should return. The caller answers with [Detached.Answer] later, or
// gives up with [Detached.Close]. gone is called once if the client is found to have left,
// some seconds after it has; it must not block. On other systems than Linux and macOS only
// the answer shows it, so the wait must be bounded. At the end of [Serve] the requests that
// are detached still are cut after Config.Drain.
//
// The error is [ErrNotDetached], and then nothing has changed, or that of net/http.
func Detach(w http.ResponseWriter, r *http.Request, gone func()) (*Detached, error) {
	owner, ok := r.Context().Value(detachedKey{}).(*detachedConns)
	if !ok || r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.ContentLength != 0 || r.Method == http.MethodHead {
		return nil, ErrNotDetached
	}
	if !owner.begin() {
		return nil, ErrNotDetached
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		owner.giveUp()
		if errors.Is(err, http.ErrNotSupported) {
			return nil, ErrNotDetached
		}
		return nil, err
	}
	early := buffered.Reader.Buffered() > 0 // the next request, which is not kept
	d := &Detached{conn: conn, raw: socketOf(conn), owner: owner, gone: gone, close: r.Close || early, ignored: early}
	if !owner.add(d) { // the end of the server has cut all
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	return d, nil
}

// Answer sends the whole answer within the given time. Afterwards the connection serves the
// next request, unless the header says "Connection: close" or the server is ending. Errors
// are those of writing, and the connection is closed then.
func (d *Detached) Answer(status int, header http.Header, body []byte, within time.Duration) error {
	d.reading.Lock()
	defer d.reading.Unlock()
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	last := d.close || header.Get("Connection") == "close"
	resp := http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: header, Close: last,
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	var out bytes.Buffer
	err := resp.Write(&out)
	if err == nil {
		err = d.conn.SetWriteDeadline(time.Now().Add(within))
	}
	if err == nil {
		_, err = d.conn.Write(out.Bytes())
	}
	if err == nil {
		err = d.conn.SetWriteDeadline(time.Time{})
	}
	if !d.owner.remove(d) { // the end of the server has closed it
		return errors.Join(err, net.ErrClosed)
	}
	if err != nil || last {
		return errors.Join(err, d.conn.Close())
	}
	if !d.owner.giveBack(d.conn) {
		_ = d.conn.Close() // the end of the server may have done it
	}
	return nil
}

// Close ends the request without an answer, and closes its connection.
func (d *Detached) Close() error {
	d.owner.remove(d)
	return d.conn.Close()
}

// detachedConns are the connections of a server that are detached, and a listener that
// accepts those that come back.
type detachedConns struct {
	addr net.Addr
	back chan net.Conn

	mu     sync.Mutex // guards coming, open, quiet, ended and cut
	coming int        // requests between begin and add
	open   map[*Detached]struct{}
	quiet  map[net.Conn]struct{} // have come back and sent nothing since
	ended  bool                  // no connection comes back, and none is detached any more
	cut    bool                  // drain has cut what was left
	end    chan struct{}         // closed with ended
	empty  chan struct{}         // closed when ended and nothing is open or coming, unless cut
}

func newDetachedConns(addr net.Addr) *detachedConns {
	return &detachedConns{addr: addr, back: make(chan net.Conn), open: make(map[*Detached]struct{}), quiet: make(map[net.Conn]struct{}), end: make(chan struct{}), empty: make(chan struct{})}
}

// begin reports whether a request may be detached, which it may not once the server ends. Then
// add or giveUp follows, and drain waits for that.
func (l *detachedConns) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.coming++
	return true
}

func (l *detachedConns) giveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coming--
	l.noteEmpty()
}

// add reports whether d is detached now: drain may have cut all meanwhile.
func (l *detachedConns) add(d *Detached) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.coming--
	if l.cut {
		return false
	}
	l.open[d] = struct{}{}
	return true
}

// remove reports whether d was open.
func (l *detachedConns) remove(d *Detached) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.open[d]
	delete(l.open, d)
	if ok {
		l.noteEmpty()
	}
	return ok
}

// noteEmpty tells drain if nothing is left. After the end nothing begins, so that it does this
// once. The caller holds mu, and has taken something away.
func (l *detachedConns) noteEmpty() {
	if l.ended && !l.cut && l.coming == 0 && len(l.open) == 0 {
		close(l.empty)
	}
}

// giveBack lets the server accept a connection again, unless it is ending.
func (l *detachedConns) giveBack(c net.Conn) bool {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return false
	}
	l.quiet[c] = struct{}{}
	l.mu.Unlock()
	select {
	case l.back <- c:
		return true
	case <-l.end:
		return false
	}
}

// changed is the ConnState of the server. To net/http a connection that has come back is a new
// one, and its Shutdown lets those be for five seconds: Close ends them instead, as Shutdown ends
// connections between two requests.
func (l *detachedConns) changed(c net.Conn, state http.ConnState) {
	if state == http.StateNew {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.quiet, c)
}

// Accept implements [net.Listener].
func (l *detachedConns) Accept() (net.Conn, error) {
	select {
	case c := <-l.back:
		return c, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}

// Addr implements [net.Listener].
func (l *detachedConns) Addr() net.Addr { return l.addr }

// Close implements [net.Listener]. Requests that are detached can still be answered.
func (l *detachedConns) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	l.ended = true
	for c := range l.quiet {
		closeSocket(c)
	}
	clear(l.quiet)
	close(l.end)
	l.noteEmpty()
	return nil
}

// closeSocket closes a connection below its TLS, without the alert, which could have to wait for
// the peer: the answer before was sent whole, and nothing else was asked for.
func closeSocket(c net.Conn) {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	_ = c.Close() // over in any case
}

// drain waits until all requests are answered or stop is done, and then cuts the others.
// It reports whether none was cut.
func (l *detachedConns) drain(stop <-chan struct{}) bool {
	select {
	case <-l.empty:
		return true
	case <-stop:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	left := l.coming + len(l.open)
	for d := range l.open {
		_ = d.conn.Close() // over in any case
	}
	clear(l.open)
	return left == 0
}

package httpserver

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// Nobody reads from the connection of a detached request, so the end of its client is not
// noticed by itself. One goroutine asks the kernel for all of them from time to time.

const (
	// leftEvery is how often each connection is looked at, if they are few, and leftPause is the
	// share of one connection in the pause if they are more: no more than a thousand are looked
	// at in a second. A look is one system call of a microsecond or two.
	leftEvery, leftPause = time.Second, time.Millisecond
	// leftRead is how long reading may take of what the kernel has already.
	leftRead = 10 * time.Millisecond
)

// watchLeaving tells of clients that have left, until the listener is closed.
func (l *detachedConns) watchLeaving() {
	timer := time.NewTimer(leftEvery)
	defer timer.Stop()
	for {
		select {
		case <-l.end:
			return
		case <-timer.C:
		}
		open := l.waiting()
		for _, d := range open {
			if d.hasLeft() {
				d.gone()
			}
		}
		timer.Reset(max(leftEvery, time.Duration(len(open))*leftPause))
	}
}

// waiting returns the requests that are detached now.
func (l *detachedConns) waiting() []*Detached {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*Detached, 0, len(l.open))
	for d := range l.open {
		all = append(all, d)
	}
	return all
}

// isOpen reports whether d is detached still.
func (l *detachedConns) isOpen(d *Detached) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.open[d]
	return ok
}

// hasLeft reports whether the client has closed its connection, and reports it once. A client
// that waits sends nothing, so what has arrived is the end of the TCP connection or, before it,
// the alert with which TLS ends (RFC 8446 §6.1). If it is data, the client is there, and the
// connection ends with the answer, because its next request is not whole any more.
func (d *Detached) hasLeft() bool {
	if d.raw == nil || !d.reading.TryLock() { // it is being answered
		return false
	}
	defer d.reading.Unlock()
	if d.ignored || !d.owner.isOpen(d) || !readable(d.raw) {
		return false
	}
	if d.conn.SetReadDeadline(time.Now().Add(leftRead)) != nil {
		return false // closed by us
	}
	n, err := d.conn.Read(make([]byte, 1))
	d.ignored = true // nobody may keep this goroutine busy by sending a little each time
	if n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	d.close = d.close || n > 0              // else it was a part of a record, or a message of TLS itself
	_ = d.conn.SetReadDeadline(time.Time{}) // fails for a connection that we have closed
	return false
}

// socketOf returns the socket below the layers of a connection, or nil.
func socketOf(c net.Conn) syscall.RawConn {
	for {
		if socket, ok := c.(syscall.Conn); ok {
			raw, err := socket.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		}
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = over.NetConn()
	}
}

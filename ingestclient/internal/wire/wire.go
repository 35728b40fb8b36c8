// Package wire saves system calls under crypto/tls, which writes each record of 16 KiB by
// itself: it makes one write of four records.
//
// It is between a tls.Conn and the network, and uses only the sizes of writes. A full record
// is most likely followed by another one. So it is held until there are four, or a shorter
// record comes, which ends a message, or 2 ms have passed. The order of bytes never changes.
//
// A short record that is known to be followed by another one is held too, see [HoldNext]:
// net/http writes the header of a request by itself, and for a small file that is half of
// all system calls, here and at the server.
package wire

import (
	"net"
	"sync"
	"time"
)

const (
	full   = 16 << 10         // plaintext of the largest record (RFC 8446 §5.1); on the wire it is a little longer
	batch  = 4 * (full + 256) // RFC 8446 §5.2: 256 bytes of overhead at most
	moment = 2 * time.Millisecond
)

// Coalescer makes connections write less often and more at a time. The connections share its
// buffers: an idle connection has none. The zero value works.
type Coalescer struct{ buffers sync.Pool }

// Wrap returns conn with fewer and larger writes.
func (c *Coalescer) Wrap(conn net.Conn) net.Conn { return &writer{Conn: conn, shared: c} }

// buffer returns an empty buffer.
func (c *Coalescer) buffer() []byte {
	if b, ok := c.buffers.Get().(*[batch]byte); ok {
		return b[:0]
	}
	return new([batch]byte)[:0]
}

func (c *Coalescer) giveBack(b []byte) { c.buffers.Put((*[batch]byte)(b[:batch])) }

// HoldNext announces that the next record on conn, whatever its length, is
// followed by another one. It finds the connection that Wrap returned under a
// tls.Conn and others with a NetConn method; on any other it does nothing.
func HoldNext(conn net.Conn) {
	for conn != nil {
		if w, ok := conn.(*writer); ok {
			w.mu.Lock()
			w.more = true
			w.mu.Unlock()
			return
		}
		under, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		conn = under.NetConn()
	}
}

type writer struct {
	net.Conn
	shared *Coalescer

	mu    sync.Mutex // held during writes, so that the order of bytes does not change
	held  []byte     // records that wait; nil if there are none
	timer *time.Timer
	more  bool  // the next record is followed by another one
	err   error // of a write by the timer; the next write returns it
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	more := w.more
	w.more = false
	if len(w.held) == 0 && len(p) < full && !more {
		return w.Conn.Write(p)
	}
	if len(w.held)+len(p) > batch {
		if err := w.flush(); err != nil {
			return 0, err
		}
		if len(p) > batch {
			return w.Conn.Write(p)
		}
	}
	w.hold(p)
	if len(p) < full && !more || len(w.held) > batch-full {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// hold keeps p. The caller holds w.mu and has checked that there is room.
func (w *writer) hold(p []byte) {
	if w.held == nil {
		w.held = w.shared.buffer()
		if w.timer == nil {
			w.timer = time.AfterFunc(moment, w.late)
		} else {
			w.timer.Reset(moment)
		}
	}
	w.held = append(w.held, p...)
}

// late sends the held records after 2 ms without another write.
func (w *writer) late() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.flush() // the error is in w.err too, for the next write
}

// flush sends the held records. The caller holds w.mu.
func (w *writer) flush() error {
	if w.held == nil {
		return w.err
	}
	_, err := w.Conn.Write(w.held)
	w.timer.Stop()
	w.shared.giveBack(w.held)
	w.held = nil
	if err != nil {
		w.err = err
	}
	return err
}

// Close drops held records. There are none after a regular end, because crypto/tls ends with
// a short record.
func (w *writer) Close() error {
	err := w.Conn.Close() // first: it ends a write that holds the lock
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = net.ErrClosed
	if w.held != nil {
		w.timer.Stop()
		w.shared.giveBack(w.held)
		w.held = nil
	}
	return err
}

// Package wire saves system calls under crypto/tls, which writes each record of
// 16 KiB on its own: four of them go out as one.
//
// It stands between a tls.Conn and the network and sees only the sizes of what
// is written. A full record is most likely followed by another, so it is held
// until enough are there, a shorter one comes, which ends a message, or a moment
// has passed. So nothing that a peer waits for is ever held longer than that
// moment, and the order of bytes never changes.
//
// A short record that is known to have more behind it is held too, see [HoldNext]:
// net/http sends the header of a request with a body by itself, and for a small
// file that is half of all system calls, here and at the server.
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

// Coalescer makes connections write less often and more at a time. They share
// its buffers, because idle ones hold nothing. The zero value works.
type Coalescer struct{ buffers sync.Pool }

// Wrap returns conn with fewer and larger writes.
func (c *Coalescer) Wrap(conn net.Conn) net.Conn { return &writer{Conn: conn, shared: c} }

// buffer returns an empty one.
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

	mu    sync.Mutex // held while bytes go out: their order is the connection's
	held  []byte     // a shared buffer while there is something in it
	timer *time.Timer
	more  bool  // behind the next record comes another
	err   error // of a write that nobody was there to hear of
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

// hold keeps p. The caller holds w.mu and has seen that there is room.
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

// late sends what no further write has come for.
func (w *writer) late() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.flush() // kept in w.err, for the next write
}

// flush sends what is held. The caller holds w.mu.
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

// Close drops what is held: crypto/tls has written its last record, a short one,
// or there is nobody to read it.
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

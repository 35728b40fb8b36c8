package wire_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/wire"
)

// tape is a connection that remembers what was written, write by write.
type tape struct {
	net.Conn
	mu     sync.Mutex
	sizes  []int
	all    bytes.Buffer
	err    error
	closed bool
}

func (t *tape) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return 0, t.err
	}
	t.sizes = append(t.sizes, len(p))
	return t.all.Write(p)
}

func (t *tape) writes() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.sizes)
}

func (t *tape) Close() error { t.closed = true; return nil }

const record = 16<<10 + 22 // a full record under AES-GCM

func TestFullRecordsGoOutTogether(t *testing.T) { synctest.Test(t, fullRecordsGoOutTogether) }

func fullRecordsGoOutTogether(t *testing.T) {
	tp := &tape{}
	c := new(wire.Coalescer).Wrap(tp)
	var want bytes.Buffer
	for i, n := range []int{500, record, record, record, record, record, record, 100, 200, 80 << 10, record, 80 << 10, record, 7} {
		p := bytes.Repeat([]byte{byte(i)}, n)
		want.Write(p)
		if got, err := c.Write(p); got != n || err != nil {
			t.Fatal(got, err)
		}
	}
	if !bytes.Equal(tp.all.Bytes(), want.Bytes()) {
		t.Error("other bytes, or another order")
	}
	if len(tp.sizes) != 8 || tp.sizes[1] != 4*record || tp.sizes[2] != 2*record+100 {
		t.Errorf("written as %v", tp.sizes)
	}
}

func TestNothingIsHeldForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tp := &tape{}
		c := new(wire.Coalescer).Wrap(tp)
		for range 3 {
			_, _ = c.Write(make([]byte, record))
			before := len(tp.writes())
			time.Sleep(5 * time.Millisecond)
			synctest.Wait()
			if len(tp.writes()) != before+1 {
				t.Errorf("a record waits for ever: %v", tp.writes())
			}
		}
		gone := errors.New("gone")
		_, _ = c.Write(make([]byte, record))
		tp.mu.Lock()
		tp.err = gone
		tp.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if _, err := c.Write([]byte("x")); !errors.Is(err, gone) {
			t.Errorf("the failure of a late write is lost: %v", err)
		}
	})
}

// outer is a connection over another one, as tls.Conn is.
type outer struct{ net.Conn }

func (o outer) NetConn() net.Conn { return o.Conn }

func TestHoldNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tp := &tape{}
		c := new(wire.Coalescer).Wrap(tp)
		for range 2 { // a header and a body are one write
			wire.HoldNext(outer{c})
			_, _ = c.Write([]byte("header"))
			_, _ = c.Write([]byte("body"))
		}
		_, _ = c.Write([]byte("alone"))
		if got := tp.writes(); !slices.Equal(got, []int{10, 10, 5}) {
			t.Errorf("written as %v", got)
		}
		wire.HoldNext(c) // what does not come is not waited for
		_, _ = c.Write([]byte("header"))
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if got := tp.writes(); len(got) != 4 {
			t.Errorf("the record waits for ever: %v", got)
		}
		wire.HoldNext(c)
		_, _ = c.Write(make([]byte, record))
		_, _ = c.Write([]byte("end"))
		if got := tp.writes(); len(got) != 5 || got[4] != record+3 {
			t.Errorf("written as %v", got)
		}
		wire.HoldNext(outer{tp}) // not one of ours
		wire.HoldNext(nil)
	})
}

func TestFailures(t *testing.T) { synctest.Test(t, failures) }

func failures(t *testing.T) {
	gone := errors.New("gone")
	for _, sizes := range [][]int{{record, 10}, {record, 80 << 10}, {record, record, record, record}} {
		tp := &tape{err: gone}
		c := new(wire.Coalescer).Wrap(tp)
		var err error
		for _, n := range sizes {
			if _, err = c.Write(make([]byte, n)); err != nil {
				break
			}
		}
		if !errors.Is(err, gone) {
			t.Errorf("%v: %v", sizes, err)
		}
	}
	tp := &tape{}
	c := new(wire.Coalescer).Wrap(tp)
	_, _ = c.Write(make([]byte, record))
	if err := c.Close(); err != nil || !tp.closed {
		t.Error(err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) || len(tp.sizes) != 0 {
		t.Errorf("after Close: %v", err)
	}
	_ = c.Close()
}

// Contract: whatever the sizes of writes, the peer reads the same bytes in the same order.
func FuzzSizes(f *testing.F) {
	f.Add([]byte{1, 64, 64, 64, 64, 3, 255})
	f.Add([]byte{2, 130, 1, 66})
	f.Fuzz(func(t *testing.T, sizes []byte) {
		tp := &tape{}
		c := new(wire.Coalescer).Wrap(tp)
		var want bytes.Buffer
		for i, n := range sizes {
			p := bytes.Repeat([]byte{byte(i)}, int(n)*259)
			want.Write(p)
			if n%2 == 1 {
				wire.HoldNext(c)
			}
			if got, err := c.Write(p); got != len(p) || err != nil {
				t.Fatal(got, err)
			}
		}
		_, _ = io.WriteString(c, "end")
		want.WriteString("end")
		tp.mu.Lock()
		defer tp.mu.Unlock()
		if !bytes.Equal(tp.all.Bytes(), want.Bytes()) {
			t.Fatalf("%v came as %v", sizes, tp.sizes)
		}
	})
}

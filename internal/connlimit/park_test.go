package connlimit_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// accepting is a listener with caps, and the connections that it has accepted.
type accepting struct {
	t    *testing.T
	ln   net.Listener
	next chan net.Conn
}

func listen(t *testing.T, caps connlimit.Caps) *accepting {
	t.Helper()
	var lc net.ListenConfig
	raw, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &accepting{t, connlimit.Listen(raw, func() connlimit.Caps { return caps }, func(netip.Prefix) {}), make(chan net.Conn, 8)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := a.ln.Accept()
			if err != nil {
				return
			}
			a.next <- c
		}
	}()
	t.Cleanup(func() { _ = a.ln.Close(); <-done })
	return a
}

// connect returns both ends of a connection from an address of this machine.
func (a *accepting) connect(from string) (client, server net.Conn) {
	a.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client, err := d.DialContext(a.t.Context(), "tcp", a.ln.Addr().String())
	if err != nil {
		a.t.Fatal(err)
	}
	server = <-a.next
	a.t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// refuses reports whether a further connection from an address is closed at once.
func (a *accepting) refuses(from string) bool {
	a.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(a.t.Context(), "tcp", a.ln.Addr().String())
	if err != nil {
		return true
	}
	defer func() { _ = c.Close() }()
	gone := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		gone <- err
	}()
	select {
	case s := <-a.next:
		_ = s.Close()
		return false
	case <-gone:
		return true
	}
}

// layer is a connection over another one, as tls.Conn is.
type layer struct{ net.Conn }

func (l layer) NetConn() net.Conn { return l.Conn }

// TestPark expects that a parked connection leaves its place to others, and gives back
// no place that it does not have when it is closed.
func TestPark(t *testing.T) {
	a := listen(t, connlimit.Caps{Total: 4, PerAddress: 1})
	_, first := a.connect("127.0.0.1")
	if !a.refuses("127.0.0.1") {
		t.Fatal("two connections of one address")
	}
	if err := connlimit.Park(layer{layer{first}}, "one", connlimit.Parking{Total: 1, PerOwner: 2}); err != nil {
		t.Fatal(err)
	}
	if err := connlimit.Park(first, "one", connlimit.Parking{Total: 1, PerOwner: 2}); err != nil {
		t.Errorf("a connection that is parked already: %v", err)
	}
	_, second := a.connect("127.0.0.1")
	if err := connlimit.Park(second, "two", connlimit.Parking{Total: 1, PerOwner: 2}); !errors.Is(err, connlimit.ErrFull) {
		t.Errorf("beyond the total: %v", err)
	}
	_ = first.Close()
	_ = first.Close()
	if !a.refuses("127.0.0.1") {
		t.Error("the end of a parked connection has made room for an ordinary one")
	}
	if err := connlimit.Park(first, "one", connlimit.Parking{Total: 1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed connection: %v", err)
	}
	if err := connlimit.Park(second, "two", connlimit.Parking{Total: 1}); err != nil {
		t.Errorf("after the parked one was closed: %v", err)
	}
	client, server := net.Pipe()
	defer func() { _, _ = client.Close(), server.Close() }()
	if err := connlimit.Park(client, "x", connlimit.Parking{Total: 9}); !errors.Is(err, connlimit.ErrNotCounted) {
		t.Errorf("a connection of another listener: %v", err)
	}
}

// TestParkedByOneOwner expects that the oldest connection of an owner beyond its share
// counts again, and is closed where there is no room for it.
func TestParkedByOneOwner(t *testing.T) {
	for _, room := range []bool{true, false} {
		a := listen(t, connlimit.Caps{Total: 4, PerAddress: 1})
		most := connlimit.Parking{Total: 100, PerOwner: 2}
		oldest, server := a.connect("127.0.0.2")
		if err := connlimit.Park(server, "one", most); err != nil {
			t.Fatal(err)
		}
		if !room {
			a.connect("127.0.0.2") // takes the place of the address
		}
		for range 2 {
			_, s := a.connect("127.0.0.1")
			if err := connlimit.Park(s, "one", most); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := server.Write([]byte("x")); (err == nil) != room {
			t.Errorf("with room %t, the oldest connection: %v", room, err)
		}
		if room && !a.refuses("127.0.0.2") {
			t.Error("the oldest connection has no place in the caps")
		}
		_ = oldest.Close()
	}
}

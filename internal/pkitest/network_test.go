package pkitest_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/artstore/artstore-pki/internal/pkitest"
)

// TestNetworkClosesLikeTCP expects that nothing can be written once Close has woken a
// reader, and that the reader's error has the type by which net/http knows a closed
// connection. With another type it answers 400, and a peer that waits for the end reads it.
func TestNetworkClosesLikeTCP(t *testing.T) {
	network := pkitest.NewNetwork()
	for range 2000 {
		client, err := network.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		server, err := network.Accept()
		if err != nil {
			t.Fatal(err)
		}
		woken := make(chan error, 1)
		go func() {
			_, err := server.Read(make([]byte, 1))
			_, _ = server.Write([]byte("x"))
			woken <- err
		}()
		_ = server.Close()
		if n, err := client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("read %d bytes from a closed connection: %v", n, err)
		}
		if op := (*net.OpError)(nil); !errors.As(<-woken, &op) || !errors.Is(op, net.ErrClosed) {
			t.Fatal("the reader is not told that its connection is closed")
		}
	}
}

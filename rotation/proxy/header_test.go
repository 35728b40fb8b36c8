package proxy_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"github.com/artstore/artstore-pki/rotation/proxy"
)

// TestProxyHeader expects that a service reads the addresses of the peer and the name by which
// it was admitted before its first byte, and at a readiness probe that nobody has connected.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type seen struct {
		header *proxyproto.Header
		first  byte
	}
	all := make(chan seen, 2)
	s, server := w.server(tcpService(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		h, err := proxyproto.Read(r)
		if err != nil {
			t.Errorf("reading the header: %v", err)
			return
		}
		first, _ := r.ReadByte()
		all <- seen{h, first}
	}), func(c *proxy.ServerConfig) { c.ProxyHeader, c.Allow = true, []string{spiffeID} })
	c := w.dial(server.addr)
	_, err := io.WriteString(c, "x")
	must(t, err)
	got := <-all
	if got.first != 'x' || got.header.Command != proxyproto.PROXY || got.header.SourceAddr.String() != c.LocalAddr().String() || got.header.DestinationAddr.String() != server.addr {
		t.Errorf("%q after %+v", got.first, got.header)
	}
	tlvs, err := got.header.TLVs()
	must(t, err)
	name := ""
	for _, tlv := range tlvs {
		if tlv.Type == 0xe0 {
			name = string(tlv.Value)
		}
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	version, _ := ssl.SSLVersion()
	if name != spiffeID || !ok || version != "TLSv1.3" || !ssl.ClientCertConn() {
		t.Errorf("the name is %q, and of TLS is known %v %+v", name, ok, ssl)
	}
	must(t, s.Ready(t.Context()))
	if got := <-all; got.header.Command != proxyproto.LOCAL {
		t.Errorf("a readiness probe is %+v", got.header)
	}
}

// TestUsers expects that a socket serves the users of the list, beside what its mode says.
func TestUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, server := w.server(tcpService(t, echo))
	for name, uid := range map[string]int{"of the list": os.Geteuid(), "another": os.Geteuid() + 1} {
		t.Run(name, func(t *testing.T) {
			ln, path := listenUnix(t)
			c, _ := w.clientSide(ln, server.addr, func(c *proxy.ClientConfig) { c.UIDs = []int{uid} })
			conn := dial(t, "unix", path)
			must(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err := io.WriteString(conn, "x")
			if err == nil {
				_, err = io.ReadFull(conn, make([]byte, 1))
			}
			if admitted := uid == os.Geteuid(); (err == nil) != admitted {
				t.Errorf("%v", err)
			}
			if n := failures(c.Stats(), "user"); (n == 0) != (uid == os.Geteuid()) {
				t.Errorf("%d refusals counted", n)
			}
		})
	}
}

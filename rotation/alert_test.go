package rotation_test

import (
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/rotation"
)

// Under TLS 1.3 a server refuses the certificate of a client that has finished its
// handshake, and net/http may see a closed connection only. The error of the
// request says who refused whom all the same.
func TestRefusedByTheServer(t *testing.T) {
	ca, foreign := newCA(t, "ca"), newCA(t, "foreign")
	addr := listenServer(t, open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	stranger := foreign.leaf(t, "client", nil)
	stranger.Roots = append(stranger.Roots, ca.root)
	for name, http1 := range map[string]bool{"HTTP/1.1": true, "HTTP/2": false} {
		t.Run(name, func(t *testing.T) {
			for range 200 {
				tr := transport(t, open(t, rotation.Static(stranger), 0), rotation.TransportOptions{HTTP1Only: http1})
				if _, err := get(t, tr, addr); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
					t.Errorf("%v", err)
				}
				_ = tr.Close()
			}
		})
	}
}

package rotgrpc_test

import (
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
)

// TestDenied expects that a peer that Authorize refuses can make no further call over
// its open connection, and that its open stream ends within about a second, or by
// Reauthorize.
func TestDenied(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, versioned := range []bool{false, true} {
		for _, now := range []bool{false, true} {
			ca := pkitest.NewCA(t)
			var denies atomic.Bool
			opts := rotation.ServerOptions{Authorize: func(cs tls.ConnectionState) error {
				if denies.Load() {
					return rotation.ErrPeerDenied
				}
				return rotation.AllowNames("ingester")(cs)
			}}
			if versioned {
				opts.PolicyVersion = func() string { return map[bool]string{false: "1", true: "2"}[denies.Load()] }
			}
			server, err := pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "storage"))}).Server(opts)
			if err != nil {
				t.Fatal(err)
			}
			id := pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "ingester"))})
			c := newClient(t, id, "passthrough:///"+serve(t, server))
			stream := openStream(limit(t), t, c)
			began := time.Now()
			denies.Store(true)
			if now {
				server.Reauthorize()
			}
			// PermissionDenied over the open connection; Unavailable if that is cut already.
			if _, err := whoami(limit(t), c); status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.Unavailable {
				t.Errorf("versioned %v: the next call of a refused peer: %v", versioned, err)
			}
			_, err = stream.Recv()
			if took := time.Since(began); err == nil || took > 15*time.Second { // once it was up to 30 s
				t.Errorf("versioned %v: the open stream of a refused peer ended after %s: %v", versioned, took, err)
			}
		}
	}
}

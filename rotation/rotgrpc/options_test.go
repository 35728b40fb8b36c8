package rotgrpc_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/rotgrpc"
)

// TestTransportOptions expects that ServerName, AuthorizeServer and Trust work as they
// do for HTTP.
func TestTransportOptions(t *testing.T) {
	w := newWorld(t, worldOptions{})
	own := rotation.Static(pkitest.NewCA(t).Leaf(t, "nobody")) // roots that verify no server here
	elsewhere, err := rotation.OpenTrust(t.Context(), rotation.Config{Source: own})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = elsewhere.Close() })
	for name, c := range map[string]struct {
		opts rotation.TransportOptions
		want codes.Code
	}{
		"none":             {rotation.TransportOptions{}, codes.OK},
		"its name":         {rotation.TransportOptions{ServerName: "storage"}, codes.OK},
		"another name":     {rotation.TransportOptions{ServerName: "other"}, codes.Unavailable},
		"admitted":         {rotation.TransportOptions{AuthorizeServer: rotation.AllowNames("storage")}, codes.OK},
		"not admitted":     {rotation.TransportOptions{AuthorizeServer: rotation.AllowNames("other")}, codes.Unavailable},
		"other roots":      {rotation.TransportOptions{Trust: elsewhere}, codes.Unavailable},
		"TLS 1.2 and more": {rotation.TransportOptions{MinVersion: 0x0303}, codes.OK},
	} {
		client, err := rotgrpc.NewClient(w.clientID, "passthrough:///"+w.addr, c.opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := whoami(context.WithoutCancel(limit(t)), client); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		_ = client.Close()
	}
}

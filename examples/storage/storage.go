// Package storage is a service whose test uses a real authority, so that certificates which were
// really issued decide which peers may connect.
package storage

import (
	"context"
	"net"
	"net/http"

	"github.com/artstore/artstore-pki/rotation"
)

// Serve answers health checks of the ingester until ctx ends. No other service may connect.
func Serve(ctx context.Context, identity *rotation.Identity, listener net.Listener) error {
	server, err := identity.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return server.Serve(ctx, listener, mux)
}
